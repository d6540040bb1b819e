"""Which updates does float32 swallow at the rates of the three stages? FCN-32s, -16s and -8s at full width.

An update smaller than half the step from a weight to the next float32 leaves that weight as it was. Weights, images
and labels are those of the records of genuine Caffe (benchmarks/synthetic.py): made up, not VGG-16's and not VOC.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

import reference
from benchmarks import synthetic
from fcn.cli import command, parser
from fcn.files import write_json
from fcn.record import ROOT, record
from reference.net import Net
from reference.recipes import find


class Stage(NamedTuple):
    """A stage of the records: the seed of its images and new layers, and its iterations."""

    net: str
    seed: str
    iterations: int


STAGES = (Stage("voc-fcn32s", "a", 10), Stage("voc-fcn16s", "b", 5), Stage("voc-fcn8s", "c", 5))
SIZES = ((64, 80), (64, 80), (80, 64), (64, 64), (50, 70))
CLASSES = 21
# An image as large as VOC's: its gradient is a sum over 37 times as many pixels as those above have.
FULL_SIZE = (375, 500)
# What momentum 0.99 makes of a gradient in the long run: of one that is new each time, 1 / sqrt(1 - 0.99^2) times
# its size; of one that stays, 1 / (1 - 0.99).
GAINS = {"changing": 1 / math.sqrt(1 - 0.99**2), "constant": 1 / (1 - 0.99)}
# Steps between neighbours, in those of float32.
FORMATS = {"float32": 1.0, "bfloat16": 2.0**16}


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("swallowing.py", __doc__ or "", "python benchmarks/swallowing.py")
    args.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/swallowing.json", help="where figures go")
    options = args.parse_args(argv)

    weights: dict[str, Tensor] = {}
    stages = []
    for stage in STAGES:
        net = reference.build(stage.net).eval()
        start(net, stage.seed, weights)
        stages.append({**stage._asdict(), "rate": find(stage.net).solver.base_lr, "groups": train(net, stage)})
        weights = net.state_dict()
    figures = record(
        weights_and_images="made up (benchmarks/synthetic.py), not VGG-16's and not VOC",
        stages=stages,
        full_size=at_full_size(net, STAGES[-1].seed),
    )
    print(tables(figures))
    write_json(options.json, figures)
    print(f"\n{options.json}")
    return 0


def start(net: Net, seed: str, coarser: Mapping[str, Tensor]) -> None:
    """Give `net` the weights of the coarser net, and those of `seed` to the layers that are new."""
    reference.surgery.transplant(net, {**coarser, **synthetic.weights(net, seed, besides=coarser)})


def train(net: Net, stage: Stage) -> dict[str, dict[str, float]]:
    """Run a stage; by group of parameters, what became of the updates.

    reached: the share of weights that ever got a gradient (those of dead units get none, only decay). unchanged: of
    these, the share that is to the bit what it was. arrived: the length of the way that the weights went, by the
    length of the sum of all V, the way that they were sent.
    """
    solver = reference.CaffeSGD(net, **vars(find(stage.net).solver))
    learned = {key: parameter for key, parameter in net.named_parameters() if parameter.requires_grad}
    before = {key: parameter.detach().clone() for key, parameter in learned.items()}
    sent = {key: torch.zeros_like(parameter) for key, parameter in learned.items()}
    reached = {key: torch.zeros_like(parameter, dtype=torch.bool) for key, parameter in learned.items()}
    for iteration in tqdm(range(stage.iterations), desc=stage.net, disable=None):
        backward(net, f"{stage.seed}/{iteration}", SIZES[iteration % len(SIZES)])
        for key, parameter in learned.items():
            if parameter.grad is not None:
                reached[key] |= parameter.grad != 0
        solver.step()
        solver.zero_grad()
        for key, total in sent.items():
            total += solver.history[key]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    ways: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for key, parameter in learned.items():
        name, way = group(key), parameter.detach() - before[key]
        still = reached[key] & (way == 0)
        found[name].update(weights=way.numel(), reached=int(reached[key].sum()), unchanged=int(still.sum()))
        ways[name][0] += _square(way)
        ways[name][1] += _square(sent[key])
    return {
        name: {
            "weights": counts["weights"],
            "reached": counts["reached"] / counts["weights"],
            "unchanged": counts["unchanged"] / counts["reached"],
            "arrived": math.sqrt(ways[name][0] / ways[name][1]),
        }
        for name, counts in found.items()
    }


def at_full_size(net: Net, seed: str) -> dict[str, Any]:
    """By format, rate and what momentum makes of it: of the weights that have a gradient, the share of each group that
    one update would leave unchanged.

    From one gradient at FULL_SIZE: an estimate, where `train` is a measurement.
    """
    loss = backward(net, f"{seed}/full", FULL_SIZE)
    multipliers = net.multipliers()
    gradients = {key: (p.detach(), p.grad) for key, p in net.named_parameters() if p.grad is not None}
    found = []
    for kind, step in FORMATS.items():
        for rate in (find(stage.net).solver.base_lr for stage in STAGES):
            for momentum, gain in GAINS.items():
                counts: dict[str, Counter[str]] = defaultdict(Counter)
                for key, (weight, gradient) in gradients.items():
                    update = gradient.abs() * (rate * multipliers[key].lr_mult * gain)
                    lost = (update < half_step(weight) * step) & (gradient != 0)
                    counts[group(key)].update(lost=int(lost.sum()), reached=int((gradient != 0).sum()))
                share = {name: counted["lost"] / counted["reached"] for name, counted in counts.items()}
                found.append({"format": kind, "rate": rate, "gradient": momentum, "share": share})
    return {"net": net.spec.name, "size": FULL_SIZE, "loss_per_pixel": loss / math.prod(FULL_SIZE), "swallowed": found}


def backward(net: Net, key: str, size: tuple[int, int]) -> float:
    """Gradients of the loss on the image and label of `key`; returns the loss."""
    label = synthetic.label(key, "label", CLASSES, *size)
    loss = net.total_loss(data=synthetic.image(key, "data", *size), label=label)
    loss.backward()
    return float(loss.detach())


def half_step(weight: Tensor) -> Tensor:
    """Half the distance from each float32 to the next larger one: what rounds to nearest, an update must exceed.

    (Towards zero from a power of two the step is half as wide; one weight in eight million stands there.)
    """
    size = weight.abs()
    return (torch.nextafter(size, torch.full_like(size, math.inf)) - size) / 2


def group(key: str) -> str:
    """Where a parameter belongs: its block of convolutions, its layer, or the biases."""
    layer, _, kind = key.rpartition(".")
    if kind == "bias":
        return "score biases" if layer.startswith("score") else "trunk biases"
    return layer.partition("_")[0] if layer.startswith("conv") else layer


def _square(values: Tensor) -> float:
    """The squared L2 norm, in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def tables(figures: Mapping[str, Any]) -> str:
    """Both tables of docs/swallowed-updates.md, in Markdown: percent unchanged / percent of the way that arrived, and
    percent that an update would leave unchanged, of a changing to a constant gradient.
    """
    stages = figures["stages"]
    names = sorted({name for stage in stages for name in stage["groups"]}, key=_order)
    heads = [f"{stage['net']}, {stage['rate']:.0e}" for stage in stages]
    measured = [[name, *(_stage_cell(stage["groups"].get(name)) for stage in stages)] for name in names]

    share = {
        (each["format"], each["rate"], each["gradient"]): each["share"] for each in figures["full_size"]["swallowed"]
    }
    columns = [*(("float32", stage["rate"]) for stage in stages), ("bfloat16", stages[0]["rate"])]
    estimated = [
        [name, *(" to ".join(_percent(share[*column, gradient][name]) for gradient in GAINS) for column in columns)]
        for name in names
    ]
    captions = [f"{rate:.0e}, {kind}" for kind, rate in columns]
    return "\n\n".join((_table(["", *heads], measured), _table(["", *captions], estimated)))


def _order(name: str) -> tuple[bool, bool, str]:
    return "biases" in name, name.startswith("score"), name


def _stage_cell(found: Mapping[str, float] | None) -> str:
    return f"{_percent(found['unchanged'])} / {100 * found['arrived']:.0f}" if found else ""


def _percent(share: float) -> str:
    """With the digits that tell a share near all from all."""
    return "100" if share == 1 else f"{100 * share:.2f}" if share > 0.99 else f"{100 * share:.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
