"""export/graph.py: ONNX Runtime computes every top that PyTorch computes, and Caffe's names stand on all of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from export.graph import IR_VERSION, OPSET, label_names, to_model
from export.nodes import Graph, emits
from fcn.cli import BadInput
from reference import NETS
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
    Dropout,
    Eltwise,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
    SoftmaxWithLoss,
    TanH,
)
from reference.net import Net, NetSpec
from tests.export.nets import NAMES, blobs, compute, computed, image, narrow, session, small

# Any top, ONNX Runtime against PyTorch, max|a-b| / max|b|. Worst 1.3e-6, at a sixteenth of the width (conv5_1) and
# at full width (fuse_pool4) alike; the sums' order changes with the processor: hence not 2e-6.
TOP = 1e-5
# Nets of another trunk, of two images and of two tasks.
OTHERS = ("voc-fcn-alexnet", "voc-fcn-googlenet", "nyud-fcn32s-color-d", "nyud-fcn32s-color-hha", "siftflow-fcn8s")


def worst(net: Net, opened: onnxruntime.InferenceSession, **inputs: np.ndarray) -> float:
    """The largest difference over all outputs of the model, relative to each top's largest value."""
    found = compute(opened, **inputs)
    ours = blobs(net, list(found), **inputs)
    for top, value in ours.items():
        assert found[top].shape == value.shape, top
    return max(float(np.abs(found[top] - value).max() / np.abs(value).max()) for top, value in ours.items())


@functools.cache
def exposed(name: str) -> onnxruntime.InferenceSession:
    """A narrow net that gives all of its tops."""
    return session(to_model(narrow(name), expose=computed(narrow(name))))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (37, 53)])
@pytest.mark.parametrize("name", NAMES)
def test_every_top_equals_pytorch(name: str, size: tuple[int, int]) -> None:
    assert worst(narrow(name), exposed(name), data=image(1, 3, *size)) < TOP


@pytest.mark.parametrize("size", [(1, 1), (37, 53)])
@pytest.mark.parametrize("name", OTHERS)
def test_every_top_of_other_trunks_inputs_and_tasks(name: str, size: tuple[int, int]) -> None:
    net = narrow(name)
    shapes = net.spec.shapes()
    inputs = {top: image(2, shapes[top][1], *size, seed=i) for i, top in enumerate(net.spec.inputs)}
    assert worst(net, exposed(name), **inputs) < TOP
    labels = compute(session(to_model(net, "labels")), **inputs)
    expected = {label: blobs(net, [top], **inputs)[top].argmax(1) for top, label in label_names(net.spec).items()}
    assert labels.keys() == expected.keys()
    assert all(np.array_equal(labels[name], expected[name]) for name in expected)


@settings(max_examples=24, deadline=None)
@given(st.integers(1, 2), st.integers(1, 150), st.integers(1, 150), st.integers(0, 99))
def test_any_batch_and_size(batch: int, height: int, width: int, seed: int) -> None:
    opened = session_of_scores()
    assert worst(narrow(), opened, data=image(batch, 3, height, width, seed=seed)) < TOP


@functools.cache
def session_of_scores() -> onnxruntime.InferenceSession:
    return session(to_model(narrow()))


@pytest.mark.parametrize("name", NAMES)
def test_nodes_and_tensors_bear_caffes_names(name: str) -> None:
    spec = narrow(name).spec.deploy()
    graph = to_model(narrow(name)).graph
    own = [node.name for node in graph.node if "/" not in node.name]
    assert own == [layer.name for layer in spec.layers if not isinstance(layer, Input | Dropout)]
    nodes = {node.name: node for node in graph.node}
    for layer in spec.layers:
        if isinstance(layer, Input | Dropout):
            continue
        last = [x.name for x in spec.layers if x.tops == layer.tops and not isinstance(x, Dropout)][-1]
        top = layer.tops[0] if layer.name == last else f"{layer.tops[0]}@{layer.name}"
        assert list(nodes[layer.name].output) == [top]
    tensors = {tensor for node in graph.node for tensor in node.output}
    assert tensors >= set(computed(narrow(name)))
    for helper in set(nodes) - set(own):
        assert list(nodes[helper].output) == [helper]
        assert helper.split("/")[0] in {layer.name for layer in spec.layers}


def test_names_of_fcn8s_in_full() -> None:
    graph = to_model(narrow()).graph
    heads = [(node.name, *node.input, *node.output) for node in graph.node]
    assert heads[:2] == [
        ("conv1_1", "data", "conv1_1.weight", "conv1_1.bias", "conv1_1@conv1_1"),
        ("relu1_1", "conv1_1@conv1_1", "conv1_1"),
    ]
    assert ("relu6", "fc6@fc6", "fc6") in heads and ("fc7", "fc6", "fc7.weight", "fc7.bias", "fc7@fc7") in heads
    assert heads[-3:] == [
        ("data/size", "data", "data/size"),
        ("score/ends", "data/size", "score/starts", "score/ends"),
        ("score", "upscore8", "score/starts", "score/ends", "score/axes", "score"),
    ]
    assert len(graph.node) == 18 + 15 + 5 + 3 + 2 + 3 * 3  # convolutions, ReLUs, pools, deconvolutions, sums, crops


