"""A net as a table: what each layer makes, what it costs, and where it lies over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from reference.coordinates import AxisMap, NoMap, maps_to_ancestors, receptive_field
from reference.layers import Crop, Deconvolution, InnerProduct, Input, Layer, Pair, Shape, Window

if TYPE_CHECKING:  # the net offers its own summary
    from reference.net import NetSpec

SIZE = (375, 500)  # of most PASCAL VOC images
# Below deconvolutions `receptive_field` tries the product of their strides; 32 in the paper's nets. More than this is
# no segmentation net, and would take minutes.
PHASES = 512


@dataclass(frozen=True)
class Row:
    """One top: the layer that makes it, and those that then work on it in place (ReLU, Dropout).

    Pairs are (height, width); None where a layer has no window, or no place over an image. stride is the layer's
    own, total_stride the image pixels between two neighbours of this top. Centres: pixel (0, 0) of this top is
    centred over image pixel `offset`. receptive_field: image pixels that one pixel sees. crop: first row and column
    that a Crop layer takes. multiply_adds: of the layer's weights with one image, as Caffe computes them (a bilinear
    deconvolution as a full one).
    """

    name: str
    layers: tuple[str, ...]
    types: tuple[str, ...]
    kernel_size: Pair | None
    stride: Pair | None
    pad: Pair | None
    output: Shape
    parameters: int
    frozen: int
    multiply_adds: int
    total_stride: tuple[float, float] | None
    receptive_field: Pair | None
    offset: tuple[float, float] | None
    crop: Pair | None


@dataclass(frozen=True)
class Summary:
    """The rows of a net for one image of `size` (height, width), and their totals; it prints as a table."""

    net: str
    size: Pair
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(row.parameters for row in self.rows)

    @property
    def without_deconvolution(self) -> int:
        """Weights and biases as the paper's table 1 counts them."""
        return sum(row.parameters for row in self.rows if "Deconvolution" not in row.types)

    @property
    def multiply_adds(self) -> int:
        """Of all layers' weights with one image."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def coarsest(self) -> Row | None:
        """The last of the tops with the largest stride: the paper's table 1 gives its stride and receptive field."""
        placed = [row for row in self.rows if row.total_stride and row.receptive_field]
        return max(reversed(placed), key=lambda row: row.total_stride or (), default=None)

    def to_json(self) -> dict[str, Any]:
        """Rows and totals as plain data."""
        totals = {name: getattr(self, name) for name in ("parameters", "without_deconvolution", "multiply_adds")}
        return {"net": self.net, "size": self.size, **totals, "layers": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        lines = _table([HEADER, *(_cells(row) for row in self.rows)])
        lines.insert(1, "-" * len(lines[0]))
        frozen = sum(row.frozen for row in self.rows)
        lines += [
            "",
            f"{self.net}, image {'x'.join(map(str, self.size))}; stride, receptive field and offset in its pixels",
            f"parameters      {self.parameters:,} ({frozen:,} frozen; "
            f"{self.without_deconvolution:,} without deconvolutions)",
            f"multiply-adds   {_short(self.multiply_adds)}",
        ]
        if row := self.coarsest:
            place = f"stride {_pair(row.total_stride)}, receptive field {_pair(row.receptive_field)}"
            lines.append(f"coarsest top    {row.name}: {place}")
        return "\n".join(lines)


def summarise(spec: NetSpec, size: Pair | None = None) -> Summary:
    """The table of a net for one image of `size`; not given: 375x500, or what a fully connected layer needs.

    Raises ValueError for a size that the net cannot take, and for a net without images (N x C x H x W).
    """
    declared = spec.shapes()
    if not spec.inputs or len(declared[spec.inputs[0]]) != 4:
        raise ValueError(f"{spec.name} takes no images (N x C x H x W)")
    flat = any(isinstance(layer, InnerProduct) for layer in spec.layers)
    given = {
        layer.tops[0]: (1, layer.shape[1], *(size or SIZE))
        for layer in spec.layers
        if isinstance(layer, Input) and len(layer.shape) == 4 and (size or not flat)
    }
    shapes = spec.shapes(**given)
    groups: dict[str, list[Layer]] = {}
    for layer in spec.layers:
        if layer.blob_shapes(*(shapes[b] for b in layer.bottoms)) != _blobs(layer, declared):
            height, width = declared[spec.inputs[0]][2:]
            raise ValueError(f"{layer.name} is fully connected: {spec.name} takes images of {height}x{width} only")
        for top in layer.tops:
            groups.setdefault(top, []).append(layer)
    rows = tuple(_row(spec, top, layers, shapes, declared) for top, layers in groups.items())
    height, width = shapes[spec.inputs[0]][2:]
    return Summary(spec.name, (height, width), rows)


def _row(spec: NetSpec, top: str, layers: Sequence[Layer], shapes: dict[str, Shape], declared: dict[str, Shape]) -> Row:
    maker = layers[0]
    window = maker if isinstance(maker, Window) else None
    counts = [
        (math.prod(shape), layer.param(i).lr_mult == 0)
        for layer in layers
        for i, shape in enumerate(_blobs(layer, declared).values())
    ]
    height, width = (_over_image(spec, top, axis) for axis in (0, 1))
    return Row(
        name=top,
        layers=tuple(layer.name for layer in layers),
        types=tuple(layer.type for layer in layers),
        kernel_size=window.kernel_size if window else None,
        stride=window.stride if window else None,
        pad=window.pad if window else None,
        output=shapes[top],
        parameters=sum(count for count, _ in counts),
        frozen=sum(count for count, frozen in counts if frozen),
        multiply_adds=sum(_multiply_adds(layer, shapes, declared) for layer in layers),
        total_stride=height and width and (float(height[0].scale), float(width[0].scale)),
        receptive_field=height and width and (height[1], width[1]),
        offset=height and width and (float(height[0].shift), float(width[0].shift)),
        crop=maker.offsets() if isinstance(maker, Crop) else None,
    )


def _blobs(layer: Layer, declared: dict[str, Shape]) -> dict[str, Shape]:
    return layer.blob_shapes(*(declared[bottom] for bottom in layer.bottoms))


def _multiply_adds(layer: Layer, shapes: dict[str, Shape], declared: dict[str, Shape]) -> int:
    """Every weight is used once at every place of the top; a deconvolution's at every place of the bottom."""
    weight = _blobs(layer, declared).get("weight")
    if weight is None:
        return 0
    images, _, *places = shapes[layer.bottoms[0] if isinstance(layer, Deconvolution) else layer.tops[0]]
    return math.prod(weight) * images * math.prod(places)


def _over_image(spec: NetSpec, top: str, axis: int) -> tuple[AxisMap, int] | None:
    """The map of `top` over the first input that it leads to, and its receptive field there; None without one."""
    layers = spec.needed((top,))
    if math.prod(layer.stride[axis] for layer in layers if isinstance(layer, Deconvolution)) > PHASES:
        return None
    maps = maps_to_ancestors(layers, top, axis)
    for name in spec.inputs:
        if name in maps:
            try:
                return maps[name], receptive_field(layers, top, of=name, axis=axis)
            except NoMap:
                return None
    return None


# --- as text ------------------------------------------------------------------------------------------------

HEADER = (
    *("top", "layers", "kernel/stride/pad", "output", "parameters", "multiply-adds"),
    *("stride", "receptive field", "offset", "crop"),
)
LEFT = 2  # columns that begin at the left


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        ", ".join(row.types),
        "/".join(_pair(pair) for pair in (row.kernel_size, row.stride, row.pad) if pair),
        " x ".join(map(str, row.output[1:])),
        f"{row.parameters:,}" if row.parameters else "",
        _short(row.multiply_adds) if row.multiply_adds else "",
        *map(_pair, (row.total_stride, row.receptive_field, row.offset, row.crop)),
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i < LEFT else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _pair(pair: tuple[float, ...] | None) -> str:
    """A pair as one number where both are equal; fractions with their decimals."""
    return "x".join(f"{value:g}" for value in dict.fromkeys(pair or ()))


def _short(number: float) -> str:
    """Four digits and a unit: 1.234 G."""
    for unit in ("", " k", " M", " G"):
        if number < 1000 or unit == " G":
            break
        number /= 1000
    return f"{number:.4g}{unit}"
