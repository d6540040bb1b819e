"""Charts as matplotlib figures (no display needed), and as SVG that takes the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

if TYPE_CHECKING:  # it draws with this module
    from benchmarks.zones import Region

INK = "#4a4f57"  # text and axes; in a page it becomes the page's text colour
COLOURS = {"32s": "#d9822b", "16s": "#3f8fd2", "8s": "#2a9d6f"}  # told apart on white and on black
STYLE: Any = {  # (Any: matplotlib types its keys as literals)
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # letters stay text: smaller, selectable, and in the page's font
    "svg.hashsalt": "fcn",  # the same figures give the same file
}


def latency(figures: Mapping[str, Any]) -> Figure:
    """Medians as bars, with marks at the 90th and 99th percentile; one panel a shape. figures: of latency.json."""
    net = f"{figures['net']} ({figures['megabytes']:g} MB)"
    panels = {f"{at['batch']} x {at['height']}x{at['width']}": at["rows"] for at in figures["sizes"]}
    return _bars(panels, f"{net}: ms, median | p90 | p99", lambda row: row["begins_with"] == "image")


def border(figures: Mapping[str, Any]) -> Figure:
    """As `latency`, one panel a net and size, elided contenders in another colour. figures: of border.json."""
    panels = {f"{at['net']}, {at['height']}x{at['width']}": at["rows"] for at in figures["cases"]}
    what = f"{figures['device']}, {figures['threads']} threads"
    columns = 2 if len(panels) > 1 else 1
    return _bars(panels, f"{what}: ms, median | p90 | p99", lambda row: row["border"] == "elide", columns)


def _bars(
    panels: Mapping[str, Sequence[Mapping[str, Any]]],
    title: str,
    differs: Callable[[Mapping[str, Any]], bool],
    columns: int = 1,
) -> Figure:
    """One panel each; the rows that differ have another colour."""
    tallest, down = max(map(len, panels.values())), -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        size = 5.2 * columns, (0.5 + 0.42 * tallest) * down + 0.5
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        places = [*figure.subplots(down, columns, squeeze=False).flat]
        for ax in places[len(panels) :]:
            ax.axis("off")
        for ax, (name, rows) in zip(places, panels.items(), strict=False):
            for place, row in enumerate(rows):
                colour = COLOURS["8s"] if differs(row) else COLOURS["16s"]
                ax.barh(place, row["median_ms"], height=0.62, color=colour, alpha=0.85)
                ax.plot([row["median_ms"], row["p99_ms"]], [place, place], color=INK, lw=1)
                ax.plot([row["p90_ms"], row["p99_ms"]], [place, place], "|", color=INK, ms=7)
                label = {"textcoords": "offset points", "va": "center"}
                ax.annotate(f"{row['median_ms']:.4g}", (row["p99_ms"], place), (6, 0), **label)
            ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
            ax.invert_yaxis()
            ax.set_xlim(0, 1.2 * max(row["p99_ms"] for row in rows))  # room for the last label
            ax.tick_params(axis="y", length=0)
            ax.set_title(name, fontsize=9, loc="left", color=INK)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def regions(found: Sequence[Region], title: str) -> Figure:
    """Each top as a map of its cells: what feels the image, what the outer border, and what an elided net computes."""
    colours = {"feels the image": COLOURS["16s"], "feels the border": COLOURS["32s"], "feels neither": "#e3e6ea"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.62 * len(found), 2.35), layout="constrained", facecolor="white")
        for ax, region in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            rows, columns = (zone.cells for zone in region.zones)
            border, free, image = colours["feels the border"], colours["feels neither"], region.image
            (top, bottom), (left, right) = region.border
            ax.add_patch(Rectangle((0, 0), columns, rows, color=border, lw=0))
            if top < bottom and left < right:
                ax.add_patch(Rectangle((left, top), right - left, bottom - top, color=free, lw=0))
            part = Rectangle((image[1].start, image[0].start), len(image[1]), len(image[0]))
            part.set(facecolor=colours["feels the image"], lw=0)
            ax.add_patch(part)
            if region.window:
                down, across = region.window
                around = Rectangle((across.start, down.start), len(across), len(down), fill=False, ec=INK, lw=1.2)
                ax.add_patch(around)
            ax.set(xlim=(-0.01 * columns, 1.01 * columns), ylim=(1.01 * rows, -0.01 * rows), aspect="equal", anchor="N")
            ax.axis("off")
            ax.set_title(f"{region.top}\n{rows}x{columns}\n{region.felt:.0%}", fontsize=8.5, color=INK)
        handles = [Rectangle((0, 0), 1, 1, color=colour, lw=0, label=name) for name, colour in colours.items()]
        handles.append(Rectangle((0, 0), 1, 1, fill=False, ec=INK, lw=1.2, label="computed where the border is elided"))
        told = f"{title}: of each top its cells, and the share that feels the image"
        about = {"title": told, "title_fontsize": 8.5, "alignment": "left"}
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=8, **about)
    return figure


def curves(stages: Mapping[str, Sequence[Mapping[str, float]]], key: str, title: str, mean_of: int = 1) -> Figure:
    """One column of the stages' tables against iterations, stage after stage on one axis.

    stages: by stride ("32s", ...), rows with `iteration`. mean_of: draw the running mean of so many rows, and
    the rows themselves faintly.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        ax: Axes = figure.subplots()
        before = 0.0
        for stride, rows in stages.items():
            x, y = [before + row["iteration"] for row in rows], [row[key] for row in rows]
            if mean_of > 1:
                ax.plot(x, y, color=COLOURS[stride], lw=0.8, alpha=0.35)
                y = [sum(y[max(0, i + 1 - mean_of) : i + 1]) / min(i + 1, mean_of) for i in range(len(y))]
            marker = "o" if len(x) < 30 else ""
            ax.plot(x, y, marker=marker, ms=3.5, color=COLOURS[stride], lw=1.8, label=stride, clip_on=False)
            if before:
                ax.axvline(before, color=INK, lw=0.6, alpha=0.4, ls=":")
            before = x[-1] if x else before
        ax.set_title(title, fontsize=9.5, loc="left", color=INK)
        ax.set_xlabel("iterations")
        ax.set_xlim(0, before or 1)
        ax.grid(axis="y", color=INK, alpha=0.15, lw=0.6)
        ax.legend(frameon=False, ncols=3, loc="best", handlelength=1.2, columnspacing=1)
    return figure


