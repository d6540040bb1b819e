"""Pictures beside their labels: image, truth, and what each net of a run says."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from benchmarks import page
from benchmarks.charts import INK, STYLE
from fcn.images import colour, preprocess
from reference.checkpoint import Checkpoint
from reference.data import Dataset, Sample
from reference.engine import place


@dataclass(frozen=True)
class Row:
    """A sample, and each net's H x W uint8 label map of it."""

    sample: Sample
    labels: dict[str, np.ndarray]


def choose(data: Dataset, thin: Sequence[str], each: int) -> list[int]:
    """For every class of `thin` the `each` images with most of its pixels, each image once, in file order.

    By the truth alone: what the nets make of a picture has no say.
    """
    ids = [data.classes.index(name) for name in thin]
    counts = np.array([np.bincount(sample.label.ravel(), minlength=256)[ids] for sample in data])
    chosen: list[int] = []
    for column in counts.T:
        ranked = [int(i) for i in np.argsort(-column, kind="stable") if i not in chosen]
        chosen += ranked[:each]
    return sorted(chosen)


def rows(data: Dataset, indices: Sequence[int], checkpoints: Mapping[str, Checkpoint]) -> list[Row]:
    """Samples with the label maps of every checkpoint, on the CPU."""
    nets = {name: place(saved.net, torch.device("cpu")).eval() for name, saved in checkpoints.items()}
    found = []
    for sample in (data[index] for index in indices):
        x = torch.from_numpy(preprocess([sample.image], data.mean))
        with torch.inference_mode():
            labels = {name: net(x)[0].argmax(0).to(torch.uint8).numpy() for name, net in nets.items()}
        found.append(Row(sample, labels))
    return found


def html(found: Sequence[Row], data: Dataset) -> str:
    """The grid as markup: a column each for image, truth and every net."""
    cells = []
    for row in found:
        height, width = row.sample.label.shape
        picture = _encode(row.sample.image, "JPEG")
        cells.append(page.image(picture, "jpeg", f"{row.sample.name}, image", width, height))
        for name, label in {"truth": row.sample.label, **row.labels}.items():
            drawn = _encode(colour(label, data.palette), "PNG")
            cells.append(page.image(drawn, "png", f"{row.sample.name}, {name}", width, height))
    return page.shots(("image", "truth", *found[0].labels), cells)


def legend(data: Dataset) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and RGB colours of the classes, and of void."""
    shown = [(name, tuple(rgb)) for name, rgb in zip(data.classes, data.palette.tolist(), strict=True)]
    return [*shown, ("void (not scored)", (255, 255, 255))]


def figure(found: Sequence[Row], data: Dataset) -> Figure:
    """The grid as one picture, for pages that take no markup."""
    columns = ("image", "truth", *found[0].labels)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(1.75 * len(columns), 1.5 * len(found) + 0.7), layout="constrained")
        axes = drawn.subplots(len(found), len(columns), squeeze=False)
        for line, row in zip(axes, found, strict=True):
            maps = (colour(label, data.palette) for label in (row.sample.label, *row.labels.values()))
            for ax, picture in zip(line, (row.sample.image, *maps), strict=True):
                ax.imshow(picture, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set(visible=True, linewidth=0.5)
        for ax, name in zip(axes[0], columns, strict=True):
            ax.set_title(name, fontsize=10)
        patches = [
            Patch(facecolor=(r / 255, g / 255, b / 255), edgecolor=INK, linewidth=0.4, label=name)
            for name, (r, g, b) in legend(data)
        ]
        drawn.legend(handles=patches, loc="outside lower center", ncols=7, frameon=False, fontsize=8)
    return drawn


def _encode(picture: np.ndarray, kind: str) -> bytes:
    """H x W x 3 uint8 as the bytes of a file."""
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    if kind == "PNG":  # a label map has few colours
        image = image.quantize(256)
    image.save(stream, format=kind, quality=88, optimize=True)
    return stream.getvalue()
