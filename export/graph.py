"""Net -> ONNX graph, written layer by layer and not traced: the graph is ours, so Caffe's names stand on all of it.

    node           the Caffe layer's name; what else a layer needs bears "<layer>/<what>"
    tensor         the Caffe top's name; where in-place layers rewrite a top, the last version has it, as Caffe's
                   blob does, and each earlier one is "<top>@<layer that made it>"
    initializer    the state dict's key, "<layer>.<blob>"

Dropout is the identity in inference and leaves no node. Batch, height and width are free (N, H, W), but for nets
with an InnerProduct, which take one size.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper, numpy_helper

from export.ends import IMAGE, write_image, write_labels
from export.nodes import EMITTERS, Graph
from fcn.cli import BadInput
from reference.layers import Concat, Crop, Dropout, InnerProduct, Input, Layer
from reference.net import Net, NetSpec

# 19 is the first opset whose QuantizeLinear takes float16, which int8 inside an fp16 graph needs; all else here is
# older. ONNX Runtime 1.20 and TensorRT 10 know it (TensorRT's parser is built on ONNX 1.14 since 9.0), as does
# TensorRT 11. IR version 9 belongs to it.
OPSET, IR_VERSION = 19, 9
PRODUCER = ("fcn-caffe-faithful", "1")
# protobuf's limit for one message, with room for all that is not weights.
MOST_BYTES = 2**31 - 2**22

IO = ("scores", "labels", "image")

Dims = tuple[int | str, ...]


def to_model(
    net: Net, io: str = "scores", expose: Sequence[str] = (), mean: Sequence[float] | None = None
) -> onnx.ModelProto:
    """The net in inference as an ONNX model, without metadata.

    io: "scores" gives the net's outputs, N x K x H x W float32 under Caffe's names; "labels" gives N x H x W uint8,
    the first of the best classes (see `label_names`); "image" gives these too, of N x H x W x 3 uint8 RGB (the tensor
    "image"). expose: further tops to give as outputs. mean: what "image" subtracts, BGR.
    Raises BadInput for a layer, a number of classes or a size that cannot be exported, and a net without an image.
    """
    if io not in IO:
        raise ValueError(f"io {io!r}: one of {', '.join(IO)}")
    spec = net.spec
    kept = NetSpec(spec.name, spec.needed((*spec.outputs, *expose)))
    _check(net, kept)
    dims = _dims(kept)
    for top in expose:
        if top not in dims or top in kept.inputs:
            raise ValueError(f"{spec.name} computes no top {top!r}")
    graph = Graph(net)
    taken = {name: (TensorProto.FLOAT, dims[name]) for name in kept.inputs}
    if io == "image":
        taken = {IMAGE: (TensorProto.UINT8, write_image(graph, {name: dims[name] for name in kept.inputs}, mean))}
    tensors = _write_layers(graph, kept, {*expose, *spec.outputs})
    given = {top: (TensorProto.FLOAT, dims[top]) for top in (*(spec.outputs if io == "scores" else ()), *expose)}
    if io != "scores":
        for top, name in label_names(spec).items():
            write_labels(graph, tensors[top], dims[top], name)
            given[name] = (TensorProto.UINT8, (dims[top][0], *dims[top][2:]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            spec.name,
            [helper.make_tensor_value_info(name, *kind) for name, kind in taken.items()],
            [helper.make_tensor_value_info(name, *kind) for name, kind in given.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER[0],
        producer_version=PRODUCER[1],
    )
    # Added last, one by one: make_graph and make_model would each copy all the weights.
    for name, array in graph.constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def label_names(spec: NetSpec) -> dict[str, str]:
    """The tensor that holds each output's labels: "label", or "label/<top>" where the net has several outputs."""
    return {top: "label" if len(spec.outputs) == 1 else f"label/{top}" for top in spec.outputs}


def takes_one_size(spec: NetSpec) -> bool:
    """Whether the net takes images of its declared size only."""
    return any(isinstance(layer, InnerProduct) for layer in spec.layers)


def _check(net: Net, kept: NetSpec) -> None:
    for layer in kept.layers:
        if type(layer) not in EMITTERS and not isinstance(layer, Input | Dropout):
            raise BadInput(f"{kept.name}: layer {layer.name!r} of type {layer.type} cannot be written as ONNX")
    size = sum(blob.numel() * blob.element_size() for blob in net.state_dict().values())
    if size > MOST_BYTES:
        raise BadInput(f"{kept.name}: {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB: export a narrower net")


def _dims(spec: NetSpec) -> dict[str, Dims]:
    """N, the channels and the size of every top: numbers, or names for what an input decides."""
    shapes, sizes, dims = spec.shapes(), dict[str, Dims](), dict[str, Dims]()
    for layer in spec.layers:
        for top in layer.tops:
            if isinstance(layer, Input):
                sizes[top] = ("H", "W")
            elif isinstance(layer, Crop):
                sizes[top] = sizes[layer.bottoms[1]]
            else:
                alike = layer.pointwise and not (isinstance(layer, Concat) and layer.axis != 1)
                sizes[top] = sizes[layer.bottoms[0]] if alike else (f"{top}_H", f"{top}_W")
            known = shapes[top][1:]
            dims[top] = ("N", *known) if len(known) != 3 or takes_one_size(spec) else ("N", known[0], *sizes[top])
    return dims


def _write_layers(graph: Graph, spec: NetSpec, wanted: set[str]) -> dict[str, str]:
    """Write every layer; the tensor that finally holds each top. `wanted` tops exist under their own name."""

    def silent(layer: Layer) -> bool:
        """Whether the layer makes no tensor: a Dropout, but for one that makes a wanted top of another one."""
        return isinstance(layer, Dropout) and (layer.bottoms == layer.tops or layer.tops[0] not in wanted)

    # The layer whose tensor bears a top's name, where no input does: the last to write it.
    named: dict[str, Layer] = {}
    for layer in spec.layers:
        if not silent(layer):
            named.update(dict.fromkeys(layer.tops, layer))
    tensors = {top: top for top in spec.inputs}
    for layer in spec.layers:
        if isinstance(layer, Input):
            continue
        bottoms = [tensors[bottom] for bottom in layer.bottoms]
        if silent(layer):
            tensors[layer.tops[0]] = bottoms[0]
            continue
        tops = [top if named[top] is layer and top not in spec.inputs else f"{top}@{layer.name}" for top in layer.tops]
        tensors.update(zip(layer.tops, tops, strict=True))
        if isinstance(layer, Dropout):
            graph.node("Identity", bottoms, tops[0], layer.name)
        else:
            EMITTERS[type(layer)](graph, layer, bottoms, *tops)
    return tensors
