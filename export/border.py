"""Border elision, Net -> Net: inference that does not pay for the padding, and computes the same.

The nets pad their image by 100 zeros on every side. Far from the image, features do not depend on it: there is one
constant vector a layer, and near the outer border what zeros beyond it make of the biases. So the trunk runs on a
window around the image only, and what lies outside is taken from a table that was filled once, at export. All numbers
here are derived from the geometry of the layers (kernel, stride, padding, rounding); docs/border.md has the argument.

On an axis, a top has N cells. Of these the first B and those from F on feel the outer border, those from I to J the
image; the rest are constant. A window of cells whose first and last are constant may be extended by edge replication,
and holds what the whole run holds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from export.nodes import Graph, emits
from reference.layers import (
    LRN,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Input,
    Layer,
    Pair,
    Pooling,
    ReLU,
    Scale,
    Shape,
    Window,
)
from reference.net import Net, NetSpec, module_name

# Layers that may run on a window: they look at a bounded neighbourhood, everywhere in the same way.
LOCAL = (Convolution, Pooling, ReLU, LRN, Scale, Eltwise, Concat, Dropout)
"""What the names of tops that hold a window only end in."""
WINDOW = "@window"
BORDERS = ELIDE, KEEP = "elide", "keep"


# --- the layers that an elided net has besides Caffe's -------------------------------------------------------------


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
        rows, columns = (self.low[axis] + 1 + self.stride[axis] * self.high[axis] for axis in (0, 1))
        return {"table": (1, bottoms[0][1], rows, columns)}

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
            whole = whole.index_select(2 + axis, self._cells(image.shape[2 + axis], axis).to(whole.device))
        whole = whole.repeat(window.shape[0], 1, 1, 1)
        (top, left), (h, w) = self.start, window.shape[2:]
        whole[:, :, top : top + h, left : left + w] = window
        return whole

    def _cells(self, image: int, axis: int) -> Tensor:
        """The table's cell for each of the blank top's."""
        low, high, size = self.low[axis], self.high[axis], self.size(image, axis)
        cells = torch.full((size,), low)
        cells[:low] = torch.arange(low)
        cells[size - high :] = low + 1 + image % self.stride[axis] * high + torch.arange(high)
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
    """Every cell is gathered from the table and from the window (off the window, from its edge), and one is taken.

    Slices and concatenations would read better; TensorRT's parser makes some thirty layers of every slice whose ends
    follow from the image's size.
    """
    name, (window, image) = layer.name, bottoms
    sizes = graph.helper("Shape", [window], name, "window")
    (whole,) = graph.blobs(layer)
    inside = []
    for axis in (0, 1):
        whole, window, within = _emit_axis(graph, layer, (whole, window, image), sizes, axis)
        inside.append(within)
    # Rows stand above columns: N x 1 and M.
    column = graph.helper("Unsqueeze", [inside[0], graph.constant(f"{name}/one", [1])], name, "column")
    mask = graph.helper("And", [column, inside[1]], name, "inside")
    graph.node("Where", [mask, window, whole], top, name)


def _emit_axis(
    graph: Graph, layer: Paste, tensors: tuple[str, str, str], sizes: str, axis: int
) -> tuple[str, str, str]:
    """Table and window with one axis as long as the top, and which of its cells lie in the window."""
    (table, window, image), name = tensors, f"{layer.name}{axis}"
    low, high = layer.low[axis], layer.high[axis]

    def compute(op: str, left: str, right: str, what: str) -> str:
        return graph.helper(op, [left, right], name, what)

    def number(value: int, what: str) -> str:
        return graph.constant(f"{name}/{what}", np.array(value, np.int64))

    zero, one = number(0, "zero"), number(1, "one")
    # The top's cells: a quotient, and what belongs to the remainder.
    size = compute("Gather", graph.size(image), number(axis, "axis"), "size")
    stride = number(layer.stride[axis], "stride")
    quotient = compute("Div", size, stride, "quotient")
    remainder = compute("Sub", size, compute("Mul", quotient, stride, "product"), "remainder")
    table_of_cells = graph.constant(f"{name}/cells", layer.cells[axis])
    cells = compute("Add", quotient, compute("Gather", table_of_cells, remainder, "extra"), "length")
    every = graph.helper("Range", [zero, cells, one], name, "every")
    # In the table: the border, the constant cell, and the other border of that remainder.
    depth = number(high, "high")
    far = compute("Sub", every, compute("Sub", cells, depth, "near"), "far")
    begin = compute("Add", compute("Mul", remainder, depth, "skipped"), number(low + 1, "first"), "begin")
    further = compute("GreaterOrEqual", far, zero, "further")
    near = compute("Min", every, number(low, "low"), "border")
    place = graph.helper("Where", [further, compute("Add", far, begin, "other"), near], name, "place")
    # In the window.
    at = compute("Sub", every, number(layer.start[axis], "start"), "at")
    held = compute("Gather", sizes, number(ROWS + axis, "dimension"), "held")
    clipped = compute("Min", compute("Max", at, zero, "after"), compute("Sub", held, one, "last"), "clipped")
    gathered = [
        graph.helper("Gather", [each, index], name, what, axis=ROWS + axis)
        for each, index, what in ((table, place, "blank"), (window, clipped, "filled"))
    ]
    return gathered[0], gathered[1], compute("Equal", at, clipped, "within")


# --- what lies where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Zones:
    """One top on one axis, for an image of one size: `cells` in all; the border's influence ends before `border_end`
    and begins again at `border_start`; the image's reaches from `first` to `last`.
    """

    stride: int
    cells: int
    border_end: int
    border_start: int
    first: int
    last: int

    @property
    def apart(self) -> bool:
        """Whether no cell feels both the border and the image."""
        return self.border_end <= self.first and self.last < self.border_start


def zones(layers: Sequence[Layer], image: str, size: int, axis: int) -> dict[str, Zones]:
    """The zones of every top that LOCAL layers make of the input `image`, of `size` pixels on the axis.

    Around the image lie zeros, which are what the first convolution pads with: that is no border yet.
    """
    found = {image: Zones(1, size, 0, size, 0, size - 1)}
    for layer in layers:
        below = [found[bottom] for bottom in layer.bottoms if bottom in found]
        if below and len(below) == len(layer.bottoms) and is_local(layer):
            made = _above(layer, below, axis, image)
            if made:
                found[layer.tops[0]] = made
            else:
                found.pop(layer.tops[0], None)
    return found


def is_local(layer: Layer) -> bool:
    """Whether the layer may run on a window."""
    if isinstance(layer, Pooling) and (layer.global_pooling or layer.pool != "MAX"):
        return False
    if isinstance(layer, Convolution | Pooling) and any(layer.extent(axis) < layer.stride[axis] for axis in (0, 1)):
        return False  # it passes pixels over: of a small image it may see none
    if isinstance(layer, Concat):
        return layer.axis == 1
    return isinstance(layer, LOCAL) and not isinstance(layer, Deconvolution)


def _above(layer: Layer, below: Sequence[Zones], axis: int, image: str) -> Zones | None:
    """The zones of a layer's top; None where its bottoms do not lie cell over cell, or are smaller than its kernel."""
    one = below[0]
    if not isinstance(layer, Window):
        if any((each.stride, each.cells) != (one.stride, one.cells) for each in below):
            return None
        return Zones(
            one.stride,
            one.cells,
            max(each.border_end for each in below),
            min(each.border_start for each in below),
            min(each.first for each in below),
            max(each.last for each in below),
        )
    assert isinstance(layer, Convolution | Pooling)
    stride, pad, reach = layer.stride[axis], layer.pad[axis], layer.extent(axis) - 1
    try:
        cells = layer._size(one.cells, axis)
    except ValueError:
        return None
    padded_with_blank = layer.bottoms == (image,) and isinstance(layer, Convolution)
    return Zones(
        one.stride * stride,
        cells,
        0 if padded_with_blank else _ceil(one.border_end + pad, stride),
        cells if padded_with_blank else min(_ceil(one.border_start + pad - reach, stride), cells),
        _ceil(one.first + pad - reach, stride),
        (one.last + pad) // stride,
    )


