"""Each cause that `fcn prove` names, injected into an exported graph that ONNX Runtime then really runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.causes import tf32
from benchmarks.model import open_model
from benchmarks.prove import first_divergence
from export.to_onnx import plain_about, randomise, write_model
from export.verify import TOLERANCE
from reference import build
from reference.data.voc import MEAN

Inject = Callable[["Editor"], None]


class Editor:
    """An exported graph while a mistake is put into it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph

    def node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.graph.node if node.name == name)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant, or give one that is there other values."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values, name))
                return name
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def values(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(next(tensor for tensor in self.graph.initializer if tensor.name == name)).copy()

    def attribute(self, node: str, name: str, value: Any) -> None:
        kept = [each for each in self.node(node).attribute if each.name != name]
        del self.node(node).attribute[:]
        self.node(node).attribute.extend([*kept, helper.make_attribute(name, value)])

    def replace(self, name: str, op: str, inputs: list[str], **attributes: Any) -> None:
        """Another operator in a node's place."""
        self.node(name).CopyFrom(helper.make_node(op, inputs, self.node(name).output, name=name, **attributes))

    def before(self, node: str, index: int, *steps: tuple[Any, ...]) -> None:
        """Operators, (op, further inputs, attributes) each, between a node and its input `index`."""
        at = [each.name for each in self.graph.node].index(node)
        tensor = self.graph.node[at].input[index]
        for number, (op, further, attributes) in enumerate(steps):
            made = f"{node}/injected{index}-{number}"
            self.graph.node.insert(at + number, helper.make_node(op, [tensor, *further], [made], made, **attributes))
            tensor = made
        self.graph.node[at + len(steps)].input[index] = tensor

    def after(self, node: str, *steps: tuple[Any, ...]) -> None:
        """The same behind a node; what reads its output reads theirs."""
        at = [each.name for each in self.graph.node].index(node)
        tensor = self.graph.node[at].output[0]
        raw = self.graph.node[at].output[0] = f"{node}/untouched"
        for number, (op, further, attributes) in enumerate(steps):
            made = tensor if number == len(steps) - 1 else f"{node}/injected{number}"
            inputs = [raw, *further]
            self.graph.node.insert(at + 1 + number, helper.make_node(op, inputs, [made], f"{made}/made", **attributes))
            raw = made


def rgb(graph: Editor) -> None:
    order = graph.constant("swapped", np.array((2, 1, 0)))
    graph.before("conv1_1", 0, ("Gather", [order], {"axis": 1}))


def rgb_pixels(graph: Editor) -> None:
    graph.constant("data/order", np.array((0, 1, 2)))


def no_mean(graph: Editor) -> None:
    for part in ("high", "low"):
        graph.constant(f"data/{part}", np.zeros((3, 1, 1), np.float32))


def to_one(graph: Editor) -> None:
    no_mean(graph)
    scale = graph.constant("scale", np.array(1 / 255, np.float32))
    graph.before("data/near", 0, ("Mul", [scale], {}))


def torchvision(graph: Editor) -> None:
    rgb_pixels(graph)
    no_mean(graph)
    centre, deviation = ((np.array(each, np.float32).reshape(3, 1, 1)) for each in (CENTRE, DEVIATION))
    scale = graph.constant("scale", (1 / 255 / deviation).astype(np.float32))
    graph.constant("data/high", centre / deviation)
    graph.before("data/near", 0, ("Mul", [scale], {}))


CENTRE, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def floor(graph: Editor) -> None:
    graph.attribute("pool3", "ceil_mode", 0)


def average(graph: Editor) -> None:
    node = graph.node("pool2")
    graph.replace("pool2", "AveragePool", list(node.input), kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1)


def no_padding(graph: Editor) -> None:
    graph.attribute("conv1_1", "pads", (1, 1, 1, 1))


def resized(coordinates: str) -> Inject:
    def inject(graph: Editor) -> None:
        source = graph.node("upscore8").input[0]
        graph.after("upscore8", ("Shape", [], {}), ("Identity", [], {}))
        top = graph.node("upscore8/injected0/made").output[0]
        last = graph.node("upscore8/made")
        options = {"mode": "linear", "coordinate_transformation_mode": coordinates}
        last.CopyFrom(helper.make_node("Resize", [source, "", "", top], last.output, last.name, **options))

    return inject


def shifted_crop(graph: Editor) -> None:
    """Crop at 30 instead of 31: ends follow from starts."""
    graph.constant("score/starts", np.array((30, 30)))


def no_relu(graph: Editor) -> None:
    graph.replace("relu4_2", "Identity", list(graph.node("relu4_2").input))


def no_skip(graph: Editor) -> None:
    graph.replace("fuse_pool3", "Identity", [graph.node("fuse_pool3").input[0]])


def no_bias(graph: Editor) -> None:
    none = graph.constant("none", np.zeros_like(graph.values("conv2_1.bias")))
    graph.node("conv2_1").input[2] = none


def mirrored(graph: Editor) -> None:
    kernels = graph.values("conv2_2.weight")[:, :, ::-1, ::-1]
    graph.node("conv2_2").input[1] = graph.constant("mirrored", np.ascontiguousarray(kernels))


def no_scale(graph: Editor) -> None:
    graph.replace("scale_pool3", "Identity", [graph.node("scale_pool3").input[0]])


def lrn(graph: Editor) -> None:
    graph.attribute("norm1", "alpha", 1e-4 * 5)


def whole_channels(graph: Editor) -> None:
    channels = len(graph.values("fc6.bias"))
    mask = graph.constant("mask", np.float32(2) * (np.arange(channels) % 2).astype(np.float32).reshape(-1, 1, 1))
    graph.after("relu6", ("Mul", [mask], {}))


def elements(graph: Editor) -> None:
    ratio, training = graph.constant("ratio", np.array(0.5, np.float32)), graph.constant("training", np.array(True))
    graph.after("relu7", ("Dropout", [ratio, training], {"seed": 1}))


def tensor_cores(graph: Editor) -> None:
    """TF32 in float32 arithmetic: Veltkamp's splitting keeps 11 of the 24 bits of a factor."""
    for node in [node.name for node in graph.graph.node if node.op_type == "Conv"]:
        rounded = tf32(torch_from(graph.values(graph.node(node).input[1]))).numpy()
        graph.node(node).input[1] = graph.constant(f"{node}/rounded", rounded)
        at = [each.name for each in graph.graph.node].index(node)
        source = graph.graph.node[at].input[0]
        split = graph.constant("split", np.array(2**13 + 1, np.float32))
        names = [f"{node}/{what}" for what in ("large", "rest", "kept")]
        for number, (op, inputs) in enumerate(
            (("Mul", [source, split]), ("Sub", [names[0], source]), ("Sub", [names[0], names[1]]))
        ):
            graph.graph.node.insert(at + number, helper.make_node(op, inputs, [names[number]], names[number]))
        graph.graph.node[at + 3].input[0] = names[2]


def torch_from(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values)


def cast(kind: int) -> Inject:
    def inject(graph: Editor) -> None:
        there, back = ("Cast", [], {"to": kind}), ("Cast", [], {"to": TensorProto.FLOAT})
        for node in [node.name for node in graph.graph.node if node.op_type == "Conv"]:
            graph.before(node, 0, there, back)
            graph.before(node, 1, there, back)
        for node in [node.name for node in graph.graph.node if node.op_type == "Relu"]:
            graph.after(node, there, back)

    return inject


def overflow(graph: Editor) -> None:
    graph.constant("conv3_2.weight", graph.values("conv3_2.weight") * 1e4)
    graph.after("relu3_2", ("Cast", [], {"to": TensorProto.FLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT}))


def louder(graph: Editor) -> None:
    factor = graph.constant("factor", np.array(1.01, np.float32))
    graph.after("conv4_1", ("Mul", [factor], {}))


FCN8S, ATONCE, ALEXNET = "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"


@pytest.mark.parametrize(
    ("net", "io", "inject", "cause", "top"),
    [
        (FCN8S, "scores", rgb, "RGB order", "conv1_1"),
        (FCN8S, "image", rgb_pixels, "RGB order", "data"),
        (FCN8S, "image", no_mean, "mean not subtracted", "data"),
        (FCN8S, "image", to_one, "0 to 1", "data"),
        (FCN8S, "image", torchvision, "torchvision's normalisation", "data"),
        (FCN8S, "labels", floor, "floor pooling", "pool3"),
        (FCN8S, "labels", average, "the other pooling", "pool2"),
        (FCN8S, "scores", no_padding, "missing padding", "conv1_1"),
        (FCN8S, "scores", resized("align_corners"), "align_corners", "upscore8"),
        (FCN8S, "scores", resized("half_pixel"), "half-pixel resize", "upscore8"),
        (FCN8S, "scores", shifted_crop, "crop offset", "score"),
        (FCN8S, "scores", no_relu, "missing ReLU", "conv4_2"),
        (FCN8S, "scores", no_skip, "missing skip", "fuse_pool3"),
        (FCN8S, "scores", no_bias, "missing bias", "conv2_1"),
        (FCN8S, "scores", mirrored, "mirrored kernels", "conv2_2"),
        (ATONCE, "scores", no_scale, "missing Scale", "scale_pool3"),
        (ALEXNET, "scores", lrn, "LRN's alpha", "norm1"),
        (FCN8S, "scores", whole_channels, "per-channel dropout", "fc6"),
        (FCN8S, "scores", elements, "dropout left on", "fc7"),
        (FCN8S, "scores", tensor_cores, "TF32", "conv1_1"),
        (FCN8S, "scores", cast(TensorProto.FLOAT16), "float16", "conv1_1"),
        (FCN8S, "scores", cast(TensorProto.BFLOAT16), "bfloat16", "conv1_1"),
        (FCN8S, "scores", overflow, "float16 overflow", "conv3_2"),
        (FCN8S, "scores", louder, "unknown", "conv4_1"),
    ],
)
def test_an_injected_cause_is_named(net: str, io: str, inject: Inject, cause: str, top: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = build(net, width=1 / 16)
    randomise(made, 0)
    write_model(made, path, plain_about(made, "test", MEAN), io)
    model = onnx.load(str(path))
    inject(Editor(model))
    path.write_bytes(model.SerializeToString())
    opened = open_model(path, None, None, "cpu", tmp_path)
    found = first_divergence(opened, tmp_path, TOLERANCE, 1, 200, 211)
    assert (found["cause"]["name"], found["top"]) == (cause, top), found
    assert found["cause"]["says"] and found["cause"]["fix"]