@pytest.mark.parametrize("name", NAMES)
def test_initializers_are_the_state_dict(name: str) -> None:
    net = narrow(name)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in to_model(net).graph.initializer}
    for key, blob in net.state_dict().items():
        found = stored.pop(key)
        assert np.array_equal(found.reshape(blob.shape), blob.numpy()) and found.dtype == np.float32
    assert all(name.split("/")[1] in ("starts", "axes") for name in stored)


def test_inputs_and_outputs_are_free_in_batch_and_size() -> None:
    model = to_model(narrow(), expose=["pool3"])

    def dims(value: onnx.ValueInfoProto) -> list[int | str]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert [(x.name, dims(x)) for x in model.graph.input] == [("data", ["N", 3, "H", "W"])]
    assert [(x.name, dims(x)) for x in model.graph.output] == [
        ("score", ["N", 21, "H", "W"]),
        ("pool3", ["N", 16, "pool3_H", "pool3_W"]),
    ]
    labels = to_model(narrow(), "labels").graph.output[0]
    assert (labels.name, dims(labels)) == ("label", ["N", "H", "W"])
    assert labels.type.tensor_type.elem_type == TensorProto.UINT8
    assert (model.opset_import[0].version, model.ir_version, model.graph.name) == (OPSET, IR_VERSION, "voc-fcn8s")


# --- each type of layer alone -------------------------------------------------------------------------------

ONE: dict[str, Any] = {"name": "one", "bottoms": ("data",), "tops": ("one",)}
BLOCKS = {
    "convolution": [Convolution(**ONE, num_output=6, kernel_size=(3, 2), pad=(2, 0), stride=(2, 1))],
    "grouped, dilated": [
        Convolution(**ONE, num_output=6, kernel_size=(3, 3), pad=(2, 1), dilation=(2, 1), group=2, bias_term=False)
    ],
    "deconvolution": [Deconvolution(**ONE, num_output=3, kernel_size=(4, 5), stride=(2, 3), pad=(1, 0))],
    "grouped deconvolution": [
        Deconvolution(**ONE, num_output=4, kernel_size=(4, 4), stride=(2, 2), group=4, bias_term=False)
    ],
    "dilated deconvolution": [Deconvolution(**ONE, num_output=3, kernel_size=(3, 3), dilation=(2, 2), pad=(1, 1))],
    "relu": [ReLU(**ONE)],
    "leaky relu": [ReLU(**ONE, negative_slope=0.1)],
    "prelu": [PReLU(**ONE)],
    "prelu, one for all": [PReLU(**ONE, channel_shared=True)],
    "elu": [ELU(**ONE, alpha=0.5)],
    "sigmoid": [Sigmoid(**ONE)],
    "tanh": [TanH(**ONE)],
    "absolute value": [AbsVal(**ONE)],
    "power": [Power(**ONE, power=3, scale=-0.5, shift=2)],
    "bias": [Bias(**ONE)],
    "batch normalization": [AbsVal(**ONE), BatchNorm(name="norm", bottoms=("one",), tops=("norm",), eps=0.01)],
    "lrn": [LRN(**ONE, local_size=3, alpha=0.1, beta=0.75, k=2.0)],
    "scale": [Scale(**ONE)],
    "scale with bias": [Scale(**ONE, bias_term=True)],
    "softmax": [Softmax(**ONE)],
    "global average": [Pooling(**ONE, kernel_size=(1, 1), pool="AVE", global_pooling=True)],
    "global maximum": [Pooling(**ONE, kernel_size=(1, 1), global_pooling=True)],
    "crop": [
        Convolution(**ONE, num_output=4, kernel_size=(5, 5), pad=(4, 4)),
        Crop(name="cut", bottoms=("one", "data"), tops=("cut",), offset=(3, 1)),
    ],
    "crop at 0": [
        Convolution(**ONE, num_output=4, kernel_size=(5, 5), pad=(4, 4)),
        Crop(name="cut", bottoms=("one", "data"), tops=("cut",)),
    ],
    "concat": [ReLU(**ONE), Concat(name="both", bottoms=("data", "one", "data"), tops=("both",))],
    "concat in height": [ReLU(**ONE), Concat(name="both", bottoms=("data", "one"), tops=("both",), axis=2)],
    "slice": [
        Slice(name="cut", bottoms=("data",), tops=("a", "b", "c"), slice_point=(1, 3)),
        ReLU(name="relu", bottoms=("b",), tops=("b",)),
    ],
    "in place, twice": [
        Scale(**ONE),
        ReLU(name="relu", bottoms=("one",), tops=("one",), negative_slope=0.5),
        Scale(name="again", bottoms=("one",), tops=("one",), bias_term=True),
    ],
}


