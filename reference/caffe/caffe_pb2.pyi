"""protoc makes the messages at run time; a type checker takes them on trust."""

from typing import Any

def __getattr__(name: str) -> Any: ...
