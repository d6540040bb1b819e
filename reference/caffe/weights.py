"""Caffe's weights (caffemodel), read in both formats and written in the newer one."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from torch import Tensor

from fcn.cli import BadInput
from reference.caffe import binary, wire
from reference.caffe import caffe_pb2 as pb
from reference.caffe.prototxt import net_message
from reference.layers import Input
from reference.net import Net, module_name
from reference.surgery import Report, transplant

# The layers of both formats: field of the net, message, its field of blobs.
FORMATS = {
    pb.NetParameter.LAYER_FIELD_NUMBER: (pb.LayerParameter, pb.LayerParameter.BLOBS_FIELD_NUMBER),
    pb.NetParameter.LAYERS_FIELD_NUMBER: (pb.V1LayerParameter, pb.V1LayerParameter.BLOBS_FIELD_NUMBER),
}
V0_LAYER = 1  # field of an entry of `layers` until 2013: the layer itself, blobs included
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
            weights[key] = binary.without_leading_ones(blob, target[key].shape) if key in target else blob
    if not weights.keys() & target.keys():
        raise BadInput(f"{path}: has no layer of {net.spec.name}; give the weights of this net or its trunk")
    try:
        return transplant(net, weights)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; give the weights of this net or its trunk") from error


def read_caffemodel(path: str | Path) -> dict[str, list[Tensor]]:
    """The blobs of every layer that has any, by Caffe's layer name, shaped as in the file.

    The tensors (float32, or float64 where Caffe wrote double_data) are views of the file: they stay valid while
    they are alive, and writing to them does not change it. Raises BadInput for a file that is no caffemodel, one from
    before 2014, and an InnerProduct whose weights stand transposed: reshaped, they would be other weights.
    """
    net = binary.map_file(path)
    found = {}
    try:
        for number, layer in wire.split(net, *FORMATS)[1]:
            message, field = FORMATS[number]
            rest, blobs = wire.split(layer, field)
            told = message.FromString(rest)
            name = told.name
            if not isinstance(name, str):  # protobuf's answer to bytes that are no UTF-8
                raise ValueError(f"{name!r} is no name of a layer")
            if message is pb.V1LayerParameter and wire.split(memoryview(rest), V0_LAYER)[1]:
                raise BadInput(f"{path}: in the format of 2013; upgrade it with Caffe's upgrade_net_proto_binary")
            if blobs and told.inner_product_param.transpose:
                raise BadInput(f"{path}: the weights of {name!r} are transposed; save the net with transpose: false")
            if blobs:
                found[name] = [binary.read_blob(blob, f"a blob of layer {name!r}") for _, blob in blobs]
        if not found:
            raise ValueError("it holds no weights")
    except (ValueError, DecodeError) as error:
        raise BadInput(f"{path}: {binary.diagnosis(net, 'caffemodel')} ({error})") from error
    return found


def save_caffemodel(net: Net, path: str | Path) -> None:
    """Write the weights of `net` as Caffe's snapshot does: each layer with its options and blobs, in float32.

    Raises BadInput where `path` cannot be written and for weights of more than 2 GiB, which Caffe cannot read.
    """
    definition = net_message(net.spec)
    parts: list[bytes | Tensor] = [pb.NetParameter(name=definition.name).SerializeToString()]
    for layer, message in zip(net.spec.layers, definition.layer, strict=True):
        inner: list[bytes | Tensor] = [message.SerializeToString()]
        for blob in () if isinstance(layer, Input) else net.layer(layer.name).state_dict().values():
            inner += binary.field(pb.LayerParameter.BLOBS_FIELD_NUMBER, binary.blob_parts(blob))
        parts += binary.field(pb.NetParameter.LAYER_FIELD_NUMBER, inner)
    binary.write(path, parts)
