"""Where a layer's output lies over its input: crop offsets, strides and receptive fields, derived.

Caffe computes the paper's crop offsets with python/caffe/coord_map.py; the same algebra stands here in exact
fractions, with the intervals of dependence beside it. One axis at a time: 0 is height, 1 is width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from reference.layers import Crop, Deconvolution, Layer, Window


@dataclass(frozen=True)
class AxisMap:
    """Output pixel i is centred over input coordinate scale * i + shift."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def after(self, inner: AxisMap) -> AxisMap:
        """The map of this layer stacked on `inner`: coordinates of this output over inner's input."""
        return AxisMap(inner.scale * self.scale, inner.scale * self.shift + inner.shift)


class NoMap(ValueError):
    """A layer without a coordinate map (InnerProduct), or two tops that share no ancestor."""


def axis_map(layer: Layer, axis: int) -> AxisMap:
    """How `layer`'s output lies over its first bottom. Raises NoMap for a layer that has no such map."""
    if isinstance(layer, Crop):
        return AxisMap(shift=Fraction(layer.offsets()[axis]))
    if isinstance(layer, Window):
        stride = layer.stride[axis]
        centre = Fraction(layer.extent(axis) - 1, 2) - layer.pad[axis]
        if isinstance(layer, Deconvolution):
            return AxisMap(Fraction(1, stride), -centre / stride)
        return AxisMap(Fraction(stride), centre)
    if not layer.pointwise:
        raise NoMap(f"{layer.name}: a {layer.type} layer has no coordinate map")
    return AxisMap()


def dependence(layer: Layer, first: int, last: int, axis: int) -> tuple[int, int]:
    """The interval of input pixels that output pixels first..last depend on, borders ignored."""
    if isinstance(layer, Crop):
        offset = layer.offsets()[axis]
        return first + offset, last + offset
    if isinstance(layer, Window):
        stride, pad, extent = layer.stride[axis], layer.pad[axis], layer.extent(axis)
        if isinstance(layer, Deconvolution):
            return -((extent - 1 - first - pad) // stride), (last + pad) // stride
        return first * stride - pad, last * stride - pad + extent - 1
    if not layer.pointwise:
        raise NoMap(f"{layer.name}: a {layer.type} layer has no coordinate map")
    return first, last


def _bottoms(layer: Layer) -> tuple[str, ...]:
    """The bottoms that coordinates run through: a Crop's second only lends its size."""
    return layer.bottoms[:1] if isinstance(layer, Crop) else layer.bottoms


def maps_to_ancestors(layers: Sequence[Layer], top: str, axis: int) -> dict[str, AxisMap]:
    """The map from `top` to each top below it, nearest first; a layer without a map ends its branch."""
    maps = {top: AxisMap()}
    for layer in reversed(layers):
        for name in layer.tops:
            if name not in maps or not layer.bottoms:
                continue
            try:
                below = maps[name].after(axis_map(layer, axis))
            except NoMap:
                continue
            for bottom in _bottoms(layer):
                maps.setdefault(bottom, below)
    return maps


def relative_map(layers: Sequence[Layer], top: str, over: str, axis: int) -> AxisMap:
    """How the pixels of `top` lie over those of `over`, through their nearest common ancestor.

    Raises NoMap where there is none.
    """
    ours, theirs = maps_to_ancestors(layers, top, axis), maps_to_ancestors(layers, over, axis)
    for name, ancestor in ours.items():
        if name in theirs:
            base = theirs[name]
            return AxisMap(ancestor.scale / base.scale, (ancestor.shift - base.shift) / base.scale)
    raise NoMap(f"{top} and {over} share no ancestor that coordinates lead to")


def crop_offset(layers: Sequence[Layer], top: str, like: str) -> int:
    """The offset at which `top` must be cropped to lie over `like` (coord_map.py: crop).

    Raises NoMap where the strides differ, the offset would be negative, no whole number, or not the same
    for height and width.
    """
    offsets = set()
    for axis in (0, 1):
        relative = relative_map(layers, like, top, axis)
        if relative.scale != 1:
            raise NoMap(f"{top} cannot be cropped to {like}: their strides differ by {relative.scale}")
        offsets.add(relative.shift)
    if len(offsets) > 1 or min(offsets) < 0 or any(offset.denominator != 1 for offset in offsets):
        shown = ", ".join(map(str, sorted(offsets)))
        raise NoMap(f"{top} cannot be cropped to {like}: offset {shown} is not one whole number from 0 up")
    return int(offsets.pop())


def intervals(layers: Sequence[Layer], top: str, pixel: int, axis: int) -> dict[str, tuple[int, int]]:
    """The first and last pixel of every top that `pixel` of `top` depends on, borders ignored."""
    seen = {top: (pixel, pixel)}
    for layer in reversed(layers):
        for name in layer.tops:
            if name not in seen or not layer.bottoms:
                continue
            interval = dependence(layer, *seen[name], axis)
            for bottom in _bottoms(layer):
                first, last = seen.get(bottom, interval)
                seen[bottom] = min(first, interval[0]), max(last, interval[1])
    return seen


def receptive_field(layers: Sequence[Layer], top: str, of: str = "data", axis: int = 0) -> int:
    """Pixels of `of` that one pixel of `top` sees on an axis: the most over all of its phases.

    Below a deconvolution neighbouring pixels see different numbers, repeating with the strides.
    """
    strides = [layer.stride[axis] for layer in layers if isinstance(layer, Deconvolution)]
    widest = 0
    for pixel in range(math.prod(strides)):
        seen = intervals(layers, top, pixel, axis)
        if of not in seen:
            raise NoMap(f"{top} does not depend on {of}")
        widest = max(widest, seen[of][1] - seen[of][0] + 1)
    return widest