@pytest.mark.parametrize("layers", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_layer_alone(layers: Sequence[Layer]) -> None:
    net = small(*layers)
    opened = session(to_model(net))
    for size in ((2, 4, 8, 8), (1, 4, 7, 12)):
        assert worst(net, opened, data=image(*size) / 100) < TOP


@pytest.mark.parametrize(("operation", "coeff"), [("SUM", ()), ("SUM", (1.0, -1.0, 0.5)), ("PROD", ()), ("MAX", ())])
def test_eltwise(operation: str, coeff: tuple[float, ...]) -> None:
    scaled = [Scale(name=n, bottoms=("data",), tops=(n,)) for n in ("a", "b")]
    both: dict[str, Any] = {"name": "all", "bottoms": ("data", "a", "b"), "tops": ("all",)}
    net = small(*scaled, Eltwise(**both, operation=operation, coeff=coeff))
    assert worst(net, session(to_model(net)), data=image(2, 4, 5, 6) / 100) < TOP


def test_inner_product_takes_its_declared_size_only() -> None:
    first = InnerProduct(**ONE, num_output=7)
    net = small(first, InnerProduct(name="two", bottoms=("one",), tops=("two",), num_output=3, bias_term=False), size=5)
    opened = session(to_model(net))
    assert [x.shape for x in opened.get_inputs()] == [["N", 4, 5, 5]]
    assert [x.shape for x in opened.get_outputs()] == [["N", 3]]
    assert worst(net, opened, data=image(2, 4, 5, 5) / 100) < TOP


WINDOWS = [
    (kernel, stride, pad)
    for kernel, stride, pad in product(range(1, 5), range(1, 4), range(3))
    if 2 * pad <= kernel and stride <= kernel
]


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: "k{} s{} p{}".format(*window))
@pytest.mark.parametrize("kind", ["MAX CEIL", "MAX FLOOR", "AVE CEIL", "AVE FLOOR"])
def test_pooling_rounds_as_caffe_does(kind: str, window: tuple[int, int, int]) -> None:
    (pool, rounding), (kernel, stride, pad) = kind.split(), window
    sides: dict[str, Any] = {"kernel_size": (kernel, kernel), "stride": (stride, stride), "pad": (pad, pad)}
    net = small(Pooling(**ONE, **sides, pool=pool, round_mode=rounding), channels=2, size=12)
    if kind == "AVE CEIL" and kernel < stride + pad and pad:
        with pytest.raises(BadInput, match=r"'one'.*drops windows"):
            to_model(net)
        return
    opened = session(to_model(net))
    for size in range(1, 13):
        try:
            net.spec.shapes(data=(1, 2, size, 13 - size))
        except ValueError:  # too small an input for Caffe too
            continue
        assert worst(net, opened, data=image(1, 2, size, 13 - size) - 150) < TOP


def test_pooling_of_unlike_sides() -> None:
    net = small(Pooling(**ONE, kernel_size=(3, 2), stride=(3, 2), pad=(1, 0)), channels=2)
    opened = session(to_model(net))
    for size in range(2, 10):
        assert worst(net, opened, data=image(1, 2, size, size) - 150) < TOP


# --- names in unusual nets ----------------------------------------------------------------------------------


def test_a_dropout_between_two_tops_is_an_alias_unless_it_is_asked_for() -> None:
    first = Scale(**ONE)
    net = small(first, Dropout(name="drop", bottoms=("one",), tops=("dropped",)), relu := ReLU(**on("dropped", "two")))
    plain = to_model(net)
    assert [(n.name, n.input[0], n.output[0]) for n in plain.graph.node] == [
        ("one", "data", "one"),
        (relu.name, "one", "two"),
    ]
    shown = to_model(net, expose=["dropped"])
    assert [n.name for n in shown.graph.node if n.op_type == "Identity"] == ["drop"]
    assert worst(net, session(shown), data=image(1, 4, 3, 3)) < TOP


def test_an_input_rewritten_in_place_keeps_its_name_as_input() -> None:
    net = small(Scale(name="norm", bottoms=("data",), tops=("data",)), ReLU(**on("data", "out")))
    model = to_model(net)
    assert [x.name for x in model.graph.input] == ["data"] and model.graph.node[0].output[0] == "data@norm"
    assert worst(net, session(model), data=image(1, 4, 3, 3)) < TOP


