"""A net's tops as strips over one axis of the image: what `reference.drawing` draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reference.coordinates import AxisMap, axis_map
from reference.layers import Convolution, Crop, Deconvolution, Eltwise, Input, Layer, Shape, Window
from reference.net import NetSpec

AXIS = 1  # width


@dataclass(frozen=True)
class Strip:
    """Tops whose pixels lie at the same places over the image; `layer` makes the first of them.

    Pixel i of `count` is centred over image pixel place.scale * i + place.shift. source: index of the strip that
    `layer` reads, None for the image. pad: what the first layer adds on either side of the image. cut: what a Crop
    layer takes off its source, in pixels of it, before and after. added: index of the strip that an Eltwise layer
    adds this one to.
    """

    tops: tuple[str, ...]
    layer: Layer
    place: AxisMap
    count: int
    source: int | None = None
    pad: int = 0
    cut: tuple[int, int] | None = None
    added: int | None = None

    @property
    def first(self) -> float:
        """Centre of the first pixel; for the image, of the first pixel of its padding."""
        return float(self.place.shift) - self.pad

    def reach(self, first: int, last: int) -> tuple[float, float]:
        """Where pixels first to last begin and end: image pixel i reaches from i - 0.5 to i + 0.5."""
        start, end = (self.place.scale * (2 * i + side) / 2 + self.place.shift for i, side in ((first, -1), (last, 1)))
        return float(start), float(end)

    @property
    def span(self) -> tuple[float, float]:
        """Where the strip begins and ends, padding included."""
        return self.reach(-self.pad, self.count - 1 + self.pad)


def strips(spec: NetSpec, width: int) -> list[Strip]:
    """The strips of the tops that lead to the scores of an image of `width`, in the layers' order.

    Of several bottoms the first decides a top's place. A top that lies as its bottom does joins that strip; so do
    first convolutions of stride 1, for the image's strip shows their padding. Raises ValueError for a net that has
    several inputs or scores, that upsamples nothing, or that cannot take the size.
    """
    layers = spec.needed(spec.outputs)
    data, *others = (layer for layer in layers if isinstance(layer, Input))
    if others or len(spec.outputs) > 1 or not any(isinstance(layer, Deconvolution) for layer in layers):
        raise ValueError("only nets that upsample the scores of one image can be drawn")
    name, shapes = data.tops[0], _shapes(spec, width)
    pad = next((layer.pad[AXIS] for layer in layers if isinstance(layer, Window) and name in layer.bottoms), 0)
    found = [Strip((name,), data, AxisMap(), width, pad=pad)]
    home, places = {name: 0}, {name: AxisMap()}
    for layer in layers:
        top = layer.tops[0]
        if top in home:  # the input, and layers that work in place
            continue
        places[top] = axis_map(layer, AXIS).after(places[layer.bottoms[0]])
        place, count = places[top], shapes[top][2 + AXIS]
        source = home[layer.bottoms[0]]
        below = found[source]
        first = isinstance(layer, Convolution) and below.layer is data and layer.stride[AXIS] == 1
        if first or (place, count) == (below.place, below.count):
            found[source] = replace(below, tops=(*below.tops, top))
            home[top] = source
        else:
            cut = None
            if isinstance(layer, Crop):
                before = layer.offsets()[AXIS]
                cut = before, below.count - before - count
            home[top] = len(found)
            found.append(Strip((top,), layer, place, count, source, cut=cut))
        if isinstance(layer, Eltwise):
            for strip in {home[bottom] for bottom in layer.bottoms} - {home[top]}:
                found[strip] = replace(found[strip], added=home[top])
    return found


def _shapes(spec: NetSpec, width: int) -> dict[str, Shape]:
    layers = spec.needed(spec.outputs)
    sizes = {x.tops[0]: (*x.shape[:2], width, width) for x in layers if isinstance(x, Input)}
    return replace(spec, layers=layers).shapes(**sizes)


def smallest(spec: NetSpec, largest: int = 1024) -> int:
    """The least width (and height) of an image that the net takes. Raises ValueError where `largest` is too small."""
    for width in range(1, largest + 1):
        try:
            _shapes(spec, width)
        except ValueError:
            continue
        return width
    raise ValueError(f"{spec.name} takes no image of up to {largest} pixels")


def as_classifier(spec: NetSpec) -> NetSpec:
    """The net up to its last upsampling with the image padded as a classifier's is: by half of the first kernel."""
    (output,) = spec.outputs
    last = next(layer for layer in spec.layers if output in layer.tops)
    layers = list(spec.needed(last.bottoms[:1] if isinstance(last, Crop) else (output,)))
    index, first = next((i, layer) for i, layer in enumerate(layers) if isinstance(layer, Window))
    layers[index] = replace(first, pad=((first.extent(0) - 1) // 2, (first.extent(1) - 1) // 2))
    return NetSpec(spec.name, tuple(layers))
