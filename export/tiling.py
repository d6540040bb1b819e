"""How an image may be cut so that the parts give what the whole gives, derived from the geometry of the layers.

All tops of a part are tops of the whole, shifted, where the part begins at a multiple of every top's stride. A pixel of
the output is then the whole's, unless a cell that it is made of lies beyond what the part has: beyond its border there
is padding, or nothing, where the whole has more of the image. (At a border that is the image's own the whole has the
same.) How far from the border that ends is the same for every part, since all sizes repeat with that stride.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

from reference.coordinates import NoMap, axis_map, intervals
from reference.layers import Concat, Input, Layer, Pooling, Slice, Softmax
from reference.net import NetSpec
from runtime.metadata import Tiling

MOST = 1 << 20  # pixels of context: nobody's tiles are larger


def tiling(spec: NetSpec) -> tuple[Tiling, Tiling] | None:
    """Of the first output, for height and width; None for a net of several images, or of whose output a pixel depends
    on the whole image, or lies elsewhere than the image's.
    """
    try:
        return _on_axis(spec, 0), _on_axis(spec, 1)
    except NoMap:
        return None


def _on_axis(spec: NetSpec, axis: int) -> Tiling:
    """Raises NoMap where there is none."""
    top, (image, *others) = spec.outputs[0], spec.inputs
    layers = spec.needed((top,))
    if others:
        raise NoMap(f"{spec.name}: takes {len(others) + 1} images")
    scales = _scales(layers, axis)
    if scales[top] != 1:
        raise NoMap(f"{top}: its stride is {scales[top]}")
    stride = math.lcm(*(scale.numerator for scale in scales.values()))

    def begins(pixel: int) -> bool:
        """Whether no cell before the first is asked for."""
        return min(first for first, _ in intervals(layers, top, pixel, axis).values()) >= 0

    low = bisect_left(range(MOST), True, key=begins)
    # A part with room for at least that pixel; any longer one would do.
    size = stride * (intervals(layers, top, low, axis)[image][1] // stride + 2)
    try:
        shapes = NetSpec(spec.name, layers).shapes(**{image: (*spec.shapes()[image][:2], size, size)})
    except ValueError as error:
        raise NoMap(f"{spec.name}: takes no image of {size} x {size} ({error})") from error

    def ends(pixel: int) -> bool:
        """Whether a cell after the last is asked for."""
        return any(last >= shapes[t][2 + axis] for t, (_, last) in intervals(layers, top, pixel, axis).items())

    kept = bisect_left(range(size), True, key=ends)
    if low >= kept or shapes[top][2 + axis] != size:
        raise NoMap(f"{top}: no pixel of it is free of the border")
    return Tiling(stride, low, size - kept)


def _scales(layers: Sequence[Layer], axis: int) -> dict[str, Fraction]:
    """The image's pixels that a cell of each top stands for. Raises NoMap for a layer that looks at the whole image, or
    joins tops of different strides.
    """
    scales: dict[str, Fraction] = {}
    for layer in layers:
        whole = isinstance(layer, Pooling) and layer.global_pooling
        if whole or (isinstance(layer, Concat | Slice | Softmax) and layer.axis != 1):
            raise NoMap(f"{layer.name}: looks at the whole image")
        found = {scales[bottom] for bottom in layer.bottoms}
        if len(found) > 1:
            raise NoMap(f"{layer.name}: its bottoms' strides differ")
        scale = Fraction(1) if isinstance(layer, Input) else found.pop() * axis_map(layer, axis).scale
        scales.update(dict.fromkeys(layer.tops, scale))
    return scales
