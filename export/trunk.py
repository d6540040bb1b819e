"""Which layers of a net may run on a window around the image, and on which: derived from kernels, strides, padding and
rounding alone.

On an axis, a top has N cells. Of these the first B and those from F on feel the outer border, those from I to J the
image; the rest are constant. A window of cells whose first and last are constant may be extended by edge replication,
and holds what the whole run holds there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reference.layers import (
    ELU,
    LRN,
    AbsVal,
    BatchNorm,
    Bias,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Input,
    Layer,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Scale,
    Sigmoid,
    TanH,
    Window,
)
from reference.net import NetSpec

# Layers that may run on a window: they look at a bounded neighbourhood, everywhere in the same way.
CELLWISE = (ReLU, PReLU, ELU, Sigmoid, TanH, AbsVal, Power, Scale, Bias, BatchNorm, LRN, Dropout)
LOCAL = (Convolution, Pooling, Eltwise, Concat, *CELLWISE)


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
        if isinstance(layer, Input):
            continue
        known = is_local(layer) and found.keys() >= set(layer.bottoms)
        made = _above(layer, [found[bottom] for bottom in layer.bottoms], axis, image) if known else None
        for top in layer.tops:
            found.pop(top, None)
        if made:
            found[layer.tops[0]] = made
    return found


def is_local(layer: Layer) -> bool:
    """Whether the layer may run on a window."""
    if isinstance(layer, Pooling) and (layer.global_pooling or layer.pool != "MAX"):
        return False
    if isinstance(layer, Convolution | Pooling) and any(layer.extent(axis) < layer.stride[axis] for axis in (0, 1)):
        return False  # it passes pixels over: of a small image it may see none
    if isinstance(layer, BatchNorm) and layer.use_global_stats is False:
        return False  # its statistics are those of the whole top
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
    strides: dict[str, int]
    """Of these tops."""

    def window(self, top: str, size: int) -> range:
        """The cells of `top` that are computed for an image of `size`."""
        span, rate = self.windows[top], self.stride // self.strides[top]
        return range(span.start, rate * ((size + self.shift) // self.stride) + span.end + 1)


class Trunk:
    """The layers that run on windows, and the tops that others read of them."""

    def __init__(self, spec: NetSpec) -> None:
        (self.image,) = spec.inputs
        self.spec = spec
        self.layers = self._apart()
        for layer in reversed(self.layers):
            if self._is_cheaper_whole(layer):
                self.layers.remove(layer)
        self.writers = {layer.tops[0]: layer for layer in self.layers if not layer.in_place}
        self.tops = self.writers.keys()
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
        settled = self._settled()
        known, kept = {self.image} & settled, []
        apart = set.intersection(settled, *(self._always_apart(axis) for axis in (0, 1)))
        for layer in self.spec.needed(self.spec.outputs):
            if layer.bottoms and known.issuperset(layer.bottoms) and is_local(layer) and layer.tops[0] in apart:
                known.add(layer.tops[0])
                kept.append(layer)
        return kept

    def _settled(self) -> set[str]:
        """The tops that mean one thing to all who read them: what rewrites them in place is local and comes first.

        An image must stay what it is: blank ones are zero.
        """
        made, read, unsettled = set[str](), set[str](), set[str]()
        for layer in self.spec.layers:
            for top in layer.tops:
                if top in made and not (layer.in_place and is_local(layer) and top not in {self.image, *read}):
                    unsettled.add(top)
                made.add(top)
            if not layer.in_place:
                read.update(layer.bottoms)
        return made - unsettled

    def _always_apart(self, axis: int) -> set[str]:
        stride = math.lcm(*(each.stride for each in self.zones(1, axis).values()))
        found = [{t for t, z in self.zones(size, axis).items() if z.apart} for size in range(1, 2 * stride + 1)]
        return set.intersection(*found)

    def zones(self, size: int, axis: int) -> dict[str, Zones]:
        """Of all tops that local layers make, for an image of `size`."""
        return zones(self.spec.layers, self.image, size, axis)

    def stride(self, axis: int) -> int:
        """Pixels after which all of the tops' cells repeat: branches may have strides of their own."""
        found = self.zones(1, axis)
        return math.lcm(*(found[top].stride for top in self.tops))

    def plans(self) -> tuple[Plan, Plan] | None:
        """The windows of both axes; None where nothing can run on one."""
        if not self.frontier:
            return None
        rows, columns = self.plan(0), self.plan(1)
        return (rows, columns) if rows and columns else None

    def plan(self, axis: int) -> Plan | None:
        """The windows; of the ways to round an image's size that with the smallest frame. None where no way fits.

        Where the image's last cell moves on and where the border's first does are different remainders: a window is as
        long for all of them, so it must end between the two for each.
        """
        stride = self.stride(axis)
        seen = {size: self.zones(size, axis) for size in range(stride, 3 * stride)}
        plans = [plan for shift in range(stride) if (plan := self._plan(axis, stride, shift, seen))]
        if not plans:
            return None
        return min(plans, key=lambda plan: plan.shift + plan.windows[self.image].end - plan.windows[self.image].start)

    def _plan(self, axis: int, stride: int, shift: int, seen: Mapping[int, Mapping[str, Zones]]) -> Plan | None:
        """The windows that follow from what must be pasted; None where one would reach into the border.

        seen: the zones by an image's size, for every remainder.
        """
        one = seen[stride]

        def ends(top: str, what: str) -> list[int]:
            """Zone boundaries, less rate * q, over all remainders."""
            rate = stride // one[top].stride
            return [getattr(zone[top], what) - rate * ((size + shift) // stride) for size, zone in seen.items()]

        needs: dict[str, Span] = {top: Span(one[top].first, max(ends(top, "last"))) for top in self.frontier}
        windows: dict[str, Span] = {}
        for layer in reversed(self.layers):
            top = layer.tops[0]
            if top not in windows:
                least = Span(one[top].first - 1, max(ends(top, "last")) + 1)
                spared = max(least.start - needs[top].start, 0) + max(needs[top].end - least.end, 0)
                windows[top] = needs[top]
                if self._extends(self.writers[top], one[top].stride, spared):
                    windows[top] = Span(max(needs[top].start, least.start), min(needs[top].end, least.end))
                if windows[top].start < one[top].border_end or windows[top].end >= min(ends(top, "border_start")):
                    return None
            if layer.in_place:
                continue
            for bottom in layer.bottoms:
                needs[bottom] = under(layer, windows[top], axis).joined(needs.get(bottom))
        windows[self.image] = needs[self.image]
        return Plan(stride, shift, windows, {top: one[top].stride for top in windows})

    @staticmethod
    def _extends(layer: Layer, stride: int, spared: int) -> bool:
        """Whether a layer's top is kept small, and padded for what reads it: where copying it costs less than the
        `spared` cells. (Convolutions: ONNX Runtime's CPU provider gains from stride 8 on, and at stride 4 no more.)
        """
        if isinstance(layer, Convolution):
            return stride >= 8 and spared >= 3 and max(layer.kernel_size) > 1
        return isinstance(layer, Concat) or (isinstance(layer, Pooling) and max(layer.stride) > 1)


def under(layer: Layer, span: Span, axis: int) -> Span:
    """The cells of a layer's bottom that `span` of its top is made of."""
    if not isinstance(layer, Window):
        return span
    stride, pad, reach = layer.stride[axis], layer.pad[axis], layer.extent(axis) - 1
    return Span(span.start * stride - pad, span.end * stride - pad + reach)
