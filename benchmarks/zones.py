"""Where a net's tops depend on the image, on the outer border, or on nothing: what border elision rests on.

Per top and axis: how many cells there are, before which cell the border's influence ends and from which on it begins
again, and the cells that feel the image. "Feels the image" and "computed" are shares of a top's cells: the second is
what a net with its border elided computes. --draw shows the last top of each stride on the way down.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import charts
from export.trunk import Trunk, Zones
from fcn.cli import BadInput, command, parser
from fcn.files import atomic
from reference import NETS
from reference.layers import Pair
from reference.show import PICTURES, parse_size
from reference.summary import SIZE


@dataclass(frozen=True)
class Region:
    """One top for an image of one size; (rows, columns), each of the two zones."""

    top: str
    zones: tuple[Zones, Zones]
    window: tuple[range, range] | None
    """What an elided net computes of it; None: all."""

    @property
    def image(self) -> tuple[range, range]:
        """The cells that feel the image."""
        rows, columns = (range(max(zone.first, 0), min(zone.last + 1, zone.cells)) for zone in self.zones)
        return rows, columns

    @property
    def border(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """On each axis: before which cell the border's influence ends, from which on it begins again."""
        rows, columns = ((min(zone.border_end, zone.cells), max(zone.border_start, 0)) for zone in self.zones)
        return rows, columns

    def share(self, part: tuple[range, range]) -> float:
        """Of the top's cells."""
        return len(part[0]) * len(part[1]) / (self.zones[0].cells * self.zones[1].cells)

    @property
    def felt(self) -> float:
        return self.share(self.image)

    @property
    def computed(self) -> float:
        return self.share(self.window) if self.window else 1.0


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("zones.py", __doc__ or "", "python benchmarks/zones.py voc-fcn8s --draw fcn8s-zones.png")
    args.add_argument("net", choices=NETS, metavar="NET", help=f"one of {', '.join(NETS)}")
    args.add_argument("--size", metavar="HxW", help="of the image; not given: 375x500")
    args.add_argument("--draw", type=Path, metavar="FILE", help=f"draw it ({' '.join(PICTURES)})")
    options = args.parse_args(argv)
    if options.draw and options.draw.suffix not in PICTURES:
        raise BadInput(f"{options.draw}: give a name that ends in {' or '.join(PICTURES)}")
    size = parse_size(options.size) or SIZE
    found = regions(options.net, size)
    print(table(found))
    if options.draw:
        with atomic(options.draw) as temporary:
            title = f"{options.net}, image of {size[0]}x{size[1]}"
            figure = charts.regions(deepest(found), title)
            figure.savefig(temporary, dpi=150, format=options.draw.suffix[1:], metadata={"Software": None})
        print(options.draw)
    return 0


def regions(net: str, size: Pair) -> list[Region]:
    """Every top whose zones are known, in order. Raises BadInput for a net of two images, or without such tops."""
    spec = NETS[net]().deploy()
    if len(spec.inputs) > 1:
        raise BadInput(f"{net}: takes {len(spec.inputs)} images; its border is not elided")
    trunk = Trunk(spec)
    plans = trunk.plans()
    if not plans:
        raise BadInput(f"{net}: nothing of its border can be elided")
    rows, columns = (trunk.zones(size[axis], axis) for axis in (0, 1))
    found = []
    for top, zone in rows.items():
        spans = [plan.window(top, size[axis]) for axis, plan in enumerate(plans) if top in plan.windows]
        found.append(Region(top, (zone, columns[top]), (spans[0], spans[1]) if spans else None))
    return [region for region in found if region.top != trunk.image]


def deepest(found: Sequence[Region]) -> list[Region]:
    """The last top of each stride on the way down."""
    last: dict[int, Region] = {}
    for region in found:
        if region.zones[0].stride >= max(last, default=1):
            last[region.zones[0].stride] = region
    return list(last.values())


def table(found: Sequence[Region]) -> str:
    """The regions as text."""
    wide = max(len(region.top) for region in found)
    lines = [f"{'':<{wide}} {'stride':>6} {'cells':>11}  {'no border':>19}  {'image':>19}  feels it  computed"]
    for region in found:
        cells = "x".join(str(zone.cells) for zone in region.zones)
        free = ", ".join(f"{end} to {start - 1}" for end, start in region.border)
        image = ", ".join(f"{cells.start} to {cells[-1]}" for cells in region.image)
        lines.append(
            f"{region.top:<{wide}} {region.zones[0].stride:6} {cells:>11}  {free:>19}  {image:>19} "
            f"{region.felt:9.1%} {region.computed:9.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
