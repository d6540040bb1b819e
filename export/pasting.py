"""The layers that a net with an elided border has besides Caffe's, in PyTorch and in ONNX: frame, edge pad, paste.

What they are for stands in export/border.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor

from export.nodes import Graph, emits
from reference.layers import Layer, Pair, Shape


@dataclass(frozen=True, kw_only=True)
class Frame(Layer):
    """Zeros around the image: `low` before it, and after it so many that each axis has stride * q + fixed pixels, where
    q = (size + shift) // stride.
    """

    low: Pair
    stride: Pair
    shift: Pair
    fixed: Pair

    pointwise: ClassVar[bool] = False

    def sizes(self, sizes: Sequence[int]) -> Pair:
        """Height and width of the top, for an image's."""
        height, width = (
            stride * ((size + shift) // stride) + fixed
            for size, stride, shift, fixed in zip(sizes, self.stride, self.shift, self.fixed, strict=True)
        )
        return height, width

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ((*bottoms[0][:2], *self.sizes(bottoms[0][2:])),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        (x,) = bottoms
        height, width = self.sizes(x.shape[2:])
        (top, left), (h, w) = self.low, x.shape[2:]
        return F.pad(x, (left, width - left - w, top, height - top - h))


@dataclass(frozen=True, kw_only=True)
class EdgePad(Layer):
    """The first and last cells repeated `low` and `high` times; where these are negative, so many are cut off."""

    low: Pair
    high: Pair

    pointwise: ClassVar[bool] = False

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        sizes = (size + low + high for size, low, high in zip(bottoms[0][2:], self.low, self.high, strict=True))
        return ((*bottoms[0][:2], *sizes),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        (top, left), (bottom, right) = self.low, self.high
        h, w = bottoms[0].shape[2:]
        x = bottoms[0][:, :, max(-top, 0) : h + min(bottom, 0), max(-left, 0) : w + min(right, 0)]
        return F.pad(x, tuple(max(each, 0) for each in (left, right, top, bottom)), mode="replicate")


@dataclass(frozen=True, kw_only=True)
class Paste(Layer):
    """The whole top: the window (first bottom) from cell `start` on, and around it what the blank image gives.

    The blob holds that: on each axis `low` cells at the border, a constant one, and for each remainder of the image's
    size (second bottom) by the top's stride `high` cells at the other border. `cells` has, for each remainder, the
    top's size less that quotient.
    """

    start: Pair
    low: Pair
    high: Pair
    stride: Pair
    cells: tuple[tuple[int, ...], tuple[int, ...]]

    pointwise: ClassVar[bool] = False

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        # Channels last: a cell is one piece of memory, and a gather of cells copies few pieces.
        rows, columns = (self.low[axis] + 1 + self.stride[axis] * self.high[axis] for axis in (0, 1))
        return {"table": (1, rows, columns, bottoms[0][1])}

    def size(self, image: int, axis: int) -> int:
        """The top's size for an image's."""
        quotient, remainder = divmod(image, self.stride[axis])
        return quotient + self.cells[axis][remainder]

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        window, image = bottoms
        return ((*window[:2], *(self.size(image[2 + axis], axis) for axis in (0, 1))),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        window, image = bottoms
        whole = blobs["table"]
        for axis in (0, 1):
            whole = whole.index_select(1 + axis, self._cells(image.shape[2 + axis], axis, whole.device))
        whole = whole.permute(0, 3, 1, 2).repeat(window.shape[0], 1, 1, 1)
        (top, left), (h, w) = self.start, window.shape[2:]
        whole[:, :, top : top + h, left : left + w] = window
        return whole

    def _cells(self, image: int, axis: int, device: torch.device) -> Tensor:
        """The table's cell for each of the blank top's. Made where it is used: a CUDA graph captures no copy to it."""
        low, high, size = self.low[axis], self.high[axis], self.size(image, axis)
        cells = torch.full((size,), low, device=device)
        cells[:low] = torch.arange(low, device=device)
        first = low + 1 + image % self.stride[axis] * high
        cells[size - high :] = torch.arange(first, first + high, device=device)
        return cells


# --- the same in ONNX -------------------------------------------------------------------------------------------------

ROWS, COLUMNS = 2, 3
LAST = 2**31 - 1


@emits(Frame)
def _emit_frame(graph: Graph, layer: Frame, bottoms: Sequence[str], top: str) -> None:
    name, size = layer.name, graph.size(bottoms[0])
    shifted = graph.helper("Add", [size, graph.constant(f"{name}/shift", layer.shift)], name, "shifted")
    stride = graph.constant(f"{name}/stride", layer.stride)
    quotient = graph.helper("Div", [shifted, stride], name, "quotient")
    whole = graph.helper("Mul", [quotient, stride], name, "whole")
    fixed = [fixed - low for fixed, low in zip(layer.fixed, layer.low, strict=True)]
    room = graph.helper("Add", [whole, graph.constant(f"{name}/fixed", fixed)], name, "room")
    after = graph.helper("Sub", [room, size], name, "after")
    before = graph.constant(f"{name}/before", (0, 0, *layer.low, 0, 0))
    graph.node("Pad", [bottoms[0], graph.helper("Concat", [before, after], name, "pads", axis=0)], top, name)


@emits(EdgePad)
def _emit_edge_pad(graph: Graph, layer: EdgePad, bottoms: Sequence[str], top: str) -> None:
    name, x = layer.name, bottoms[0]
    grown = any(each > 0 for each in (*layer.low, *layer.high))
    if any(each < 0 for each in (*layer.low, *layer.high)):
        starts = graph.constant(f"{name}/starts", [max(-each, 0) for each in layer.low])
        ends = graph.constant(f"{name}/ends", [each if each < 0 else LAST for each in layer.high])
        axes = graph.constant(f"{name}/axes", (ROWS, COLUMNS))
        x = graph.node("Slice", [x, starts, ends, axes], f"{name}/cut" if grown else top, f"{name}/cut")
    if grown:
        low, high = ([max(each, 0) for each in side] for side in (layer.low, layer.high))
        graph.node("Pad", [x, graph.constant(f"{name}/pads", (0, 0, *low, 0, 0, *high))], top, name, mode="edge")


@emits(Paste)
def _emit_paste(graph: Graph, layer: Paste, bottoms: Sequence[str], top: str) -> None:
    """The window with zeros around it where it lies, the blank top elsewhere.

    TensorRT's parser makes many layers of each operator on shapes, some thirty of every slice whose ends follow from
    the image's size: so rows and columns are computed together, as vectors of two, and pads do what comparisons could.
    """
    name, (window, image) = layer.name, bottoms

    def compute(op: str, left: str, right: str, what: str) -> str:
        return graph.helper(op, [left, right], name, what)

    def pair(values: Sequence[int], what: str) -> str:
        return graph.constant(f"{name}/{what}", values)

    # The top's cells: the size's quotient by the stride, and what belongs to the remainder.
    size, stride = graph.size(image), pair(layer.stride, "stride")
    quotient = compute("Div", size, stride, "quotient")
    remainder = compute("Sub", size, compute("Mul", quotient, stride, "product"), "remainder")
    of_both = compute("Add", remainder, pair((0, layer.stride[0]), "second"), "entry")
    extra = compute("Gather", pair((*layer.cells[0], *layer.cells[1]), "extras"), of_both, "extra")
    cells = compute("Add", quotient, extra, "cells")
    # How often the table's constant cell is repeated, and where the table has the far border of this remainder.
    ends = pair([low + 1 + high for low, high in zip(layer.low, layer.high, strict=True)], "ends")
    repeated = compute("Sub", cells, ends, "repeated")
    begin = compute("Mul", remainder, pair(layer.high, "high"), "begin")
    (blank,) = graph.blobs(layer)
    for axis in (0, 1):
        blank = _emit_blank(graph, layer, axis, blank, repeated, begin)
    blank = graph.helper("Transpose", [blank], name, "blank", perm=(0, 3, 1, 2))
    # The window among zeros, and ones among zeros: where it lies.
    held = graph.helper("Shape", [window], name, "held", start=2, end=4)
    start = pair(layer.start, "start")
    room = compute("Sub", cells, compute("Add", held, start, "end"), "room")
    pads = [
        graph.helper("Concat", [before, room], name, f"pads{axes}", axis=0)
        for before, axes in ((pair((0, 0, *layer.start, 0, 0), "before"), 4), (start, 2))
    ]
    placed = graph.helper("Pad", [window, pads[0]], name, "placed")
    one = helper.make_tensor("", TensorProto.FLOAT, [1], [1])
    ones = graph.helper("ConstantOfShape", [held], name, "ones", value=one)
    there = graph.helper("Pad", [ones, pads[1]], name, "there")
    inside = graph.helper("Cast", [there], name, "inside", to=TensorProto.BOOL)
    graph.node("Where", [inside, placed, blank], top, name)


def _emit_blank(graph: Graph, layer: Paste, axis: int, table: str, repeated: str, begin: str) -> str:
    """The table with one axis as long as the top's: the near border, the constant cell again and again, the far one."""
    name, low, high = f"{layer.name}{axis}", layer.low[axis], layer.high[axis]
    which = graph.constant(f"{name}/axis", [axis])
    times, skipped = (
        graph.helper("Gather", [each, which], name, what) for each, what in ((repeated, "times"), (begin, "skipped"))
    )
    after = graph.helper("Concat", [graph.constant(f"{name}/none", [0]), times], name, "after", axis=0)
    near = graph.helper("Pad", [graph.constant(f"{name}/low", range(low + 1)), after], name, "near", mode="edge")
    first = graph.constant(f"{name}/high", range(low + 1, low + 1 + high))
    far = graph.helper("Add", [first, skipped], name, "far")
    places = graph.helper("Concat", [near, far], name, "places", axis=0)
    return graph.helper("Gather", [table, places], name, "blank", axis=1 + axis)