def test_names_that_torch_escapes() -> None:
    net = small(Scale(name="conv1.1", bottoms=("data",), tops=("type",)))
    model = to_model(net)
    assert model.graph.node[0].name == "conv1.1" and model.graph.output[0].name == "type"
    assert {tensor.name for tensor in model.graph.initializer} == set(net.state_dict())


def test_several_inputs_and_outputs() -> None:
    inputs = [Input(name=n, tops=(n,), shape=(1, c, 8, 8)) for n, c in (("color", 3), ("depth", 1))]
    both = Concat(name="both", bottoms=("color", "depth"), tops=("both",))
    heads = [Convolution(**on("both", n), num_output=k, kernel_size=(1, 1)) for n, k in (("semantic", 5), ("flat", 3))]
    net = Net(NetSpec("two", (*inputs, both, *heads)))
    torch.nn.init.normal_(net.get_parameter("semantic.weight"))
    torch.nn.init.normal_(net.get_parameter("flat.weight"))
    data = {"color": image(2, 3, 4, 5), "depth": image(2, 1, 4, 5)}
    assert worst(net, session(to_model(net)), **data) < TOP
    labels = compute(session(to_model(net, "labels")), **data)
    assert {name: value.shape for name, value in labels.items()} == {
        "label/semantic": (2, 4, 5),
        "label/flat": (2, 4, 5),
    }


def on(bottom: str, name: str) -> dict[str, Any]:
    """Name, bottom and top of a layer."""
    return {"name": name, "bottoms": (bottom,), "tops": (name,)}


# --- labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_best_classes(name: str) -> None:
    data = image(2, 3, 41, 60)
    label = compute(session(to_model(narrow(name), "labels")), data=data)["label"]
    score = compute(session(to_model(narrow(name))), data=data)["score"]
    assert label.dtype == np.uint8 and np.array_equal(label, score.argmax(1))
    assert len(np.unique(label)) > 1


def test_the_first_of_equal_scores_wins() -> None:
    net = small(Convolution(**ONE, num_output=256, kernel_size=(1, 1), bias_term=False), channels=1)
    weight = torch.zeros(256)
    weight[[7, 9, 255]] = torch.tensor([2.0, 2.0, -2.0])
    net.load_state_dict({"one.weight": weight.view(256, 1, 1, 1)})
    data = np.array([1, 0, -1], np.float32).reshape(1, 1, 1, 3)
    assert compute(session(to_model(net, "labels")), data=data)["label"].tolist() == [[[7, 0, 255]]]


# --- what cannot be exported --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doubled(Layer):
    """An internal layer that a later module brings along: twice its bottom."""

    def forward(self, blobs: object, *bottoms: torch.Tensor, training: bool = False) -> torch.Tensor:
        return bottoms[0] * 2


@dataclass(frozen=True, kw_only=True)
class Unwritten(Doubled):
    """A layer without an emitter; that its base class has one does not count."""


@emits(Doubled)
def _doubled(graph: Graph, layer: Doubled, bottoms: Sequence[str], top: str) -> None:
    graph.node("Add", [bottoms[0], bottoms[0]], top, layer.name)


def test_other_modules_add_layers() -> None:
    net = small(Doubled(**ONE))
    assert worst(net, session(to_model(net)), data=image(1, 4, 3, 3)) < TOP


def test_refusals_name_the_layer() -> None:
    skipping: dict[str, Any] = {"kernel_size": (1, 1), "stride": (2, 2)}
    for net, expose, message in (
        (small(Unwritten(**ONE)), (), "'one' of type Unwritten"),
        (small(Pooling(**ONE, **skipping), size=7), (), "'one'.*skips pixels"),
        (Net(NETS["voc-fcn8s"](width=1 / 64)), ("loss",), f"'loss' of type {SoftmaxWithLoss.__name__}"),
    ):
        with pytest.raises(BadInput, match=message):
            to_model(net, expose=expose)


def test_more_classes_than_uint8_has() -> None:
    net = small(Convolution(**ONE, num_output=257, kernel_size=(1, 1)))
    with pytest.raises(BadInput, match=r"one has 257 classes.*--io scores"):
        to_model(net, "labels")
    to_model(net)


def test_more_weights_than_one_file_holds() -> None:
    with torch.device("meta"):
        net = Net(NETS["voc-fcn8s"](width=2))
    with pytest.raises(BadInput, match=r"voc-fcn8s: 2\.1 GB of weights"):
        to_model(net)


def test_unknown_tops_and_io() -> None:
    for top in ("nonsense", "data"):
        with pytest.raises(ValueError, match=f"computes no top '{top}'"):
            to_model(narrow(), expose=[top])
    with pytest.raises(ValueError, match="io 'probabilities'"):
        to_model(narrow(), "probabilities")
