"""One row of a table: trained weights scored by the authors' protocol, beside what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcn.cli import BadInput
from fcn.files import read_json, sha256, write_json
from fcn.images import colour, write_image
from fcn.record import record
from reference import checkpoint
from reference.data import Dataset
from reference.engine import METRICS, evaluate
from reference.progress import RESULT, SCORES, read_table
from reference.recipes import Recipe
from reference.runs import WEIGHTS, open_data

EVALUATION, FORMAT = "evaluation.json", 1
PICTURES = 4  # evenly spread over the split: nobody chose them


def assess(recipe: Recipe, folder: Path, root: Path | None, split: str, device: torch.device) -> dict[str, Any]:
    """The row of the weights in `folder`; scored unless they were already. Pictures go beside them.

    The mean subtracted is the one that the weights know their images by. Raises BadInput for files that are missing.
    """
    weights = folder / WEIGHTS
    data = open_data(recipe.val_data or recipe.data, root, split)
    told = {"format": FORMAT, "weights_sha256": sha256(weights), "data": f"{data.name} {split}", "images": len(data)}
    path = folder / EVALUATION
    before = kept(path)
    if any(before.get(key) != value for key, value in told.items()):
        print(f"scoring {recipe.name} on {told['data']} ...", flush=True)
        saved = checkpoint.load(weights)
        data.mean = saved.about.mean
        shown = dict.fromkeys(round(i * (len(data) - 1) / (PICTURES - 1)) for i in range(PICTURES))

        def observe(index: int, label: np.ndarray) -> None:
            if index in shown:
                draw(folder / "pictures", data, index, label)

        found = evaluate(saved.net, data, device, observe)
        tasks = {
            task: {key: of_task[key] for key in METRICS}
            | {"iu": dict(zip(data.tasks[task], map(_known, of_task["iu"].tolist()), strict=True))}
            for task, of_task in found["tasks"].items()
        }
        about = {"iteration": saved.about.iteration, "provenance": saved.about.provenance}
        drawn = {"pictures": list(shown), "palette": data.palette.tolist()}
        summary = saved.net.summary()
        coarsest = asdict(summary.coarsest) if summary.coarsest else {}
        about["size"] = {
            "parameters": summary.without_deconvolution,
            **{key: coarsest.get(key) for key in ("total_stride", "receptive_field")},
        }
        write_json(path, record(recipe=recipe.name, **told, **about, **drawn, tasks=tasks))
    row = read_json(path)
    curve = [line["mean_iu"] for line in read_table(folder / SCORES)]
    result = kept(folder / RESULT)
    return {
        **row,
        "folder": str(folder),
        "net": recipe.net,
        "solver": asdict(recipe.solver),
        "best_mean_iu": 100 * max(curve) if curve else None,
        "trained": {key: result[key] for key in ("command", "date", "machine", "versions", "seconds") if key in result},
        "ours": (ours := in_percent(row["tasks"])),
        "published": compare(recipe, ours),
        "note": recipe.note,
    }


def kept(path: Path) -> dict[str, Any]:
    """What was measured before, or nothing. Raises BadInput for a damaged file."""
    if not path.exists():
        return {}
    found = read_json(path, mend := "remove it, and give the command again")
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not a measurement; {mend}")
    return found


def in_percent(tasks: Mapping[str, Any]) -> dict[str, float]:
    """The four metrics of the first task, as `Figures` names them, and the pixel accuracy of a second."""
    first, *further = tasks.values()
    ours = {key: 100 * first[key] for key in METRICS}
    return ours | {"geometric": 100 * further[0]["pixel_accuracy"]} if further else ours


def compare(recipe: Recipe, ours: Mapping[str, float]) -> list[dict[str, Any]]:
    """What was published, and how much ours is above it, in percent; first what to compare with first."""
    rows = []
    for figures in recipe.published:
        theirs = {key: value for key in ours if (value := getattr(figures, key)) is not None}
        difference = {key: ours[key] - value for key, value in theirs.items()}
        rows.append({"source": figures.source, "certain": figures.certain, "figures": theirs, "difference": difference})
    return rows


def draw(folder: Path, data: Dataset, index: int, label: np.ndarray) -> None:
    """INDEX-image.png, INDEX-truth.png and INDEX-ours.png of a sample."""
    sample = data[index]
    pictures = {
        "image": sample.image,
        "truth": colour(sample.label, data.palette),
        "ours": colour(label, data.palette),
    }
    for kind, picture in pictures.items():
        write_image(folder / f"{index}-{kind}.png", picture)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
