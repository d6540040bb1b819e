"""The ends of a deployed graph: an image as a decoder gives it into Caffe's input, and the scores into labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from fcn.cli import BadInput
from fcn.images import preprocess

if TYPE_CHECKING:
    from export.graph import Dims
    from export.nodes import Graph

IMAGE = "image"
"""The tensor that takes N x H x W x 3 uint8 RGB."""


def write_image(graph: Graph, inputs: Mapping[str, Dims], mean: Sequence[float] | None) -> Dims:
    """Write what makes the net's input, N x 3 x H x W float32, of IMAGE, whose axes are returned:
    fcn.images.preprocess, bit for bit. mean: BGR.

    Raises BadInput for a net that takes no image, or more than that.
    """
    (top, (batch, channels, *size)), *others = inputs.items()
    if others or channels != 3 or len(size) != 2 or mean is None:
        name = graph.net.spec.name
        raise BadInput(f"{name}: no net of one image with three channels and a known mean: export it with --io labels")
    high, low = (
        graph.constant(f"{top}/{name}", part) for name, part in zip(("high", "low"), halves(mean), strict=True)
    )
    # TensorRT takes uint8 to floats only, so this comes first.
    real = graph.helper("Cast", [IMAGE], top, "float", to=TensorProto.FLOAT)
    rgb = graph.helper("Transpose", [real], top, "rgb", perm=(0, 3, 1, 2))
    bgr = graph.helper("Gather", [rgb, graph.constant(f"{top}/order", (2, 1, 0))], top, "bgr", axis=1)
    near = graph.helper("Sub", [bgr, high], top, "near")
    graph.node("Sub", [near, low], top, f"{top}/centred")
    return (batch, *size, channels)


def halves(mean: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The mean as two float32 arrays of 3 x 1 x 1, whose subtraction one after the other is `preprocess`, bit for bit.

    The authors subtract in double precision and round once; TensorRT has no doubles. The first half is a multiple of
    2^-16, so taking it from a byte leaves at most 24 bits: exact. The second subtraction rounds once, as theirs.
    (A table of all 256 values takes 43 ms at 375x500 on ONNX Runtime's CPU, this 0.6.)
    Raises BadInput for a mean with which a byte would come out otherwise.
    """
    exact = np.array(mean, np.float64).reshape(3, 1, 1)
    high = np.round(exact * 2**16) / 2**16
    parts = high.astype(np.float32), (exact - high).astype(np.float32)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(3, axis=3)
    if not np.array_equal(
        levels.transpose(0, 3, 1, 2).astype(np.float32) - parts[0] - parts[1], preprocess(levels, mean)
    ):
        raise BadInput(f"mean {', '.join(map(str, mean))}: not to be subtracted in float32: export it with --io labels")
    return parts


def write_labels(graph: Graph, score: str, dims: Dims, name: str) -> None:
    """Write what makes `name`, N x H x W uint8, of the scores: the best class, the first of equal ones.

    Raises BadInput for more classes than uint8 has.
    """
    classes = dims[1]
    if isinstance(classes, int) and classes > 256:
        raise BadInput(f"{score} has {classes} classes and labels are uint8: export it with --io scores")
    best = graph.helper("ArgMax", [score], name, "argmax", axis=1, keepdims=0, select_last_index=0)
    # TensorRT 10 documents conversions to uint8 from floats only (DataType.UINT8), so not from ArgMax's int64.
    real = graph.helper("Cast", [best], name, "float", to=TensorProto.FLOAT)
    graph.node("Cast", [real], name, name, to=TensorProto.UINT8)
