"""Protobuf's wire format, as far as it takes to lift tensors out of a message without copying them.

A message is a row of fields: a key (number << 3 | type), then by type a varint (0), 8 bytes (1), a length and
as many bytes (2), or 4 bytes (5). A packed array of floats is a length and the floats as they lie in memory, so a
slice of the file is the tensor. protobuf itself makes a Python float of each number: half a minute for FCN-8s
(version 6), where this takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator

# No message of a net has as many; a file of garbage may.
FIELDS_LIMIT = 100_000
FIXED = {1: 8, 5: 4}
BYTES = 2


def split(message: memoryview, *numbers: int) -> tuple[bytes, list[tuple[int, memoryview]]]:
    """Take the fields with these numbers out of a message: (what is left, [(number, bytes) in order]).

    What is left is a message too. Raises ValueError for bytes that are no message.
    """
    rest, taken, start = [], [], 0
    for number, begin, body, end in _fields(message):
        if number in numbers:
            rest.append(message[start:begin])
            taken.append((number, message[body:end]))
            start = end
    rest.append(message[start:])
    return b"".join(rest), taken


def key(number: int, length: int) -> bytes:
    """What stands before the `length` bytes of field `number`."""
    return _varint(number << 3 | BYTES) + _varint(length)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """(number, offset, offset of the bytes, end) of each field; the number is 0 where the type is not bytes."""
    at, size = 0, len(message)
    for _ in range(FIELDS_LIMIT):
        if at == size:
            return
        begin = at
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field without a number")
        if kind == BYTES:
            length, at = _read_varint(message, at)
            end = at + length
        elif kind == 0:
            _, end = _read_varint(message, at)
            number = 0
        elif kind in FIXED:
            end = at + FIXED[kind]
            number = 0
        else:
            raise ValueError(f"a field of the unknown type {kind}")
        if end > size:
            raise ValueError(f"{end - size} bytes are missing at its end")
        yield number, begin, at, end
        at = end
    raise ValueError(f"more than {FIELDS_LIMIT} fields")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