def overlaid(tables: Mapping[str, Sequence[Mapping[str, float]]], key: str, title: str, scale: float = 1) -> Figure:
    """One column of several runs' tables, times `scale`, each against its own iterations."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        ax: Axes = figure.subplots()
        for place, (name, rows) in enumerate(tables.items()):
            x, y = [row["iteration"] for row in rows], [scale * row[key] for row in rows]
            ax.plot(x, y, marker="o" if len(x) < 30 else "", ms=3, lw=1.4, color=f"C{place}", label=name)
        ax.set_title(title, fontsize=9.5, loc="left", color=INK)
        ax.set_xlabel("iterations of its stage")
        ax.set_xlim(left=0)
        ax.grid(axis="y", color=INK, alpha=0.15, lw=0.6)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def arms(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss and mean IU on val of several ways to train, stage after stage on one axis. runs: of camvid.json, by arm."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for colour, (arm, stages) in zip(COLOURS.values(), runs.items(), strict=False):
            before = 0
            loss: list[tuple[float, float]] = []
            iu: list[tuple[float, float]] = []
            for stage in stages:
                loss += [(before + row["iteration"], row["loss_per_pixel"]) for row in stage["log"]]
                iu += [(before + row["iteration"], 100 * row["mean_iu"]) for row in stage["val"]]
                before += stage["iterations"]
                right.axvline(before, color=colour, lw=0.6, alpha=0.4, ls=":")
            left.plot(*zip(*loss, strict=True), color=colour, lw=1.2, label=arm)
            right.plot(*zip(*iu, strict=True), color=colour, lw=1.8, marker="o", ms=3.5, label=arm)
        for ax, title in ((left, "loss per labelled pixel (training)"), (right, "mean IU, percent (validation)")):
            ax.set_title(title, fontsize=9.5, loc="left", color=INK)
            ax.set_xlabel("iterations")
            ax.set_xlim(left=0)
            ax.grid(axis="y", color=INK, alpha=0.15, lw=0.6)
        left.legend(frameon=False)
    return figure


def training(figures: Mapping[str, Any]) -> Figure:
    """Milliseconds an image by part of the step, the engine above the plain loop; one panel a recipe.

    figures: of training.json.
    """
    colours = dict(zip(figures["recipes"][0]["rows"][0]["share"], (INK, *COLOURS.values()), strict=True))
    with matplotlib.rc_context(STYLE):
        height = 0.5 + 1.25 * len(figures["recipes"])
        figure = Figure(figsize=(6.4, height), layout="constrained", facecolor="white")
        panels = figure.subplots(len(figures["recipes"]), 1, squeeze=False)[:, 0]
        for ax, at in zip(panels, figures["recipes"], strict=True):
            for place, row in enumerate(at["rows"]):
                left = 0.0
                for part, width in row["ms_per_image"].items():
                    ax.barh(place, width, left=left, height=0.62, color=colours[part], label=part if not place else "")
                    left += width
                ax.annotate(
                    f"{left:,.0f}" if left >= 1000 else f"{left:.4g}",
                    (left, place),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                )
            ax.set_yticks(range(len(at["rows"])), [row["name"] for row in at["rows"]])
            ax.invert_yaxis()
            ax.set_xlim(0, 1.12 * max(sum(row["ms_per_image"].values()) for row in at["rows"]))
            ax.tick_params(axis="y", length=0)
            ax.set_title(f"{at['recipe']}: ms an image, {figures['device']}", fontsize=9, loc="left", color=INK)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=len(colours), frameon=False
        )
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an inline <svg> element whose text takes the page's colour and font.

    name: an identifier, unlike that of any other figure on the page; the ids inside begin with it.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", text)
    text = re.sub(r"font: (\d[\d.]*px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.strip()
