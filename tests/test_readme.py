"""The figures of README.md stand in committed results."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import proof
from fcn.record import ROOT
from reference.recipes.shapes import CONTROL

README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "shapes-fcn32s": "FCN-32s",
    "shapes-fcn16s": "FCN-16s",
    "shapes-fcn8s": "FCN-8s",
    CONTROL: "control: FCN-32s trained as long as FCN-8s",
}


def study_rows() -> list[str]:
    """The rows of the study's table: means over the seeds on the test split, in percent."""
    study = json.loads((RESULTS / "shapes-study.json").read_text())
    rows = []
    for net, name in NAMES.items():
        figures = study["summary"]["test"][net]
        steps = next(run["iterations"] for run in study["runs"] if run["net"] == net)
        total = steps * {"shapes-fcn16s": 2, "shapes-fcn8s": 3}.get(net, 1)
        means = [f"{100 * figures[key]['mean']:.1f}" for key in ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")]
        low, high = (f"{100 * figures['mean_iu'][end]:.1f}" for end in ("min", "max"))
        means[2] += f" ({low} to {high})"
        rows.append(f"| {name} | {total} | " + " | ".join(means) + " |")
    return rows


def latency_rows() -> list[str]:
    """The rows of the latency table: full-width FCN-8s, milliseconds."""
    result = json.loads((RESULTS / "latency-cpu" / "latency.json").read_text())
    return [
        f"| {row['name']} | {row['provider']} | {row['median_ms']:.0f} | {row['p90_ms']:.0f} | {row['p99_ms']:.0f} |"
        for row in result["sizes"][0]["rows"]
    ]


def training_rows() -> list[str]:
    """The rows of the training table: the engine against a plain loop, by recipe, and shares of a step in percent."""
    result = json.loads((RESULTS / "training-cpu" / "training.json").read_text())
    rows = []
    for of in result["recipes"]:
        update = {row["name"]: row["median"] for row in of["update_ms"]}
        for row in of["rows"]:
            shares = " | ".join(
                f"{100 * row['share'][part]:.1f} %" for part in ("data", "forward", "backward", "update")
            )
            ratio = update[row["name"]] / update["torch.optim.SGD(fused=True)"]
            rows.append(f"| {of['recipe']}, {row['name']} | {row['images_per_s']:.3g} | {shares} | {ratio:.2f} |")
    return rows


def claim_rows() -> list[str]:
    """The rows that benchmarks/proof.py makes of committed results."""
    return [f"| {of.claim} | {of.evidence} | `{of.command}` |" for of in proof.claims()]


def backend_rows() -> list[str]:
    """What ran a model file, by the committed certificates; all else was never executed."""
    return [f"| {of.name} | {of.ran} | {of.found} |" for of in proof.backends()]


@pytest.mark.parametrize("rows", [backend_rows, claim_rows, study_rows, latency_rows, training_rows])
def test_a_table_is_the_committed_result(rows):
    for row in rows():
        assert row in README, row


def test_the_sentences_about_the_study_are_the_committed_study():
    study = json.loads((RESULTS / "shapes-study.json").read_text())
    first, second, third = (f"{100 * gain:.1f}" for gain in study["gain_over_control"]["test"].values())
    flat = " ".join(README.split())
    assert all(study["order_held"]["test"].values()) and f"stands {first}, {second} and {third} points above" in flat
    for name in study["thin"]:
        coarse, middle, fine, control = (f"{100 * study['summary']['test'][net][name]['mean']:.1f}" for net in NAMES)
        assert f"`{name}`: {coarse}, {middle}, {fine}, control {control}" in flat


def test_what_the_readme_names_exists():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
    for script in re.findall(r"python ([a-z]+/\w+\.py)", README):
        assert (ROOT / script).exists(), script
    for path in re.findall(r"pytest (tests/[\w/.]+)", README):
        assert (ROOT / path).exists(), path
