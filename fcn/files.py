"""Files are written under a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fcn.cli import BadInput

# mkstemp makes private files; this gives them what the user's other files have. Reading it sets it, hence once.
UMASK = os.umask(0o022)
os.umask(UMASK)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix); rename it there on success, delete it on failure.

    Raises BadInput where the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises BadInput where the file is missing or is no JSON."""
    try:
        return json.loads(existing(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a JSON file ({error})") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | Path, kind: str = "file", hint: str = "check the path") -> Path:
    """`path` as a Path. Raises BadInput where it is missing, of the wrong kind, or an empty file."""
    path = Path(path)
    if kind == "folder":
        if not path.is_dir():
            raise BadInput(f"{path}: no such folder; {hint}")
        return path
    if not path.exists():
        raise BadInput(f"{path}: no such file; {hint}")
    if not path.is_file():
        raise BadInput(f"{path}: not a file; {hint}")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty; {hint}")
    return path
