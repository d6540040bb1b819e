"""Real images, real weights: what ImageNet's weights and the skips bring on CamVid.

Three arms, each staged as the paper stages: SqueezeNet from its ImageNet weights; the same net from random weights, the
control; VGG-16 with ImageNet's conv1 to conv3. A run that is finished is not repeated, one cut off goes on. Figures are
of the test split, on which nothing was chosen. Pictures go beside the runs: CamVid's licence keeps them out of here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import charts, pictures
from export.to_onnx import weights_sha256
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, read_json, write_json
from fcn.record import ROOT, record
from reference import checkpoint, train
from reference.data import Dataset
from reference.engine import METRICS, evaluate
from reference.progress import LOG, SCORES, read_table
from reference.recipes import RECIPES
from reference.runs import WEIGHTS, open_data, pick_device

SPLIT = "test"
PICTURED = ("pole", "sign", "pedestrian", "bicyclist")  # what a coarse net misses


@dataclass(frozen=True)
class Arm:
    """The stages of one way to train; `option` names the file that the first starts from."""

    name: str
    stages: tuple[str, ...]
    option: str = ""


ARMS = (
    Arm("SqueezeNet, ImageNet weights", ("camvid-squeezenet-16s", "camvid-squeezenet-8s"), "squeezenet"),
    Arm("SqueezeNet, random weights", ("camvid-squeezenet-random-16s", "camvid-squeezenet-random-8s")),
    Arm("VGG-16, ImageNet conv1-3", tuple(f"camvid-vgg-{stage}" for stage in ("32s", "16s", "8s")), option="vgg"),
)


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser(
        "camvid.py",
        __doc__ or "",
        "python benchmarks/camvid.py --data data --squeezenet squeezenet_v1.0.caffemodel --vgg vgg16.caffemodel",
    )
    args.add_argument("--data", type=Path, required=True, help="folder that holds CamVid")
    args.add_argument("--squeezenet", type=Path, help="SqueezeNet v1.0's caffemodel")
    args.add_argument("--vgg", type=Path, help="a caffemodel of VGG-16's conv1_1 to conv3_3")
    args.add_argument("--arms", type=int, nargs="+", choices=range(1, len(ARMS) + 1), default=[1, 2, 3], help="which")
    args.add_argument("--iterations", type=int, help="of each stage, instead of the recipes'")
    args.add_argument("--seed", type=int, default=1337, help="order of images, dropout and random weights")
    args.add_argument("--out", type=Path, default=Path("out/camvid"), help="the runs, and grid.png")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    args.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/camvid.json", help="figures; plot beside")
    options = args.parse_args(argv)

    arms = [ARMS[number - 1] for number in sorted(set(options.arms))]
    for arm in arms:
        if arm.option and getattr(options, arm.option) is None:
            raise BadInput(f"{arm.name}: give the file with --{arm.option}, or leave the arm out with --arms")
    for arm in arms:
        words = [arm.stages[-1], "--staged", "--data", str(options.data), "--out", str(options.out)]
        words += ["--seed", str(options.seed), "--device", options.device]
        words += ["--weights", str(getattr(options, arm.option))] if arm.option else []
        words += ["--iterations", str(options.iterations)] if options.iterations else []
        if failed := train.main(words):
            return failed
    data = open_data("camvid", options.data, SPLIT)
    runs = [score(options.out, arm, stage, data, options.device) for arm in arms for stage in arm.stages]
    figures = record(data=f"camvid {SPLIT}", images=len(data), seed=options.seed, classes=list(data.classes), runs=runs)
    print(table(figures))
    write_json(options.json, figures)
    with atomic(options.json.with_suffix(".png")) as temporary:
        charts.arms(by_arm(figures)).savefig(temporary, dpi=110)
    last = {arm.name.replace(", ", ",\n"): checkpoint.load(options.out / arm.stages[-1] / WEIGHTS) for arm in arms}
    grid = pictures.rows(data, pictures.choose(data, PICTURED, 2), last)
    with atomic(options.out / "grid.png") as temporary:
        pictures.figure(grid, data).savefig(temporary, dpi=110)
    print(f"\n{options.json}, {options.out / 'grid.png'}")
    return 0


def score(out: Path, arm: Arm, stage: str, data: Dataset, device: str) -> dict[str, Any]:
    """One finished stage: its settings, its curves, and its figures on the test split."""
    folder = out / stage
    result = read_json(folder / "result.json")
    saved = checkpoint.load(folder / WEIGHTS)
    found = evaluate(saved.net, data, pick_device(device))
    recipe = RECIPES[stage]
    return {
        "arm": arm.name,
        "recipe": stage,
        "start": result["start"],
        "solver": {"base_lr": recipe.solver.base_lr, "clip_gradients": recipe.solver.clip_gradients},
        "iterations": result["iterations"],
        "seconds": result["seconds"],
        "trained_on": {"date": result["date"], "machine": result["machine"]},
        "weights_sha256": weights_sha256(saved.net.cpu()),
        **{key: found[key] for key in METRICS},
        "iu": [None if math.isnan(value) else value for value in found["iu"].tolist()],
        "val": [{key: row[key] for key in ("iteration", "mean_iu")} for row in read_table(folder / SCORES)],
        "log": [{key: row[key] for key in ("iteration", "loss_per_pixel")} for row in read_table(folder / LOG)],
    }


def by_arm(figures: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The runs of every arm, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in figures["runs"]:
        found.setdefault(run["arm"], []).append(run)
    return found


def table(figures: Mapping[str, Any]) -> str:
    """The figures as text, in percent: the four metrics, then IU by class."""
    width = max(len(run["recipe"]) for run in figures["runs"])
    head = ("pixel", "mean acc", "mean IU", "f.w. IU", "seconds")
    lines = [f"{figures['data']}, {figures['images']} images", " " * width + "".join(f"{name:>11}" for name in head)]
    for run in figures["runs"]:
        values = "".join(f"{100 * run[key]:11.2f}" for key in METRICS)
        lines.append(f"{run['recipe']:<{width}}{values}{run['seconds']:11.0f}")
    lines.append(f"\n{'IU by class':<{width}}" + "".join(f"{name[:9]:>10}" for name in figures["classes"]))
    for run in figures["runs"]:
        values = "".join(f"{'absent' if iu is None else f'{100 * iu:.1f}':>10}" for iu in run["iu"])
        lines.append(f"{run['recipe']:<{width}}{values}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
