"""float32 -> float16: activations brought into range by powers of two, and a graph whose every layer is float16.

float16 ends at 65,504, and VGG-16's activations pass 15,000 in conv3 on ordinary photographs. Convolution, ReLU,
pooling and sums scale with their input, and a weight times a power of two is exact in floating point: a net whose tops
stand lower by powers of two computes the same, bit for bit, and needs no float32 between its ends (but
for LRN, which squares what it is given).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.graph import to_model
from export.pasting import EdgePad, Frame, Paste
from export.verify import images, sizes
from fcn.cli import BadInput
from reference.layers import (
    Concat,
    Convolution,
    Crop,
    Dropout,
    Eltwise,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
    Slice,
)
from reference.net import Net, NetSpec

PRECISIONS = ("fp32", "fp16")
# The measured maxima are brought below this: 64 times as much fits, for images of which none was measured. Nothing is
# lost by it: float16 keeps its 11 bits down to 6e-5.
GREATEST = 2.0**10
MOST = float(np.finfo(np.float16).max)
# ONNX operators that stay float32: float16 holds squares of numbers up to 255 only.
SQUARING = {"LRN"}
WEIGHTED = Convolution | InnerProduct | Scale  # a Deconvolution is a Convolution


def to_half(
    net: Net, io: str = "scores", expose: Sequence[str] = (), mean: Sequence[float] | None = None
) -> onnx.ModelProto:
    """As `export.graph.to_model`, in float16 between the inputs and the outputs, which stay as they are there.

    Raises BadInput as `to_model`, and where weights or scores leave float16.
    """
    kept = NetSpec(net.spec.name, net.spec.needed((*net.spec.outputs, *expose)))
    lower = exponents(kept, ranges(net, kept, images(net, *sizes(net)[-1])))
    model = to_model(lowered(net, kept, lower), io, expose, mean)
    halve(model, lower, kept.inputs)
    return model


def ranges(net: Net, spec: NetSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The greatest magnitude of every top of `spec`, a part of the net, on these inputs (in inference)."""
    tops = tuple(dict.fromkeys(top for layer in spec.layers if not isinstance(layer, Input) for top in layer.tops))
    training = net.training
    net.eval()
    with torch.inference_mode():
        found = net.run(tops, {name: torch.from_numpy(value) for name, value in inputs.items()})
    net.train(training)
    return {top: float(value.abs().max()) for top, value in found.items()}


def exponents(spec: NetSpec, measured: Mapping[str, float]) -> dict[str, int]:
    """By how many powers of two each top is to stand lower: 0 at inputs and outputs, alike where layers need it alike.

    measured: each top's greatest magnitude.

    Raises BadInput where a top that must stay as it is leaves float16, or one is not finite.
    """
    group = {top: {top} for layer in spec.layers for top in layer.tops}
    fixed = {*spec.inputs, *spec.outputs}
    for layer in spec.layers:
        if _homogeneous(layer):
            first, *others = (*layer.tops, *layer.bottoms[: 1 if isinstance(layer, Crop | Paste) else None])
            for other in others:
                joined = group[first] | group[other]
                group.update(dict.fromkeys(joined, joined))
        elif not isinstance(layer, Input | WEIGHTED):
            fixed |= {*layer.tops, *layer.bottoms}
    found = {}
    for top, alike in group.items():
        greatest = float(np.max([measured.get(each, 0.0) for each in alike]))
        if not np.isfinite(greatest):
            raise BadInput(f"{spec.name}: {top} is not finite: these weights have diverged; train again")
        if not alike & fixed:
            found[top] = max(0, int(np.ceil(np.log2(greatest / GREATEST)))) if greatest else 0
        elif greatest < MOST / 2:
            found[top] = 0
        else:
            raise BadInput(
                f"{spec.name}: {top} reaches {greatest:.0f} and float16 ends at {MOST:.0f}: export it as fp32"
            )
    return found


def lowered(net: Net, spec: NetSpec, lower: Mapping[str, int]) -> Net:
    """The net, of which `spec` is a part, with every top divided by 2^lower[top]: the same but for that, bit by bit."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        for layer in spec.layers:
            if isinstance(layer, WEIGHTED):
                source, target = lower[layer.bottoms[0]], lower[layer.tops[0]]
                weight, *bias = made.layer(layer.name).parameters()
                weight.mul_(2.0 ** (source - target))
                for each in bias:
                    each.mul_(2.0**-target)
            elif isinstance(layer, Paste):
                made.layer(layer.name).get_parameter("table").mul_(2.0 ** -lower[layer.tops[0]])
    return made


def halve(model: onnx.ModelProto, lower: Mapping[str, int], inputs: Sequence[str]) -> None:
    """Make the graph of a `lowered` net float16 between the net's inputs and the model's outputs, which stay float32.

    Raises BadInput for weights beyond float16.
    """
    graph = model.graph
    before = [node for node in graph.node if node.name.split("/")[0] in inputs and not node.name.endswith("/size")]
    untouched = {name for node in before for name in node.input}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in untouched:
            values = numpy_helper.to_array(tensor)
            if np.abs(values).max(initial=0) > MOST:
                raise BadInput(f"{graph.name}: {tensor.name} reaches {np.abs(values).max():.0f}: export it as fp32")
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    ends = {each.name: each for each in graph.output if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    halves = {name: f"{name}/half" for name in (*inputs, *ends)}
    after = [node for node in graph.node if node not in before]
    for node in after:
        for names in (node.input, node.output):
            names[:] = [halves.get(name, name) for name in names]
    nodes = [*before]
    nodes += [
        helper.make_node("Cast", [name], [halves[name]], name=halves[name], to=TensorProto.FLOAT16) for name in inputs
    ]
    for node in after:
        nodes += _in_float(node) if node.op_type in SQUARING else [node]
    for name in ends:
        nodes += _restored(graph, name, halves[name], lower[name])
    del graph.node[:]
    graph.node.extend(nodes)


def _in_float(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A float16 node of one input and one output, computed in float32."""
    (bottom,), (top,) = node.input, node.output
    wide, result = f"{node.name}/wide", f"{node.name}/result"
    node.input[:], node.output[:] = [wide], [result]
    return [
        helper.make_node("Cast", [bottom], [wide], name=wide, to=TensorProto.FLOAT),
        node,
        helper.make_node("Cast", [result], [top], name=result, to=TensorProto.FLOAT16),
    ]


def _restored(graph: onnx.GraphProto, top: str, half: str, lower: int) -> list[onnx.NodeProto]:
    """From float16 to the float32 top as Caffe has it."""
    if not lower:
        return [helper.make_node("Cast", [half], [top], name=f"{top}/float", to=TensorProto.FLOAT)]
    graph.initializer.append(numpy_helper.from_array(np.array(2.0**lower, np.float32), f"{top}/power"))
    return [
        helper.make_node("Cast", [half], [f"{top}/float"], name=f"{top}/float", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{top}/float", f"{top}/power"], [top], name=f"{top}/restored"),
    ]


def _homogeneous(layer: Layer) -> bool:
    """Whether the top scales with the bottoms, all of which must then stand alike."""
    alike = isinstance(layer, Eltwise) and layer.operation != "PROD"
    return alike or isinstance(layer, ReLU | Pooling | Dropout | Crop | Concat | Slice | Frame | EdgePad | Paste)
