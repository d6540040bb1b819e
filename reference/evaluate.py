"""The paper's four metrics (section 5), and IU by class, of trained weights on a data set."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from fcn.cli import BadInput, command, parser
from fcn.files import write_json
from fcn.record import record
from reference import checkpoint
from reference.data import NAMES, places
from reference.engine import METRICS, evaluate
from reference.recipes import RECIPES
from reference.runs import latest, open_data, pick_device
from reference.voc_server import write_archive


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser(
        "evaluate.py", __doc__ or "", "python reference/evaluate.py out/runs/shapes-fcn8s/weights.safetensors"
    )
    args.add_argument("weights", type=Path, nargs="?", help="a checkpoint; without one, the latest run's")
    args.add_argument("--dataset", help=f"one of {', '.join(NAMES)}; without it, the recipe's")
    args.add_argument("--split", help="split of the data set; without it, the recipe's")
    args.add_argument("--data", type=Path, help="folder that holds the data sets (shapes is embedded)")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    args.add_argument("--json", type=Path, help="write the figures there too")
    args.add_argument(
        "--voc-server",
        type=Path,
        metavar="FILE.tgz",
        help="score nothing: write the archive that VOC's test server takes, of the split test unless --split is given",
    )
    options = args.parse_args(argv)

    path = options.weights or latest()
    if path is None:
        raise BadInput("out/runs: holds no finished run; give a checkpoint, or train first")
    saved = checkpoint.load(path)
    if options.voc_server:
        folder = places.place("voc", options.data)
        count = write_archive(saved, folder, options.split or "test", options.voc_server, pick_device(options.device))
        print(f"{options.voc_server}: {count} label maps")
        return 0
    recipe = RECIPES.get(saved.about.recipe)
    name = options.dataset or (recipe.val_data or recipe.data if recipe else saved.about.dataset)
    split = options.split or (recipe.val_split if recipe else "val")
    data = open_data(name, options.data, split)
    if tuple(data.classes) != saved.about.classes:
        raise BadInput(f"{path}: was trained for the classes of {saved.about.dataset}, not of {data.name}")
    data.mean = saved.about.mean
    try:
        found = evaluate(saved.net, data, pick_device(options.device))
    except (ValueError, RuntimeError) as error:  # a classifier, or a net of several inputs
        what = f"{saved.net.spec.name} makes no label maps of {data.name} ({error})"
        raise BadInput(f"{path}: {what}; give an FCN's weights") from error

    print(
        f"{path}\n{saved.about.recipe}, iteration {saved.about.iteration} on {data.name} {split}: {len(data)} images\n"
    )
    for name, iu in zip(data.classes, found["iu"], strict=True):
        print(f"  {name:<16} IU {'absent' if math.isnan(iu) else f'{100 * iu:6.2f}'}")
    for task, of_task in found["tasks"].items():
        for key in METRICS:
            print(f"{key if len(found['tasks']) == 1 else f'{task} {key}':<20} {100 * of_task[key]:9.4f}")
    if options.json:
        figures = {key: found[key] for key in METRICS}
        ius = {c: None if math.isnan(iu) else float(iu) for c, iu in zip(data.classes, found["iu"], strict=True)}
        tasks = {task: {key: of_task[key] for key in METRICS} for task, of_task in found["tasks"].items()}
        told = {"weights": str(path), "data": f"{data.name} {split}", "images": len(data)}
        write_json(options.json, record(**told, **figures, iu=ius, tasks=tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
