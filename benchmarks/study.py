"""Do the skips help? FCN-32s, -16s and -8s of `shapes`, staged, from three seeds, and the control.

Each stage has the same number of additional iterations. So FCN-8s has seen three times what FCN-32s has: the control
is FCN-32s trained for as long, at the rates of the three stages. A run that is finished is not repeated, one cut off
goes on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.to_onnx import weights_sha256
from fcn.cli import BadInput, command, parser
from fcn.files import read_json, write_json
from fcn.record import ROOT, record
from reference import checkpoint, train
from reference.data import Dataset
from reference.data.figures import THIN
from reference.data.shapes import Shapes
from reference.engine import WATCHED, evaluate
from reference.recipes import find
from reference.recipes.shapes import CONTROL
from reference.runs import WEIGHTS, pick_device

STAGES = ("shapes-fcn32s", "shapes-fcn16s", "shapes-fcn8s")
NETS = (*STAGES, CONTROL)
SPLITS = ("val", "test")  # val was looked at while rates were chosen, test never
FIGURES = (*WATCHED, *THIN)


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("study.py", __doc__ or "", "python benchmarks/study.py")
    args.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339], help="order of images and dropout")
    args.add_argument(
        "--iterations", type=int, default=find(STAGES[0]).iterations, help="of each stage; the control has thrice that"
    )
    args.add_argument("--weights", type=Path, help="the classifier to start from; not given: the committed one")
    args.add_argument("--out", type=Path, default=Path("out/study"), help="runs lie in OUT/seed-SEED")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    args.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks/results/shapes-study.json", help="where the figures go"
    )
    options = args.parse_args(argv)
    if options.iterations < 1:
        raise BadInput(f"--iterations {options.iterations}: at least 1")

    for seed in options.seeds:
        start = ["--weights", str(options.weights)] if options.weights else []
        common = [*start, "--seed", str(seed), "--device", options.device]
        common += ["--out", str(options.out / f"seed-{seed}")]
        staged = [STAGES[-1], "--staged", "--iterations", str(options.iterations)]
        control = [CONTROL, "--iterations", str(len(STAGES) * options.iterations)]
        for words in (staged, control):
            if failed := train.main([*words, *common]):
                return failed
    data = {split: Shapes(split) for split in SPLITS}
    runs = [score(options.out, seed, net, data, options.device) for seed in options.seeds for net in NETS]
    figures = record(
        data="shapes", seeds=options.seeds, iterations=options.iterations, thin=list(THIN), runs=runs, **conclude(runs)
    )
    print(table(figures))
    write_json(options.json, figures)
    print(f"\n{options.json}")
    return 0


def place(out: Path, seed: int, net: str) -> Path:
    """The folder of a run."""
    return out / f"seed-{seed}" / net


def score(out: Path, seed: int, net: str, data: Mapping[str, Dataset], device: str) -> dict[str, Any]:
    """One run: what its result.json says of its training, and its figures on every split, thin classes' IU among them.

    Raises BadInput where the finished run in its place is another seed's.
    """
    folder = place(out, seed, net)
    result = read_json(folder / "result.json")
    if result["seed"] != seed:
        raise BadInput(f"{folder}: holds a run with seed {result['seed']}, not {seed}; remove it")
    saved = checkpoint.load(folder / WEIGHTS)
    scored = {}
    for split in SPLITS:
        found = evaluate(saved.net, data[split], pick_device(device))
        iu = dict(zip(data[split].classes, found["iu"].tolist(), strict=True))
        scored[split] = {
            **{key: found[key] for key in WATCHED},
            **{name: iu[name] for name in THIN},
            "iu": {name: None if math.isnan(value) else value for name, value in iu.items()},
        }
    return {
        "seed": seed,
        "net": net,
        "iterations": result["iterations"],
        "seconds": result["seconds"],
        "trained_on": {"date": result["date"], "machine": result["machine"]},
        "weights_sha256": weights_sha256(saved.net.cpu()),
        **scored,
    }


def conclude(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds: mean, min and max of every figure; by seed, whether mean IU rose with each finer net (the
    paper's order) and how far FCN-8s stands above the control.
    """
    seeds = sorted({run["seed"] for run in runs})
    summary, order, gain = {}, {}, {}
    for split in SPLITS:
        values = {net: [run[split] for run in runs if run["net"] == net] for net in NETS}
        summary[split] = {net: {key: _spread([v[key] for v in values[net]]) for key in FIGURES} for net in NETS}
        iu = {(run["seed"], run["net"]): run[split]["mean_iu"] for run in runs}
        coarse, middle, fine = STAGES
        order[split] = {str(s): iu[s, coarse] < iu[s, middle] < iu[s, fine] for s in seeds}
        gain[split] = {str(s): iu[s, fine] - iu[s, CONTROL] for s in seeds}
    return {"summary": summary, "order_held": order, "gain_over_control": gain}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    names = ("pixel", "mean acc", "mean IU", "f.w. IU", "live fc7", *THIN)
    lines = []
    for split in SPLITS:
        lines.append(f"\nshapes {split:<16}" + "".join(f"{name:>20}" for name in names))
        for run in figures["runs"]:
            row = "".join(f"{100 * run[split][key]:20.2f}" for key in FIGURES)
            lines.append(f"{run['seed']:<8}{run['net']:<15}{row}")
        for net in NETS:
            spreads = (figures["summary"][split][net][key] for key in FIGURES)
            row = "".join(
                f"{100 * s['mean']:7.2f} ({100 * s['min']:.2f}-{100 * s['max']:.2f})".rjust(20) for s in spreads
            )
            lines.append(f"mean    {net:<15}{row}")
        lines += verdict(figures, split)
    return "\n".join(lines)


def verdict(figures: dict[str, Any], split: str) -> list[str]:
    """Whether the paper's order held, and FCN-8s against the control, in words."""
    order, gain = figures["order_held"][split], figures["gain_over_control"][split]
    held = [seed for seed, holds in order.items() if holds]
    broken = [seed for seed, holds in order.items() if not holds]
    lines = [f"The paper's order of mean IU, 32s < 16s < 8s, held for {len(held)} of {len(order)} seeds on {split}."]
    if broken:
        lines = [f"{lines[0][:-1]}; it DID NOT HOLD for {', '.join(broken)}."]
    gains = ", ".join(f"{100 * value:+.2f}" for value in gain.values())
    better = sum(value > 0 for value in gain.values())
    lines.append(
        f"FCN-8s against FCN-32s trained as long (control), mean IU on {split}: {gains} points by seed; "
        f"better for {better} of {len(gain)}."
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
