"""Net -> ONNX graph, written layer by layer and not traced: the graph is ours, so Caffe's names stand on all of it.

    node           the Caffe layer's name; what else a layer needs bears "<layer>/<what>"
    tensor         the Caffe top's name; where in-place layers rewrite a top, the last version has it, as Caffe's
                   blob does, and each earlier one is "<top>@<layer that made it>"
    initializer    the state dict's key, "<layer>.<blob>"

Dropout is the identity in inference and leaves no node. Batch, height and width are free (N, H, W), but for nets
with an InnerProduct, which take one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from export.ends import IMAGE, write_image, write_labels
from fcn.cli import BadInput
from reference.layers import (
    LRN,
    Concat,
    Convolution,
    Crop,
    Deconvolution,
    Dropout,
    Eltwise,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
    Shape,
    Softmax,
    Window,
)
from reference.net import Net, NetSpec, module_name

# 19 is the first opset whose QuantizeLinear takes float16, which int8 inside an fp16 graph needs; all else here is
# older. ONNX Runtime 1.20 and TensorRT 10 know it (TensorRT's parser is built on ONNX 1.14 since 9.0), as does
# TensorRT 11. IR version 9 belongs to it.
OPSET, IR_VERSION = 19, 9
PRODUCER = ("fcn-caffe-faithful", "1")
# protobuf's limit for one message, with room for all that is not weights.
MOST_BYTES = 2**31 - 2**22

IO = ("scores", "labels", "image")

Dims = tuple[int | str, ...]
Emitter = Callable[["Graph", Any, Sequence[str], str], None]

_EMITTERS: dict[type[Layer], Emitter] = {}


def emits(kind: type[Layer]) -> Callable[[Emitter], Emitter]:
    """Register what writes layers of type `kind`: a function of the graph, the layer, its bottoms' tensors and the
    name of the tensor that is its top.
    """

    def register(emitter: Emitter) -> Emitter:
        _EMITTERS[kind] = emitter
        return emitter

    return register


class Graph:
    """The nodes and constants of an ONNX graph while the emitters write them."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._sizes: dict[str, str] = {}

    def node(self, op: str, bottoms: Sequence[str], top: str, name: str, **attributes: Any) -> str:
        """Add a node of one output and return that."""
        self.nodes.append(helper.make_node(op, list(bottoms), [top], name=name, **attributes))
        return top

    def helper(self, op: str, bottoms: Sequence[str], layer: str, what: str, **attributes: Any) -> str:
        """Add a node that `layer` needs besides its own; it and its output are "<layer>/<what>"."""
        return self.node(op, bottoms, f"{layer}/{what}", f"{layer}/{what}", **attributes)

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer: an array, or integers (int64, as shapes are)."""
        self.constants[name] = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        return name

    def blobs(self, layer: Layer, shape: Shape | None = None) -> list[str]:
        """Add the layer's blobs, in another `shape` if given, and return their names in Caffe's order."""
        blobs: dict[str, Tensor] = self.net.layer(layer.name).state_dict()
        arrays = {f"{module_name(layer.name)}.{name}": blob.cpu().numpy() for name, blob in blobs.items()}
        return [self.constant(key, array.reshape(shape or array.shape)) for key, array in arrays.items()]

    def size(self, tensor: str) -> str:
        """Name of the tensor that holds (height, width) of `tensor`, made once for all who ask."""
        if tensor not in self._sizes:
            self._sizes[tensor] = self.helper("Shape", [tensor], tensor, "size", start=2, end=4)
        return self._sizes[tensor]


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
        if type(layer) not in _EMITTERS and not isinstance(layer, Input | Dropout):
            raise BadInput(f"{kept.name}: layer {layer.name!r} of type {layer.type} cannot be written as ONNX")
    size = sum(blob.numel() * blob.element_size() for blob in net.state_dict().values())
    if size > MOST_BYTES:
        raise BadInput(f"{kept.name}: {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB: export a narrower net")


def _dims(spec: NetSpec) -> dict[str, Dims]:
    """N, the channels and the size of every top: numbers, or names for what an input decides."""
    shapes, sizes, dims = spec.shapes(), dict[str, Dims](), dict[str, Dims]()
    for layer in spec.layers:
        top = layer.tops[0]
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

    # The layer whose tensor bears a top's name: an input, or else the last to write it.
    named: dict[str, Layer] = {}
    for layer in spec.layers:
        if not silent(layer) and layer.tops[0] not in spec.inputs:
            named[layer.tops[0]] = layer
    tensors = {top: top for top in spec.inputs}
    for layer in spec.layers:
        if isinstance(layer, Input):
            continue
        top = layer.tops[0]
        bottoms = [tensors[bottom] for bottom in layer.bottoms]
        if silent(layer):
            tensors[top] = bottoms[0]
            continue
        tensors[top] = top if named.get(top) is layer else f"{top}@{layer.name}"
        if isinstance(layer, Dropout):
            graph.node("Identity", bottoms, tensors[top], layer.name)
        else:
            _EMITTERS[type(layer)](graph, layer, bottoms, tensors[top])
    return tensors


def _window(layer: Window) -> dict[str, Any]:
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": (*layer.pad, *layer.pad),
        "dilations": layer.dilation,
    }


@emits(Convolution)
def _convolution(graph: Graph, layer: Convolution, bottoms: Sequence[str], top: str) -> None:
    graph.node("Conv", [*bottoms, *graph.blobs(layer)], top, layer.name, group=layer.group, **_window(layer))


@emits(Deconvolution)
def _deconvolution(graph: Graph, layer: Deconvolution, bottoms: Sequence[str], top: str) -> None:
    graph.node("ConvTranspose", [*bottoms, *graph.blobs(layer)], top, layer.name, group=layer.group, **_window(layer))


@emits(Pooling)
def _pooling(graph: Graph, layer: Pooling, bottoms: Sequence[str], top: str) -> None:
    """Caffe rounds up, then drops a window that would start in the padding below or right. Libraries differ in that
    (ONNX Runtime 1.20 and TensorRT-RTX 1.7 drop none), so the graph is written such that none ever would.
    """
    op = {"MAX": "MaxPool", "AVE": "AveragePool"}[layer.pool]
    if layer.global_pooling:
        graph.node(f"Global{op}", bottoms, top, layer.name)
        return
    before, after = layer.pad, layer.pad
    if layer.round_mode == "CEIL":
        overlaps = [kernel - stride for kernel, stride in zip(layer.kernel_size, layer.stride, strict=True)]
        if min(overlaps) < 0:
            raise BadInput(f"layer {layer.name!r}: pooling that skips pixels and rounds up cannot be written as ONNX")
        # With as much padding as windows overlap, the last one starts on the last pixel at the latest.
        after = (min(after[0], overlaps[0]), min(after[1], overlaps[1]))
    if layer.pool == "AVE" and any(before):
        if after != before:
            raise BadInput(f"layer {layer.name!r}: average pooling that drops windows cannot be written as ONNX")
        # Caffe counts the padding, but not what lies beyond it. ONNX Runtime 1.20 counts that too: so pad first.
        pads = graph.constant(f"{layer.name}/pads", (0, 0, *before, 0, 0, *after))
        bottoms = [graph.helper("Pad", [*bottoms, pads], layer.name, "padded")]
        before = after = (0, 0)
    graph.node(
        op,
        bottoms,
        top,
        layer.name,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*before, *after),
        ceil_mode=int(layer.round_mode == "CEIL"),
    )


@emits(ReLU)
def _relu(graph: Graph, layer: ReLU, bottoms: Sequence[str], top: str) -> None:
    if layer.negative_slope:
        graph.node("LeakyRelu", bottoms, top, layer.name, alpha=layer.negative_slope)
    else:
        graph.node("Relu", bottoms, top, layer.name)


@emits(LRN)
def _lrn(graph: Graph, layer: LRN, bottoms: Sequence[str], top: str) -> None:
    """ONNX divides alpha by the size, as Caffe does; its bias is Caffe's k."""
    numbers = {"size": layer.local_size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
    graph.node("LRN", bottoms, top, layer.name, **numbers)


@emits(Scale)
def _scale(graph: Graph, layer: Scale, bottoms: Sequence[str], top: str) -> None:
    factor, *bias = graph.blobs(layer, (-1, 1, 1))
    if bias:
        scaled = graph.helper("Mul", [*bottoms, factor], layer.name, "scaled")
        graph.node("Add", [scaled, *bias], top, layer.name)
    else:
        graph.node("Mul", [*bottoms, factor], top, layer.name)


@emits(Eltwise)
def _eltwise(graph: Graph, layer: Eltwise, bottoms: Sequence[str], top: str) -> None:
    """Two at a time, in Caffe's order: inference libraries fuse Add into convolutions, but not Sum."""
    op = {"SUM": "Add", "PROD": "Mul", "MAX": "Max"}[layer.operation]
    terms = list(bottoms)
    for i, factor in enumerate(layer.coeff):
        if factor != 1:
            constant = graph.constant(f"{layer.name}/coeff{i}", np.array(factor, np.float32))
            terms[i] = graph.helper("Mul", [terms[i], constant], layer.name, f"term{i}")
    result, *rest = terms
    for i, term in enumerate(rest[:-1]):
        result = graph.helper(op, [result, term], layer.name, f"partial{i}")
    graph.node(op, [result, rest[-1]], top, layer.name)


@emits(Concat)
def _concat(graph: Graph, layer: Concat, bottoms: Sequence[str], top: str) -> None:
    graph.node("Concat", bottoms, top, layer.name, axis=layer.axis)


@emits(Crop)
def _crop(graph: Graph, layer: Crop, bottoms: Sequence[str], top: str) -> None:
    starts, ends = graph.constant(f"{layer.name}/starts", layer.offsets()), graph.size(bottoms[1])
    if any(layer.offsets()):
        ends = graph.helper("Add", [ends, starts], layer.name, "ends")
    axes = graph.constant(f"{layer.name}/axes", (2, 3))
    graph.node("Slice", [bottoms[0], starts, ends, axes], top, layer.name)


@emits(InnerProduct)
def _inner_product(graph: Graph, layer: InnerProduct, bottoms: Sequence[str], top: str) -> None:
    rows = graph.helper("Flatten", bottoms, layer.name, "rows", axis=1)
    graph.node("Gemm", [rows, *graph.blobs(layer)], top, layer.name, transB=1)


@emits(Softmax)
def _softmax(graph: Graph, layer: Softmax, bottoms: Sequence[str], top: str) -> None:
    graph.node("Softmax", bottoms, top, layer.name, axis=layer.axis)
