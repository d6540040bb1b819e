"""Numeric arrays out of MATLAB 5 files (.mat), which is how SBD and others store their labels.

Written here because scipy 1.x's reader ends the whole process (a segmentation fault) on some damaged files.
Source of the layout: MathWorks, "MAT-File Format", the chapter on level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import MAX_PIXELS

MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
STRUCT = 2
# What a file may unpack to, and an array may take, in bytes: a deflated file of 130 KB can hold as much.
LARGEST = MAX_PIXELS
# Elements in a row (variables, or fields of a struct), and axes of an array: a file of garbage may have more.
ROW, AXES = 10_000, 32
NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


def read_array(path: Path, *names: str) -> np.ndarray:
    """The array of the variable names[0], or of the field names[1] of that 1 x 1 struct, and so on down.

    Raises BadInput for a missing or broken file, one without that array, and MATLAB 7.3's (which is HDF5).
    """
    raw = existing(path).read_bytes()
    try:
        return _search(raw, names)
    except (ValueError, OverflowError, struct.error, zlib.error) as error:
        wanted = ".".join(names)
        raise BadInput(f"{path}: {wanted} cannot be read from it ({error}); fetch it again") from error


def read_ids(path: Path, *names: str, lowest: int = 0, highest: int = 255) -> np.ndarray:
    """The array `names` (see `read_array`) where it is a label map: H x W int16, from `lowest` to `highest`.

    MATLAB keeps whole numbers as doubles, unless told otherwise: both are read. Raises BadInput for anything else.
    """
    ids = read_array(path, *names)
    if ids.ndim != 2 or not ids.size or not (lowest <= ids.min() and ids.max() <= highest) or (ids % 1).any():
        wanted = ".".join(names)
        raise BadInput(f"{path}: {wanted} is no matrix of class ids from {lowest} to {highest}; fetch it again")
    return ids.astype(np.int16)


def _search(raw: bytes, names: tuple[str, ...]) -> np.ndarray:
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise ValueError("no MATLAB 5 file")
    if struct.unpack_from(order + "H", raw, 124)[0] != 0x0100:
        raise ValueError("saved by MATLAB 7.3 or later as HDF5; save it with -v7")
    room = LARGEST
    for kind, body in _elements(memoryview(raw)[128:], order):
        if kind == COMPRESSED:  # zlib's checksum finds every damage within
            content = _inflate(body, room)
            room -= len(content)
            kind, body = next(_elements(memoryview(content), order), (0, body))
        if kind == MATRIX and (found := _array(body, order, names)) is not None:
            return found
    raise ValueError(f"it holds no {names[0]}")


def _inflate(body: memoryview, room: int) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(body, room + 1)
    if len(content) > room:
        raise ValueError(f"it unpacks to more than {LARGEST} bytes")
    if not inflater.eof:
        raise ValueError("it is cut short")
    return content


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the elements in a row, which start at multiples of 8 bytes."""
    at = 0
    for _ in range(ROW):
        if at >= len(data):
            return
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # the short form: size and type in one word, up to four bytes in the next
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            end = at + 8
        else:
            start = at + 8
            end = start + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > min(len(data), end):
            raise ValueError("it is cut short or damaged")
        yield kind, data[start : start + size]
        at = end
    raise ValueError(f"more than {ROW} elements in a row")


def _array(body: memoryview, order: str, names: tuple[str, ...]) -> np.ndarray | None:
    """The wanted array in a matrix element; None where the element bears another name than names[0]."""
    elements = _elements(body, order)
    head = [content for _, content in islice(elements, 3)]
    if len(head) < 3:
        return None
    flags, dimensions, name = head
    if bytes(name).decode("ascii", "replace") != names[0]:
        return None
    if len(dimensions) > 4 * AXES:
        raise ValueError(f"more than {AXES} axes")
    kind = struct.unpack_from(order + "I", flags)[0] & 0xFF
    shape = tuple(int(n) for n in np.frombuffer(dimensions, order + "i4"))
    parts = [*elements]
    if len(names) == 1:
        return _numbers(parts, order, kind, shape)
    if kind != STRUCT or math.prod(shape) != 1 or len(parts) < 2:
        raise ValueError(f"{names[0]} is no 1 x 1 struct")
    (_, sizes), (_, table), *inner = parts
    width = struct.unpack_from(order + "i", sizes)[0]
    if width < 1 or len(table) != width * len(inner):
        raise ValueError(f"{names[0]} has not as many fields as names")
    starts = range(0, len(table), width)
    fields = [bytes(table[i : i + width]).split(b"\0")[0].decode("ascii", "replace") for i in starts]
    if names[1] not in fields:
        raise ValueError(f"{names[0]} has no field {names[1]}")
    # A field's own matrix bears no name.
    return _array(inner[fields.index(names[1])][1], order, ("", *names[2:]))


def _numbers(parts: list[tuple[int, memoryview]], order: str, kind: int, shape: tuple[int, ...]) -> np.ndarray:
    """MATLAB stores whole numbers in the smallest type that holds them, column by column."""
    if kind not in NUMERIC or len(parts) != 1 or parts[0][0] not in STORED:
        raise ValueError("it is no array of real numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * np.dtype(NUMERIC[kind]).itemsize > LARGEST:
        raise ValueError(f"an array of {' x '.join(map(str, shape))} is damaged or too large")
    stored, content = parts[0]
    values = np.frombuffer(content, order + STORED[stored]).astype(NUMERIC[kind])
    return values.reshape(shape, order="F")
