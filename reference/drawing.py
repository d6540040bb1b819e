"""The picture of padding and cropping: the strips of a net over the image, along its width.

All numbers come from `reference.strips`, and those from the layers; none is typed here.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from fcn.files import atomic
from reference.coordinates import dependence
from reference.layers import Crop, Deconvolution, Pooling, Window
from reference.net import NetSpec
from reference.strips import AXIS, Strip, as_classifier, smallest, strips

INK, FAINT, BORDER = "#24292f", "#6e7781", "#57606a"
IMAGE, BAND, PADDING = "#8fbdea", "#e6f0fa", "#eceef1"
POOLED, SCORED, WASTE = "#c3c9d2", "#f4b860", "#cf3c2e"
STYLE: Any = {  # (Any: matplotlib types its keys as literals)
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 8.5,
    "text.color": INK,
    "hatch.linewidth": 0.8,
    "svg.hashsalt": "fcn",
}
# Inches: the picture's width, where the strips begin and end in it, and heights.
WIDTH, LEFT, RIGHT = 8.5, 1.68, 6.76
ROW, LINE, GAP = 0.37, 0.175, 0.34
COLUMNS = {"pixels": 7.36, "stride": 7.86, "offset": 8.42}  # figures beside a strip, and where they end
BAR = 0.3  # half of a bar's height, in rows
FINE = 1 / 230  # pixels that are a smaller share of the view are drawn without borders


@dataclass(frozen=True)
class Panel:
    """Some rows of a list of strips, with what they show. footer: a second text, below."""

    strips: list[Strip]
    rows: list[int]
    title: str
    footer: str = ""

    @property
    def head(self) -> float:
        """Inches of the title."""
        return LINE * len(self.title.splitlines()) + GAP

    @property
    def foot(self) -> float:
        """Inches of the footer."""
        return LINE * len(self.footer.splitlines()) + GAP * bool(self.footer)

    @property
    def height(self) -> float:
        """Inches of the whole."""
        return self.head + ROW * len(self.rows) + self.foot


def draw(spec: NetSpec, width: int) -> Figure:
    """The strips of the net over an image of `width` pixels. Raises ValueError for nets that `strips` refuses.

    A net without skips has a panel above: what would become of the image with a classifier's padding.
    """
    own = strips(spec, width)
    panels = [Panel(own, list(range(len(own))), _title(spec, own), _sum(own))]
    if all(strip.added is None for strip in own) and (plain := _classifier(spec, width)):
        panels.insert(0, plain)
    spans = [panel.strips[row].span for panel in panels for row in panel.rows]
    view = min(start for start, _ in spans) - 4, max(end for _, end in spans) + 4
    height = sum(panel.height for panel in panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        top = height
        for panel in panels:
            rows = ROW * len(panel.rows)
            bottom = top - panel.head - rows
            ax = figure.add_axes((LEFT / WIDTH, bottom / height, (RIGHT - LEFT) / WIDTH, rows / height))
            ax.set(xlim=view, ylim=(len(panel.rows) - 0.5, -0.5))
            ax.axis("off")
            figure.text(0.012, (top - 0.12) / height, panel.title, va="top", fontsize=9.5, weight="bold")
            figure.text(0.012, (bottom - 0.1) / height, panel.footer, va="top", linespacing=1.5)
            for name, end in COLUMNS.items():
                figure.text(
                    end / WIDTH, (top - panel.head + 0.03) / height, name, ha="right", color=FAINT, fontsize=7.5
                )
            _draw_panel(ax, panel, width)
            top -= panel.height
    return figure


def save(path: Path, spec: NetSpec, width: int) -> None:
    """Draw and write; the format follows the suffix (.png, .svg or .pdf). A PNG and an SVG hold `facts` too.

    Raises ValueError for nets that cannot be drawn.
    """
    figure = draw(spec, width)
    metadata: dict[str, str | None] = {"Description": facts(spec, width)} if path.suffix in (".png", ".svg") else {}
    if path.suffix == ".svg":
        metadata["Date"] = None  # the same net gives the same file
    with atomic(path) as temporary, matplotlib.rc_context(STYLE):
        figure.savefig(temporary, dpi=200, metadata=metadata)


def facts(spec: NetSpec, width: int) -> str:
    """What the picture shows, as JSON: by it a committed picture is known to be of today's net."""
    shown = [
        {"top": s.tops[0], "pixels": s.count, "apart": float(s.place.scale), "first": s.first, "cut": s.cut}
        for s in strips(spec, width)
    ]
    return json.dumps({"net": spec.name, "width": width, "strips": shown})


