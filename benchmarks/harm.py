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


def cells(figures: Figures, photographs: Figures) -> dict[str, tuple[str, str]]:
    """By row: the most points of mean IU that it costs, and what was measured, on `shapes` and on photographs.

    What costs most comes first; rows without mean IU last, by how far the weights go astray.
    """
    measured = (name for measure in ("trained", "scored", "sloped", "moved") for name in figures[measure])
    names = dict.fromkeys([*measured, BEST])
    rows = [name for name in names if name not in (FAITHFUL, ELEMENTS, OTHER_SEED)]
    points = {name: min(_changes(name, figures, photographs), default=None) for name in rows}
    rows.sort(key=lambda name: (-abs(points[name] or 0), -figures["moved"].get(name, {}).get("off", 0)))
    return {name: (_signed(points[name]), "; ".join(measures(name, figures, photographs))) for name in rows}


def _changes(name: str, figures: Figures, photographs: Figures) -> Iterator[float]:
    """Of mean IU in points: trained so, the mean over seeds; on the same weights; on photographs."""
    if name == BEST:
        yield best(figures)[0]
    if name in figures["trained"]:
        yield mean(_by_seed(name, figures))
    for scored in (figures["scored"], photographs["scored"]):
        if of := scored.get(name):
            yield 100 * (of["after"] - of["before"])


def _by_seed(name: str, figures: Figures) -> Iterator[float]:
    """Points of mean IU, trained so, against the arm that differs in nothing else."""
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


def measures(name: str, figures: Figures, photographs: Figures) -> Iterator[str]:
    """Each measure of a row, in words. Figures of a scoring alone hold no other measure."""
    if of := figures.get("trained", {}).get(name):
        before, after = (100 * mean(arm["test"].values()) for arm in (figures["trained"][_arm(name)], of))
        seeds = ", ".join(map(_signed, _by_seed(name, figures)))
        yield f"trained so {before:.1f} to {after:.1f} (by seed {seeds})"
    for where, found in (("same weights", figures), ("on photographs", photographs)):
        if of := found.get("scored", {}).get(name):
            text = f"{where} {100 * of['before']:.1f} to {100 * of['after']:.1f}"
            text += f", {100 * of['changed']:.2g} % of labels change" if of["changed"] else ""
            yield text + (f", {of['refused']} of {found['images']} images do not fit" if of["refused"] else "")
    if of := figures.get("sloped", {}).get(name):
        longer = f"gradient {of['length']:.3g} times as long, cosine {of['cosine']:.3g}"
        yield longer if of["cosine"] < 0.999 else f"gradient off by {of['distance']:.1g}"
    if of := figures.get("moved", {}).get(name):
        yield f"weights end {of['off']:.2g} of their way astray, {of['length']:.2g} times as far"
        yield f"biases {of['off of biases']:.2g} astray, {of['length of biases']:.2g} times as far"
    if name == CHANNELS and (of := figures.get("noise")):
        yield f"noise in `score_fr`'s gradient {of['channels']:.2g} of its length, of elements {of['elements']:.2g}"
    if name == BEST:
        yield f"above the last of 4 checkpoints; picked on val {_signed(best(figures)[1])}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
