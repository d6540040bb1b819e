"""The ONNX nodes of each kind of layer; `export.graph` joins them to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from torch import Tensor

from fcn.cli import BadInput
from reference.layers import (
    ELU,
    LRN,
    AbsVal,
    BatchNorm,
    Bias,
    Concat,
    Convolution,
    Crop,
    Deconvolution,
    Eltwise,
    InnerProduct,
    Layer,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Scale,
    Shape,
    Sigmoid,
    Slice,
    Softmax,
    TanH,
    Window,
)
from reference.net import Net, module_name

Emitter = Callable[..., None]

EMITTERS: dict[type[Layer], Emitter] = {}


def emits(kind: type[Layer]) -> Callable[[Emitter], Emitter]:
    """Register what writes layers of type `kind`: a function of the graph, the layer, a list of its bottoms' tensors,
    and the name of the tensor that is its top (or each top's name, one after another).
    """

    def register(emitter: Emitter) -> Emitter:
        EMITTERS[kind] = emitter
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


@emits(PReLU)
def _prelu(graph: Graph, layer: PReLU, bottoms: Sequence[str], top: str) -> None:
    graph.node("PRelu", [*bottoms, *graph.blobs(layer, (-1, 1, 1))], top, layer.name)


@emits(ELU)
def _elu(graph: Graph, layer: ELU, bottoms: Sequence[str], top: str) -> None:
    graph.node("Elu", bottoms, top, layer.name, alpha=layer.alpha)


@emits(Sigmoid)
def _sigmoid(graph: Graph, layer: Sigmoid, bottoms: Sequence[str], top: str) -> None:
    graph.node("Sigmoid", bottoms, top, layer.name)


@emits(TanH)
def _tanh(graph: Graph, layer: TanH, bottoms: Sequence[str], top: str) -> None:
    graph.node("Tanh", bottoms, top, layer.name)


@emits(AbsVal)
def _absval(graph: Graph, layer: AbsVal, bottoms: Sequence[str], top: str) -> None:
    graph.node("Abs", bottoms, top, layer.name)


@emits(Power)
def _power(graph: Graph, layer: Power, bottoms: Sequence[str], top: str) -> None:
    scale, shift, power = (
        graph.constant(f"{layer.name}/{name}", np.array(getattr(layer, name), np.float32))
        for name in ("scale", "shift", "power")
    )
    scaled = graph.helper("Mul", [*bottoms, scale], layer.name, "scaled")
    shifted = graph.helper("Add", [scaled, shift], layer.name, "shifted")
    graph.node("Pow", [shifted, power], top, layer.name)


@emits(Bias)
def _bias(graph: Graph, layer: Bias, bottoms: Sequence[str], top: str) -> None:
    graph.node("Add", [*bottoms, *graph.blobs(layer, (-1, 1, 1))], top, layer.name)


@emits(BatchNorm)
def _batch_norm(graph: Graph, layer: BatchNorm, bottoms: Sequence[str], top: str) -> None:
    """ONNX takes mean and variance, so Caffe's sums are divided here; and a scale and a shift, which are none."""
    if layer.use_global_stats is False:
        raise BadInput(f"layer {layer.name!r}: normalization by the batch's own statistics cannot be written as ONNX")
    statistics = [value.numpy() for value in layer.statistics(graph.net.layer(layer.name).state_dict())]
    values = (np.ones_like(statistics[0]), np.zeros_like(statistics[0]), *statistics)
    names = ("ones", "zeros", "mean", "variance")
    constants = [graph.constant(f"{layer.name}/{name}", value) for name, value in zip(names, values, strict=True)]
    graph.node("BatchNormalization", [*bottoms, *constants], top, layer.name, epsilon=layer.eps)


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


@emits(Slice)
def _slice(graph: Graph, layer: Slice, bottoms: Sequence[str], *tops: str) -> None:
    shapes = graph.net.spec.shapes()
    sizes = graph.constant(f"{layer.name}/sizes", [shapes[top][1] for top in layer.tops])
    graph.nodes.append(helper.make_node("Split", [*bottoms, sizes], tops, name=layer.name, axis=layer.axis))


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