# --- words --------------------------------------------------------------------------------------------------


def _title(spec: NetSpec, own: Sequence[Strip]) -> str:
    image, last = own[0], own[-1]
    title = f"The image padded by {image.pad}"
    if last.cut and last.place.scale == 1:
        crop, aside = last.cut[0], last.place.shift
        title += f": the upsampled scores begin {crop - aside} pixels outside of it.\nCropped by {crop}, score pixel i "
        if aside:  # a definition's own mistake: the offsets that `Builder.crop` derives are right
            title += f"lies over image pixel i {'+' if aside > 0 else '-'} {abs(aside)}; {crop - aside} would be right."
        else:
            least = smallest(spec)
            title += f"lies over image pixel i. This holds for every image from {least}x{least} pixels up."
    if skips := [strip for strip in own if strip.added is not None and strip.cut]:
        names = " and ".join(own[strip.source or 0].tops[-1] for strip in skips)
        counts = " and ".join(str(strip.cut[0]) for strip in skips if strip.cut)
        right = all(strip.place == own[strip.added or 0].place for strip in skips)
        title += f"\n{names}, cropped by {counts} of their own pixels, "
        title += f"{'lie' if right else 'do NOT lie'} over what they are added to."
    return title


def _classifier(spec: NetSpec, width: int) -> Panel | None:
    """The panel of the image with little padding: which part of it the scores do not reach. None where they do."""
    plain = as_classifier(spec)
    pad = next(layer.pad[AXIS] for layer in plain.layers if isinstance(layer, Window))
    title = f"The image padded by {pad}, half of the first kernel:"
    least = f"an image below {smallest(plain)} pixels gets none at all."
    try:
        found = strips(plain, width)
    except ValueError:
        return Panel([replace(strips(spec, width)[0], pad=pad)], [0], f"{title} no score,\nfor {least}")
    if found[-1].first <= 0:
        return None
    title += (
        f" the upsampled scores begin {found[-1].first:g} pixels inside of it.\n"
        f"No crop can mend that: what is hatched gets no score, and {least}"
    )
    return Panel(found, [0, *range(max(1, len(found) - 3), len(found))], title)


def _sum(own: Sequence[Strip]) -> str:
    """Where the first pixel of every strip on the way to the scores lies, as a sum of steps."""
    way = [own[-1]]
    while (source := way[0].source) is not None:
        way.insert(0, own[source])
    terms: list[tuple[float, list[str]]] = [(way[0].first, ["padding"])]
    for below, strip in itertools.pairwise(way):
        if isinstance(strip.layer, Crop):
            continue
        step, names = strip.first - below.first, [strip.tops[0]]
        if below is own[0]:
            names = [*below.tops[1:2], *names]  # the padded convolution shares the image's strip
        if isinstance(strip.layer, Pooling) and isinstance(below.layer, Pooling):
            terms[-1] = terms[-1][0] + step, [*terms[-1][1], *names]
        else:
            terms.append((step, names))
    told = []
    for step, names in terms:
        which = ", ".join(names) if len(names) < 3 else f"{names[0]}, {names[1]} \N{EN DASH} {names[-1]}"
        told.append(f"{'+' if step >= 0 else '-'} {abs(step):g} ({which})")
    last = way[-1]
    total = f"{way[-2].first:g}, so crop {last.cut[0]}" if last.cut else f"{last.first:g}"
    words = textwrap.fill(f"{' '.join(told).replace('- ', '-', 1)} = {total}", 130)
    return f"Offset: where the first pixel of a row is centred (dots), in image pixels.\n{_minus(words)}"


