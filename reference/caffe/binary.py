"""Caffe's binary files: their blobs read and written without making a Python number of each of theirs.

A file maps straight into memory and its arrays into tensors: reading costs one copy, into the net.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fcn.cli import BadInput
from fcn.files import atomic, existing
from reference.caffe import caffe_pb2 as pb
from reference.caffe import wire

# Caffe opens no larger file (util/io.cpp: kProtoReadBytesLimit).
FILE_LIMIT = 2**31 - 1
MAX_AXES = 32  # of a blob (blob.hpp: kMaxBlobAxes)
# The arrays of a blob: values as float or double, and their gradients, which are not read.
ARRAYS = {pb.BlobProto.DOUBLE_DATA_FIELD_NUMBER: torch.float64, pb.BlobProto.DATA_FIELD_NUMBER: torch.float32}
GRADIENTS = (pb.BlobProto.DIFF_FIELD_NUMBER, pb.BlobProto.DOUBLE_DIFF_FIELD_NUMBER)

# What is still to be written: bytes, and tensors whose float32 numbers stand there as they lie in memory.
Parts = Sequence[bytes | Tensor]


def map_file(path: str | Path) -> memoryview:
    """A file as memory: read when it is looked at, and writing there does not change it.

    Raises BadInput where it is missing, empty or not readable.
    """
    path = existing(path)
    try:
        with path.open("rb") as file:
            # A private mapping: torch wants to be able to write.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error


def read_blob(blob: memoryview, what: str = "a blob") -> Tensor:
    """The tensor of a serialized BlobProto, as a view of it. Raises ValueError where shape and data disagree."""
    rest, arrays = wire.split(blob, *ARRAYS, *GRADIENTS)
    message = pb.BlobProto.FromString(rest)
    legacy = (message.num, message.channels, message.height, message.width)
    shape = tuple(message.shape.dim) if message.HasField("shape") else legacy
    if len(shape) > MAX_AXES:
        raise ValueError(f"{what} has {len(shape)} axes")
    tensor = torch.empty(0)
    for field_number, dtype in ARRAYS.items():
        parts = [part for number, part in arrays if number == field_number and len(part)]
        if parts:
            data = parts[0] if len(parts) == 1 else memoryview(bytearray(b"".join(parts)))
            if len(data) % dtype.itemsize:
                raise ValueError(f"{what} ends in the middle of a number")
            tensor = torch.frombuffer(data, dtype=dtype)
            break
    if math.prod(shape) != tensor.numel() or min(shape, default=0) < 0:
        shown = " x ".join(map(str, shape))
        raise ValueError(f"{what} holds {tensor.numel()} numbers for the shape {shown}")
    return tensor.reshape(shape)


def without_leading_ones(blob: Tensor, shape: Sequence[int]) -> Tensor:
    """`blob` in `shape`, where axes of length 1 in front are the whole difference: until 2014 all blobs had four."""
    if blob.shape == (1,) * (blob.ndim - len(shape)) + tuple(shape):
        return blob.reshape(tuple(shape))
    return blob


def blob_parts(tensor: Tensor) -> Parts:
    """A serialized BlobProto, its fields in the order in which Caffe writes them."""
    shape = pb.BlobProto(shape=pb.BlobShape(dim=tensor.shape)).SerializeToString()
    return [*field(pb.BlobProto.DATA_FIELD_NUMBER, [tensor]), shape]


def field(number: int, parts: Parts) -> Parts:
    """`parts` as field `number` of a message."""
    return [wire.key(number, size(parts)), *parts]


def size(parts: Parts) -> int:
    """Bytes in the file."""
    return sum(len(part) if isinstance(part, bytes) else 4 * part.numel() for part in parts)


def write(path: str | Path, parts: Parts) -> None:
    """Write a message. Raises BadInput where `path` cannot be written and for more than 2 GiB."""
    if size(parts) > FILE_LIMIT:
        raise BadInput(f"{path}: {size(parts):.3g} bytes are more than Caffe can read; build a narrower net")
    with atomic(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else part.detach().cpu().float().contiguous().numpy().data)


def diagnosis(start: memoryview, kind: str) -> str:
    """What a file that is no `kind` may be, by its first bytes, and what to do."""
    head = bytes(start[:256])
    if head.startswith(b"\x89HDF"):
        return "an HDF5 snapshot; save with snapshot_format: BINARYPROTO"
    if head.isascii() and not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return f"a text file, not a {kind}; a prototxt defines a net, it holds no weights"
    return f"not a whole {kind}; fetch or copy it again"
