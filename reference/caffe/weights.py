"""Caffe's weights (caffemodel), read in both formats and written in the newer one.

A file maps straight into memory and its arrays into tensors: reading costs one copy into the net.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from fcn.cli import BadInput
from fcn.files import atomic, existing
from reference.caffe import caffe_pb2 as pb
from reference.caffe import wire
from reference.caffe.prototxt import net_message
from reference.layers import Input
from reference.net import Net, module_name
from reference.surgery import Report, transplant

# Caffe opens no larger file (util/io.cpp: kProtoReadBytesLimit).
FILE_LIMIT = 2**31 - 1
MAX_AXES = 32  # of a blob (blob.hpp: kMaxBlobAxes)
# The layers of both formats: field of the net, message, its field of blobs.
FORMATS = {
    pb.NetParameter.LAYER_FIELD_NUMBER: (pb.LayerParameter, pb.LayerParameter.BLOBS_FIELD_NUMBER),
    pb.NetParameter.LAYERS_FIELD_NUMBER: (pb.V1LayerParameter, pb.V1LayerParameter.BLOBS_FIELD_NUMBER),
}
# The arrays of a blob: weights as float or double, and their gradients, which are not read.
ARRAYS = {pb.BlobProto.DOUBLE_DATA_FIELD_NUMBER: torch.float64, pb.BlobProto.DATA_FIELD_NUMBER: torch.float32}
GRADIENTS = (pb.BlobProto.DIFF_FIELD_NUMBER, pb.BlobProto.DOUBLE_DIFF_FIELD_NUMBER)
BLOB_NAMES = ("weight", "bias")


def load_caffemodel(net: Net, path: str | Path) -> Report:
    """Copy the weights of a Caffe file into `net`, layer by layer name, and say what was done.

    Blobs of another shape but equal size are reshaped, as `surgery.transplant` does; axes of length 1 that the
    format of 2014 puts in front are no other shape. Raises BadInput for a broken file, a blob of another size, and
    a file that has no layer of the net; the net is then as it was.
    """
    target = net.state_dict()
    weights = {}
    for layer, blobs in read_caffemodel(path).items():
        module = module_name(layer)
        own = [key for key in target if key.rpartition(".")[0] == module]
        other = [f"{module}.{name}" for name in (*BLOB_NAMES, *map(str, range(2, len(blobs))))]
        for key, blob in zip(own + other[len(own) :], blobs, strict=False):
            if key in target and blob.shape == (1,) * (blob.ndim - target[key].ndim) + target[key].shape:
                blob = blob.reshape(target[key].shape)
            weights[key] = blob
    if not weights.keys() & target.keys():
        raise BadInput(f"{path}: has no layer of {net.spec.name}; give the weights of this net or its trunk")
    try:
        return transplant(net, weights)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error


def read_caffemodel(path: str | Path) -> dict[str, list[Tensor]]:
    """The blobs of every layer that has any, by Caffe's layer name, shaped as in the file.

    The tensors (float32, or float64 where Caffe wrote double_data) are views of the file: they stay valid while
    they are alive, and writing to them does not change it. Raises BadInput for a file that is no caffemodel.
    """
    path = existing(path)
    try:
        with path.open("rb") as file:
            # A private mapping: torch wants to be able to write.
            net = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error
    found = {}
    try:
        for number, layer in wire.split(net, *FORMATS)[1]:
            message, field = FORMATS[number]
            rest, blobs = wire.split(layer, field)
            name = message.FromString(rest).name
            if not isinstance(name, str):  # protobuf's answer to bytes that are no UTF-8
                raise ValueError(f"{name!r} is no name of a layer")
            if blobs:
                found[name] = [read_blob(blob, f"a blob of layer {name!r}") for _, blob in blobs]
        if not found:
            raise ValueError("it holds no weights")
    except (ValueError, DecodeError) as error:
        raise BadInput(f"{path}: {_diagnosis(bytes(net[:256]))} ({error})") from error
    return found


def read_blob(blob: memoryview, what: str = "a blob") -> Tensor:
    """The tensor of a serialized BlobProto, as a view of it. Raises ValueError where shape and data disagree."""
    rest, arrays = wire.split(blob, *ARRAYS, *GRADIENTS)
    message = pb.BlobProto.FromString(rest)
    legacy = (message.num, message.channels, message.height, message.width)
    shape = tuple(message.shape.dim) if message.HasField("shape") else legacy
    if len(shape) > MAX_AXES:
        raise ValueError(f"{what} has {len(shape)} axes")
    tensor = torch.empty(0)
    for field, dtype in ARRAYS.items():
        parts = [part for number, part in arrays if number == field and len(part)]
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


def save_caffemodel(net: Net, path: str | Path) -> None:
    """Write the weights of `net` as Caffe's snapshot does: each layer with its options and blobs, in float32.

    Raises BadInput where `path` cannot be written and for weights of more than 2 GiB, which Caffe cannot read.
    """
    definition = net_message(net.spec)
    parts: list[bytes | Tensor] = [pb.NetParameter(name=definition.name).SerializeToString()]
    for layer, message in zip(net.spec.layers, definition.layer, strict=True):
        inner: list[bytes | Tensor] = [message.SerializeToString()]
        blobs = () if isinstance(layer, Input) else net.layer(layer.name).state_dict().values()
        for blob in blobs:
            header = blob_header(blob)
            length = _size([header, blob])
            inner += [wire.key(pb.LayerParameter.BLOBS_FIELD_NUMBER, length) + header, blob]
        parts += [wire.key(pb.NetParameter.LAYER_FIELD_NUMBER, _size(inner)), *inner]
    if _size(parts) > FILE_LIMIT:
        raise BadInput(f"{path}: {_size(parts):.3g} bytes are more than Caffe can read; build a narrower net")
    with atomic(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else part.cpu().float().contiguous().numpy().data)


def blob_header(tensor: Tensor) -> bytes:
    """A serialized BlobProto up to the float32 numbers of `tensor`, which must follow it."""
    shape = pb.BlobProto(shape=pb.BlobShape(dim=tensor.shape)).SerializeToString()
    return shape + wire.key(pb.BlobProto.DATA_FIELD_NUMBER, 4 * tensor.numel())


def _size(parts: list[bytes | Tensor]) -> int:
    """Bytes in the file."""
    return sum(len(part) if isinstance(part, bytes) else 4 * part.numel() for part in parts)


def _diagnosis(start: bytes) -> str:
    """What a file that cannot be parsed may be, by its first bytes, and what to do."""
    if start.startswith(b"\x89HDF"):
        return "an HDF5 snapshot; save with snapshot_format: BINARYPROTO"
    if start.isascii() and not any(byte < 32 and byte not in b"\t\n\r" for byte in start):
        return "a text file, not a caffemodel; a prototxt defines a net, it holds no weights"
    return "not a whole caffemodel; fetch or copy it again"