def _minus(text: str) -> str:
    """Hyphens of numbers as minus signs, which can be seen."""
    return re.sub(r"-(?= ?\d)", "\N{MINUS SIGN}", text)


def _names(strip: Strip, own: Sequence[Strip]) -> tuple[str, str]:
    """What stands left of a strip: its top's name, and how it was made."""
    layer = strip.layer
    if isinstance(layer, Crop):
        source = own[strip.source or 0].tops[-1]
        return strip.tops[0], f"crop of {source}" + (", added" if strip.added is not None else "")
    if not isinstance(layer, Window):
        return strip.tops[0], "image and padding"
    kernel = f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
    if isinstance(layer, Pooling):
        return strip.tops[0], f"{kernel} pooling"
    if isinstance(layer, Deconvolution):
        return strip.tops[0], f"{kernel} deconvolution"
    return " \N{HORIZONTAL ELLIPSIS} ".join(dict.fromkeys((strip.tops[0], strip.tops[-1]))), f"{kernel} convolution"


# --- marks --------------------------------------------------------------------------------------------------


def _draw_panel(ax: Axes, panel: Panel, width: int) -> None:
    start, end = panel.strips[0].reach(0, width - 1)
    ax.add_patch(Rectangle((start, -0.5), end - start, len(panel.rows), color=BAND, lw=0, zorder=0))
    for edge in (start, end):
        ax.plot([edge, edge], [-0.5, len(panel.rows) - 0.5], color=IMAGE, lw=0.8, ls=(0, (4, 2)), zorder=5)
    for row, index in enumerate(panel.rows):
        strip = panel.strips[index]
        _draw_strip(ax, row, strip, panel.strips)
        if strip.source in panel.rows:
            _draw_reach(ax, panel.rows.index(strip.source), row, strip, panel.strips[strip.source])
        _write(ax, row, strip, panel.strips)
    if panel.footer:
        _draw_way(ax, panel)
    elif len(panel.rows) > 1:
        _draw_missing(ax, len(panel.rows) - 1, panel.strips[-1], (start, end))


def _bar(ax: Axes, row: int, start: float, end: float, **look: Any) -> None:
    ax.add_patch(Rectangle((start, row - BAR), end - start, 2 * BAR, **look))


def _draw_strip(ax: Axes, row: int, strip: Strip, own: Sequence[Strip]) -> None:
    if strip.source is None:
        _bar(ax, row, *strip.span, facecolor=PADDING, edgecolor=BORDER, hatch="....", lw=0.6)
        _bar(ax, row, *strip.reach(0, strip.count - 1), facecolor=IMAGE, edgecolor=BORDER, lw=0.6)
        return
    whole = strip
    if strip.cut:
        whole = own[strip.source]
        _bar(ax, row, *whole.span, facecolor="white", edgecolor=WASTE, hatch="/////", lw=0)
    colour = POOLED if isinstance(strip.layer, Pooling) else SCORED
    _bar(ax, row, *strip.span, facecolor=colour, edgecolor="none", zorder=2)
    _bar(ax, row, *whole.span, facecolor="none", edgecolor=BORDER, lw=0.6, zorder=3)
    low, high = ax.get_xlim()
    if float(whole.place.scale) > (high - low) * FINE:
        borders = [whole.reach(i, i)[0] for i in range(1, whole.count)]
        ax.vlines(borders, row - BAR, row + BAR, color=BORDER, lw=0.5, zorder=3)