def _ceil(value: int, by: int) -> int:
    return -(-value // by)


# --- which layers, and which windows of their tops ---------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """Cells of a top on an axis: from `start` to rate * q + `end`, where rate is the plan's stride over the top's."""

    start: int
    end: int

    def joined(self, other: Span | None) -> Span:
        return self if other is None else Span(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Plan:
    """What runs on windows on one axis. q = (size + shift) // stride."""

    stride: int
    shift: int
    windows: dict[str, Span]
    """The cells that are computed, of every such top; of the image: those that are framed."""


class Trunk:
    """The layers that run on windows, and the tops that others read of them."""

    def __init__(self, spec: NetSpec) -> None:
        (self.image,) = spec.inputs
        self.spec = spec
        self.layers = self._apart()
        for layer in reversed(self.layers):
            if self._is_cheaper_whole(layer):
                self.layers.remove(layer)
        self.tops = {layer.tops[0] for layer in self.layers}
        self.frontier = self._frontier(self.layers)

    def _frontier(self, layers: Sequence[Layer]) -> list[str]:
        """The tops of `layers` that others read, or that are outputs."""
        names = {layer.name for layer in layers}
        read = {bottom for layer in self.spec.layers if layer.name not in names for bottom in layer.bottoms}
        return list(dict.fromkeys(x.tops[0] for x in layers if x.tops[0] in read or x.tops[0] in self.spec.outputs))

    def _is_cheaper_whole(self, layer: Layer) -> bool:
        """Whether it is a 1x1 layer above a top that is pasted anyway: then pasting its top too costs more."""
        single = isinstance(layer, Convolution) and layer.kernel_size == (1, 1)
        within = any(layer.tops[0] in each.bottoms for each in self.layers)
        return single and not within and layer.bottoms[0] in self._frontier(self.layers)

    def _apart(self) -> list[Layer]:
        """The layers of whose tops no cell feels both border and image, for images of any size."""
        known, kept = {self.image}, []
        apart = [self._always_apart(axis) for axis in (0, 1)]
        for layer in self.spec.layers:
            local = layer.bottoms and known.issuperset(layer.bottoms) and is_local(layer)
            if local and all(layer.tops[0] in each for each in apart):
                known.add(layer.tops[0])
                kept.append(layer)
        return kept

    def _always_apart(self, axis: int) -> set[str]:
        strides = max((each.stride for each in self.zones(1, axis).values()), default=1)
        found = [{t for t, z in self.zones(size, axis).items() if z.apart} for size in range(1, 2 * strides + 1)]
        return set.intersection(*found)

    def zones(self, size: int, axis: int) -> dict[str, Zones]:
        """Of all tops that local layers make, for an image of `size`."""
        return zones(self.spec.layers, self.image, size, axis)

    def stride(self, axis: int) -> int:
        found = self.zones(1, axis)
        return max(found[top].stride for top in self.tops)

    def plan(self, axis: int) -> Plan | None:
        """The windows; of the ways to round an image's size that with the smallest frame. None where no way fits.

        Where the image's last cell moves on and where the border's first does are different remainders: a window is as
        long for all of them, so it must end between the two for each.
        """
        stride = self.stride(axis)
        plans = [plan for shift in range(stride) if (plan := self._plan(axis, stride, shift))]
        if not plans:
            return None
        return min(plans, key=lambda plan: plan.shift + plan.windows[self.image].end - plan.windows[self.image].start)

    def _plan(self, axis: int, stride: int, shift: int) -> Plan | None:
        """The windows that follow from what must be pasted; None where one would reach into the border."""
        sizes = range(stride, 3 * stride)
        seen = [self.zones(size, axis) for size in sizes]

        def ends(top: str, what: str) -> list[int]:
            """Zone boundaries, less rate * q, over all remainders."""
            rate = stride // seen[0][top].stride
            return [
                getattr(zone[top], what) - rate * ((size + shift) // stride)
                for size, zone in zip(sizes, seen, strict=True)
            ]

        needs: dict[str, Span] = {top: Span(seen[0][top].first, max(ends(top, "last"))) for top in self.frontier}
        windows: dict[str, Span] = {}
        for layer in reversed(self.layers):
            top = layer.tops[0]
            if top not in windows:
                windows[top] = needs[top]
                if self._extends(layer):
                    start, end = seen[0][top].first - 1, max(ends(top, "last")) + 1
                    windows[top] = Span(max(needs[top].start, start), min(needs[top].end, end))
                if windows[top].start < seen[0][top].border_end or windows[top].end >= min(ends(top, "border_start")):
                    return None
            if layer.in_place:
                continue
            for bottom in layer.bottoms:
                needs[bottom] = under(layer, windows[top], axis).joined(needs.get(bottom))
        windows[self.image] = needs[self.image]
        return Plan(stride, shift, windows)

    @staticmethod
    def _extends(layer: Layer) -> bool:
        """Whether a layer's top is kept small, and padded for what reads it: where that copies little."""
        return isinstance(layer, Concat) or (isinstance(layer, Pooling) and max(layer.stride) > 1)


def under(layer: Layer, span: Span, axis: int) -> Span:
    """The cells of a layer's bottom that `span` of its top is made of."""
    if not isinstance(layer, Window):
        return span
    stride, pad, reach = layer.stride[axis], layer.pad[axis], layer.extent(axis) - 1
    return Span(span.start * stride - pad, span.end * stride - pad + reach)


# --- the transformation ---------------------------------------------------------------------------------------------


def whole_tops(spec: NetSpec) -> list[str]:
    """The tops that an elided net still computes whole, in order."""
    trunk = Trunk(spec) if len(spec.inputs) == 1 else None
    within = trunk.tops - set(trunk.frontier) if trunk else set()
    return [top for top in dict.fromkeys(top for x in spec.layers for top in x.tops) if top not in within]


def elide(net: Net) -> Net:
    """The same function of its input, run on a window around the image as far as that is exact.

    Weights are shared with `net`; a net of which nothing can be elided is given back as it is. In inference only: in
    training, gradients flow into the weights from the border too.
    """
    if len(net.spec.inputs) != 1:
        return net
    trunk = Trunk(net.spec)
    plans = [plan for axis in (0, 1) if (plan := trunk.plan(axis))] if trunk.frontier else []
    if len(plans) < 2:
        return net
    made = Net(NetSpec(net.spec.name, tuple(_layers(trunk, plans))))
    state = net.state_dict()
    tables = _tables(net, trunk, {x.tops[0]: x for x in made.spec.layers if isinstance(x, Paste)})
    made.load_state_dict(state | tables, assign=True)
    return made.eval().requires_grad_(False)


def _layers(trunk: Trunk, plans: Sequence[Plan]) -> list[Layer]:
    """The elided net's layers."""
    named = {trunk.image: f"{trunk.image}{WINDOW}"} | {top: f"{top}{WINDOW}" for top in trunk.tops}
    windows = {top: tuple(plan.windows[top] for plan in plans) for top in named}
    inside = {layer.name for layer in trunk.layers}
    writers = {layer.tops[0]: layer.name for layer in trunk.layers}  # the last of each top
    made: list[Layer] = []
    padded: dict[tuple[str, Pair, Pair], str] = {}
    for layer in trunk.spec.layers:
        if layer.name not in inside:
            made.append(layer)
        elif layer.in_place:
            made.append(replace(layer, bottoms=(named[layer.tops[0]],), tops=(named[layer.tops[0]],)))
        else:
            bottoms = []
            for bottom in layer.bottoms:
                wanted = [under(layer, windows[layer.tops[0]][axis], axis) for axis in (0, 1)]
                held = windows[bottom]
                low = (held[0].start - wanted[0].start, held[1].start - wanted[1].start)
                high = (wanted[0].end - held[0].end, wanted[1].end - held[1].end)
                key = (bottom, low, high)
                if any((*low, *high)) and key not in padded:
                    padded[key] = f"{named[bottom]}{len(padded)}"
                    made.append(
                        EdgePad(
                            name=f"{bottom}/edge{len(padded)}",
                            bottoms=(named[bottom],),
                            tops=(padded[key],),
                            low=low,
                            high=high,
                        )
                    )
                bottoms.append(padded.get(key, named[bottom]))
            if isinstance(layer, Window):
                layer = replace(layer, pad=(0, 0))
            made.append(replace(layer, bottoms=tuple(bottoms), tops=(named[layer.tops[0]],)))
        if isinstance(layer, Input) and layer.tops == (trunk.image,):
            made.append(_frame(trunk.image, named[trunk.image], plans))
        for top in trunk.frontier:
            if layer.name == writers[top]:
                made.append(_paste(trunk, top, named[top], [window.start for window in windows[top]]))
    return made


def _frame(image: str, top: str, plans: Sequence[Plan]) -> Frame:
    spans = [plan.windows[image] for plan in plans]
    return Frame(
        name="frame",
        bottoms=(image,),
        tops=(top,),
        low=(-spans[0].start, -spans[1].start),
        stride=(plans[0].stride, plans[1].stride),
        shift=(plans[0].shift, plans[1].shift),
        fixed=(spans[0].end - spans[0].start + 1, spans[1].end - spans[1].start + 1),
    )


def _paste(trunk: Trunk, top: str, window: str, start: Sequence[int]) -> Paste:
    strides, low, high, cells = [], [], [], []
    for axis in (0, 1):
        stride = trunk.zones(1, axis)[top].stride
        seen = {size % stride: (size, trunk.zones(size, axis)[top]) for size in range(stride, 2 * stride)}
        strides.append(stride)
        low.append(seen[0][1].border_end)
        high.append(max(zone.cells - zone.border_start for _, zone in seen.values()))
        cells.append(tuple(seen[r][1].cells - seen[r][0] // stride for r in range(stride)))
    return Paste(
        name=f"{top}/paste",
        bottoms=(window, trunk.image),
        tops=(top,),
        start=(start[0], start[1]),
        low=(low[0], low[1]),
        high=(high[0], high[1]),
        stride=(strides[0], strides[1]),
        cells=(cells[0], cells[1]),
    )


def _tables(net: Net, trunk: Trunk, pastes: Mapping[str, Paste]) -> dict[str, Tensor]:
    """The pastes' blobs: what the trunk makes of blank images, one for each pair of remainders."""
    shapes = net.spec.shapes()
    layers = _shrunk(trunk, pastes)
    tables = {top: torch.zeros(paste.blob_shapes(shapes[top])["table"]) for top, paste in pastes.items()}
    heights, widths = (range(1, trunk.stride(axis) + 1) for axis in (0, 1))
    channels = shapes[trunk.image][1]
    for height in tqdm(heights, "blank images", leave=False, disable=None):
        sizes = [(height, width) for width in widths]
        blank, cells = _blank(net, layers, trunk.image, channels, sizes)
        for top, paste in pastes.items():
            for index, size in enumerate(sizes):
                rows, columns = (_cells_of(paste, size[axis], int(cells[top][axis][index]), axis) for axis in (0, 1))
                whole = blank[top][index : index + 1]
                tables[top][:, :, rows[0][:, None], columns[0]] = whole[:, :, rows[1][:, None], columns[1]]
    return {f"{module_name(paste.name)}.table": tables[top] for top, paste in pastes.items()}


def _blank(
    net: Net, layers: Sequence[Layer], image: str, channels: int, sizes: Sequence[Pair]
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Every top for blank images of these sizes, as one batch, and how many rows and columns of each are its own.

    A batch has one size, the largest: what lies beyond an image's own cells is what Caffe has there, zeros for a
    convolution and nothing for a pooling.
    """
    seen = [[zones(layers, image, size[axis], axis) for size in sizes] for axis in (0, 1)]
    cells = {
        top: (torch.tensor([z[top].cells for z in seen[0]]), torch.tensor([z[top].cells for z in seen[1]]))
        for top in seen[0][0]
    }

    def own(top: str, beyond: float) -> Tensor:
        x = tops[top]
        rows, columns = (torch.arange(x.shape[2 + axis]) < cells[top][axis][:, None] for axis in (0, 1))
        return torch.where(rows[:, None, :, None] & columns[:, None, None, :], x, beyond)

    largest = [max(size[axis] for size in sizes) for axis in (0, 1)]
    tops = {image: torch.zeros(len(sizes), channels, *largest)}
    with torch.inference_mode():
        for layer in layers:
            beyond = -torch.inf if isinstance(layer, Pooling) else 0.0
            bottoms = [own(bottom, beyond) for bottom in layer.bottoms]
            blobs = dict(net.layer(layer.name).named_parameters())
            made = layer.forward(blobs, *bottoms)
            assert isinstance(made, Tensor)
            tops[layer.tops[0]] = made
    return tops, cells


def _shrunk(trunk: Trunk, pastes: Mapping[str, Paste]) -> list[Layer]:
    """The trunk with so little padding that a blank image's two borders do not yet meet in a top that is pasted.

    What is taken off both sides together is a multiple of the stride: every remainder stays what it was.
    """
    strides = [trunk.stride(axis) for axis in (0, 1)]
    shrunk = trunk.layers
    for times in range(1, 1000):
        less = [stride // 2 * times if stride % 2 == 0 else stride * times for stride in strides]
        layers = [
            replace(layer, pad=(layer.pad[0] - less[0], layer.pad[1] - less[1]))
            if isinstance(layer, Convolution) and layer.bottoms == (trunk.image,)
            else layer
            for layer in trunk.layers
        ]
        if not all(_borders_part(layers, trunk.image, pastes, axis, strides[axis]) for axis in (0, 1)):
            return shrunk
        shrunk = layers
    return shrunk


def _borders_part(layers: Sequence[Layer], image: str, pastes: Mapping[str, Paste], axis: int, stride: int) -> bool:
    """Whether a constant cell lies between the borders of every pasted top, for blank images of 1 to `stride`."""
    if any(min(layer.pad) < 0 for layer in layers if isinstance(layer, Window)):
        return False
    for size in range(1, stride + 1):
        found = zones(layers, image, size, axis)
        for top, paste in pastes.items():
            if top not in found or found[top].cells - paste.high[axis] <= paste.low[axis]:
                return False
    return True


def _cells_of(paste: Paste, size: int, cells: int, axis: int) -> tuple[Tensor, Tensor]:
    """The table's cells that a blank image of `size` fills, and those of its top, of which there are `cells`."""
    low, high = paste.low[axis], paste.high[axis]
    assert low < cells - high, "the borders meet"
    first = low + 1 + size % paste.stride[axis] * high
    there = torch.cat((torch.arange(low + 1), torch.arange(first, first + high)))
    here = torch.cat((torch.arange(low + 1), torch.arange(cells - high, cells)))
    return there, here
