"""What the figures of benchmarks/differences.py say of each departure: the cells of docs/differences.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any

# Rows of the scoring alone, of the choice of a checkpoint, and of dropout.
VOID_SCORED, BY_IMAGE = "void scored as background", "IU averaged over images"
BEST, CHANNELS = "best checkpoint picked on the test set", "channel dropout"
# What rows are held against: arms of the training, and a way of the weights that is as faithful as the first.
FAITHFUL, ELEMENTS, OTHER_SEED = "faithful", "dropout of elements", "another seed"

Figures = Mapping[str, Any]


def cells(figures: Figures) -> dict[str, tuple[str, str]]:
    """By row: points of mean IU, and what was measured. Most points first, then by how far the weights go astray."""
    measured = (name for measure in ("trained", "scored", "sloped", "moved") for name in figures[measure])
    names = dict.fromkeys([*measured, BEST])
    rows = [name for name in names if name not in (FAITHFUL, ELEMENTS, OTHER_SEED)]
    rows.sort(key=lambda name: (-abs(points(name, figures) or 0), -figures["moved"].get(name, {}).get("off", 0)))
    return {name: (_signed(points(name, figures)), "; ".join(_measured(name, figures))) for name in rows}


def points(name: str, figures: Figures) -> float | None:
    """By how much mean IU changes, in points: of nets trained so where there are any, else on the same weights."""
    if name == BEST:
        return best(figures)[0]
    if name in figures["trained"]:
        return mean(_changes(name, figures))
    if name in figures["scored"]:
        return 100 * (figures["scored"][name]["after"] - figures["scored"][name]["before"])
    return None


def _changes(name: str, figures: Figures) -> Iterator[float]:
    """By seed, against the arm that differs in nothing else."""
    before = figures["trained"][_arm(name)]["test"]
    for seed, after in figures["trained"][name]["test"].items():
        yield 100 * (after - before[seed])


def _arm(name: str) -> str:
    return ELEMENTS if name == CHANNELS else FAITHFUL


def best(figures: Figures) -> tuple[float, float]:
    """Points of mean IU on test above the last checkpoint's: of the one best on test, and of the one best on val."""
    by_test, by_val = [], []
    for run in figures["trained"][FAITHFUL]["checkpoints"].values():
        last = run[-1]["test"]
        by_test.append(100 * (max(each["test"] for each in run) - last))
        by_val.append(100 * (max(run, key=lambda each: each["val"])["test"] - last))
    return mean(by_test), mean(by_val)


def _measured(name: str, figures: Figures) -> Iterator[str]:
    if of := figures["trained"].get(name):
        before, after = (100 * mean(arm["test"].values()) for arm in (figures["trained"][_arm(name)], of))
        seeds = ", ".join(map(_signed, _changes(name, figures)))
        yield f"trained so {before:.1f} to {after:.1f} (by seed {seeds})"
    if of := figures["scored"].get(name):
        text = f"same weights {100 * of['before']:.1f} to {100 * of['after']:.1f}"
        text += f", {100 * of['changed']:.2g} % of labels change" if of["changed"] else ""
        yield text + (f", {of['refused']} of {figures['images']} images do not fit" if of["refused"] else "")
    if of := figures["sloped"].get(name):
        yield f"gradient {of['length']:.3g} times as long, cosine {of['cosine']:.3g}"
    if of := figures["moved"].get(name):
        yield f"weights end {of['off']:.2g} of their way astray, {of['length']:.2g} times as far"
        yield f"biases {of['off of biases']:.2g} astray, {of['length of biases']:.2g} times as far"
    if name == CHANNELS:
        of = figures["noise"]
        yield f"noise in `score_fr`'s gradient {of['channels']:.2g} of its length, of elements {of['elements']:.2g}"
    if name == BEST:
        yield f"above the last of 4 checkpoints; picked on val {_signed(best(figures)[1])}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
