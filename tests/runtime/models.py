"""Small real ONNX models that stand in for the exporter's: a 1x1 convolution from BGR to K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fcn.images import voc_palette
from runtime.metadata import Metadata

CLASSES = ("background", "aeroplane", "bicycle", "bird", "boat")
MEAN = (104.00698793, 116.66876762, 122.67891434)
WEIGHT = np.random.default_rng(1).normal(size=(len(CLASSES), 3, 1, 1)).astype(np.float32)


def metadata(io: str = "scores", **changes: Any) -> Metadata:
    """What the exporter would say of these models."""
    values: dict[str, Any] = {
        "net": "voc-fcn8s",
        "classes": CLASSES,
        "palette": voc_palette().tolist(),
        "mean": MEAN,
        "io": io,
        "input": "image" if io == "image" else "data",
        "output": "score" if io == "scores" else "label",
        "weights_sha256": "0" * 64,
        "provenance": {"recipe": "voc-fcn8s", "iteration": 100000, "note": "äöü"},
    }
    return Metadata(**{**values, **changes})


def model(
    io: str = "scores",
    *,
    size: tuple[int | str, int | str] = ("H", "W"),
    weight: np.ndarray = WEIGHT,
    opset: int = 18,
    properties: dict[str, str] | None = None,
) -> ModelProto:
    """data: N x 3 x H x W float32 -> score: N x K x H x W, or label: N x H x W uint8; or image: N x H x W x 3 uint8
    -> label. properties: {} for none.
    """
    nodes = [helper.make_node("Conv", ["data", "weight"], ["score"])]
    taken = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, *size])
    constants = {"weight": weight}
    if io == "image":
        pixels = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["rgb"], perm=[0, 3, 1, 2]),
            helper.make_node("Gather", ["rgb", "order"], ["bgr"], axis=1),
            helper.make_node("Sub", ["bgr", "mean"], ["data"]),
        ]
        nodes = [*pixels, *nodes]
        taken = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *size, 3])
        constants |= {"order": np.array([2, 1, 0]), "mean": np.array(MEAN, np.float32).reshape(3, 1, 1)}
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", len(weight), *size])
    if io != "scores":
        nodes += [
            helper.make_node("ArgMax", ["score"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["label"], to=TensorProto.UINT8),
        ]
        output = helper.make_tensor_value_info("label", TensorProto.UINT8, ["N", *size])
    graph = helper.make_graph(
        nodes,
        "net",
        [taken],
        [output],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(made, metadata(io).to_properties() if properties is None else properties)
    return made


def save(path: Path, io: str = "scores", **how: Any) -> Path:
    """Write `model(io, **how)` to `path`."""
    path.write_bytes(model(io, **how).SerializeToString())
    return path


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A height x width x 3 uint8 image of random values."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
