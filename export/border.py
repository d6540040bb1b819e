"""Border elision, Net -> Net: inference that does not pay for the padding, and computes the same.

The nets pad their image by 100 zeros on every side. Far from the image, features do not depend on it: there is one
constant vector a layer, and near the outer border what zeros beyond it make of the biases. So the trunk runs on a
window around the image only, and what lies outside is taken from a table that was filled once, at export. All numbers
are derived from the geometry of the layers (export/trunk.py); docs/border.md has the argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from export.pasting import EdgePad, Frame, Paste
from export.trunk import Plan, Trunk, under, zones
from reference.layers import Convolution, Input, Layer, Pair, Pooling, Window
from reference.net import Net, NetSpec, module_name
from reference.summary import summarise

WINDOW = "@window"
"""What the names of tops that hold a window only end in."""
WORTH = 0.05
"""Share of the multiply-adds that must go. (Of a SqueezeNet that is padded by 10 pixels nothing does.)"""
BORDERS = KEEP, ELIDE = "keep", "elide"


def whole_tops(spec: NetSpec) -> list[str]:
    """The tops that an elided net still computes whole, in order."""
    trunk = Trunk(spec) if len(spec.inputs) == 1 else None
    within = trunk.tops - set(trunk.frontier) if trunk else set()
    return [top for top in spec.tops if top not in within]


def elide(net: Net, least: float = WORTH) -> Net:
    """The same function of its input, run on a window around the image as far as that is exact.

    Weights are shared with `net`. A net of which nothing can be elided is given back as it is, and so is one that would
    not be spared the share `least` of its multiply-adds: pasting costs too. On the CPU, and in inference only: in
    training, gradients flow into the weights from the border too.
    """
    if len(net.spec.inputs) != 1:
        return net
    trunk = Trunk(net.spec)
    plans = trunk.plans()
    if not plans:
        return net
    made = Net(NetSpec(net.spec.name, tuple(_layers(trunk, plans))))
    pastes = {layer.tops[0]: layer for layer in made.spec.layers if isinstance(layer, Paste)}
    part = all(_borders_part(trunk.layers, trunk.image, pastes, axis, trunk.stride(axis)) for axis in (0, 1))
    whole, less = _multiply_adds(net.spec, made.spec)
    if not part or less > (1 - least) * whole:
        return net
    state = net.state_dict()
    tables = _tables(net, trunk, pastes)
    made.load_state_dict(state | tables, assign=True)
    return made.eval().requires_grad_(False)


def _multiply_adds(*specs: NetSpec) -> list[int]:
    """At 375x500, or at the first one's declared size where that does not fit it; deconvolutions aside: those outweigh
    a narrow net's trunk, and nobody computes their zeros.
    """
    try:
        size = summarise(specs[0]).size
    except ValueError:
        _, _, height, width = specs[0].shapes()[specs[0].inputs[0]]
        size = height, width
    rows = [summarise(spec, size).rows for spec in specs]
    return [sum(row.multiply_adds for row in each if "Deconvolution" not in row.types) for each in rows]


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
                    padded[key] = f"{named[bottom]}/edge{len(padded) + 1}"
                    made.append(
                        EdgePad(
                            name=padded[key],
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
        name=f"{image}@frame",
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
                whole = blank[top][index].permute(1, 2, 0)
                tables[top][0, rows[0][:, None], columns[0]] = whole[rows[1][:, None], columns[1]]
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
            blobs = net.layer(layer.name).state_dict()
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