def _draw_reach(ax: Axes, above: int, row: int, strip: Strip, source: Strip) -> None:
    """What the first and the last pixel of a convolution read; where those of a deconvolution's bottom go."""
    layer = strip.layer
    if isinstance(layer, Pooling) or not isinstance(layer, Window):
        return
    for at_end in (False, True):
        if isinstance(layer, Deconvolution):
            one = source.count - 1 if at_end else 0
            extent = min(layer.extent(AXIS) - layer.pad[AXIS], strip.count)
            upper = source.reach(one, one)
            lower = strip.reach(strip.count - extent, strip.count - 1) if at_end else strip.reach(0, extent - 1)
        else:
            one = strip.count - 1 if at_end else 0
            first, last = dependence(layer, one, one, AXIS)
            upper = source.reach(max(first, -source.pad), min(last, source.count - 1 + source.pad))
            lower = strip.reach(one, one)
        corners = [(upper[0], above + BAR), (upper[1], above + BAR), (lower[1], row - BAR), (lower[0], row - BAR)]
        ax.add_patch(Polygon(corners, color=SCORED, alpha=0.45, lw=0, zorder=1))


def _draw_missing(ax: Axes, row: int, strip: Strip, image: tuple[float, float]) -> None:
    """The parts of the image over which a strip does not reach."""
    for start, end in ((image[0], strip.span[0]), (strip.span[1], image[1])):
        if start < end:
            _bar(ax, row, start, end, facecolor="white", edgecolor=WASTE, hatch="xxxx", lw=0.6)
            _tell(ax, row, (start + end) / 2, f"{end - start:g}", WASTE)


def _draw_way(ax: Axes, panel: Panel) -> None:
    """The first pixel's centre, from strip to strip."""
    for row, index in enumerate(panel.rows):
        strip = panel.strips[index]
        ax.plot([strip.first], [row], "o", color=INK, ms=3.2, zorder=7, clip_on=False)
        if strip.source is not None and strip.added is None:
            source = panel.strips[strip.source]
            ax.plot([source.first, strip.first], [strip.source, row], color=INK, lw=0.9, zorder=6)


def _tell(ax: Axes, row: int, place: float, text: str, colour: str = INK) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
    ax.text(place, row, text, ha="center", va="center", color=colour, fontsize=8, bbox=box, zorder=8)


def _write(ax: Axes, row: int, strip: Strip, own: Sequence[Strip]) -> None:
    """Names to the left, figures to the right, and what is added or cut off in its place."""
    name, how = _names(strip, own)
    beside: Any = {"transform": ax.get_yaxis_transform(), "va": "center"}
    ax.text(-0.02, row - 0.14, name, ha="right", weight="bold", fontsize=8.5, **beside)
    ax.text(-0.02, row + 0.24, how, ha="right", color=FAINT, fontsize=7.5, **beside)
    figures = (
        f"{strip.count + 2 * strip.pad}",
        f"{float(strip.place.scale):g}",
        _minus(f"{strip.first:g}"),
    )
    for end, figure in zip(COLUMNS.values(), figures, strict=True):
        ax.text((end - LEFT) / (RIGHT - LEFT), row, figure, ha="right", **beside)
    if strip.pad:
        for start, end in (
            (strip.span[0], strip.reach(0, 0)[0]),
            (strip.reach(0, strip.count - 1)[1], strip.span[1]),
        ):
            if end - start > 4:
                _tell(ax, row, (start + end) / 2, f"{strip.pad}")
        ax.text(sum(strip.reach(0, strip.count - 1)) / 2, row, f"{strip.count}", ha="center", va="center")
    if strip.cut:
        whole = own[strip.source or 0]
        for count, (start, end) in zip(
            strip.cut, ((whole.span[0], strip.span[0]), (strip.span[1], whole.span[1])), strict=True
        ):
            if count:
                _tell(ax, row, (start + end) / 2, f"{count}", WASTE)
