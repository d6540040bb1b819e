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
    rows = []
    for row in result["sizes"][0]["rows"]:
        times = " | ".join(f"{row[key]:.0f}" for key in ("median_ms", "p90_ms", "p99_ms"))
        border = ", border elided" if row["name"].endswith("ONNX Runtime") and result["border"] == "elide" else ""
        rows.append(f"| {row['name']} | {row['provider']}{border} | {times} |")
    return rows


def border_rows() -> list[str]:
    """The rows of the table of border elision: medians in milliseconds, then what it gains and what it spares."""
    result = json.loads((RESULTS / "border-cpu" / "border.json").read_text())
    ways = ("PyTorch eager", "torch.compile", "OpenCV DNN", "OpenVINO", "ONNX Runtime")
    rows = []
    for at in result["cases"]:
        of, counts = {row["name"]: row for row in at["rows"]}, at["multiply_adds"]
        times = [
            " → ".join(f"{of[name]['median_ms']:.0f}" for name in (way, f"{way}, elided") if name in of) for way in ways
        ]
        rows.append(
            f"| {at['net']}, {at['height']}x{at['width']} | {' | '.join(times)} | "
            f"{of['ONNX Runtime, elided']['elision_gains']:.2f} | "
            f"{100 * (1 - counts['elide'] / counts['keep']):.0f} % |"
        )
    return rows


def gain_rows() -> list[str]:
    """The rows of docs/border.md: what is spared, how much that can gain at most, and what each library gains."""
    rows = []
    for at in json.loads((RESULTS / "border-cpu" / "border.json").read_text())["cases"]:
        of = {row["name"]: row for row in at["rows"]}
        plain, less = (at["multiply_adds"][border] for border in ("keep", "elide"))
        ways = ("ONNX Runtime", "OpenVINO", "PyTorch eager")
        gains = " | ".join(f"{of[f'{way}, elided']['elision_gains']:.2f}" for way in ways)
        memory = " → ".join(f"{of[name]['peak_mib']:,}" for name in ("ONNX Runtime", "ONNX Runtime, elided"))
        counts = f"{plain / 1e9:.1f} → {less / 1e9:.1f} | {plain / less:.2f}"
        rows.append(f"| {at['net']}, {at['height']}x{at['width']} | {counts} | {gains} | {memory} |")
    return rows


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


@pytest.mark.parametrize("rows", [backend_rows, border_rows, claim_rows, study_rows, latency_rows, training_rows])
def test_a_table_is_the_committed_result(rows):
    for row in rows():
        assert row in README, row


def test_the_table_of_gains_is_the_committed_result():
    page = (ROOT / "docs" / "border.md").read_text()
    for row in gain_rows():
        assert row in page, row


def test_the_aims_are_met():
    for at in json.loads((RESULTS / "border-cpu" / "border.json").read_text())["cases"]:
        (gain,) = (row["elision_gains"] for row in at["rows"] if row["name"] == "ONNX Runtime, elided")
        assert gain > (at["aim"] or 1)


def test_the_sentences_about_the_border_are_the_committed_result():
    result = json.loads((RESULTS / "border-cpu" / "border.json").read_text())
    at = {(at["net"], at["height"], at["width"]): at for at in result["cases"]}["voc-fcn8s", 375, 500]
    (gain,) = (row["elision_gains"] for row in at["rows"] if row["name"] == "ONNX Runtime, elided")
    assert "in three quarters of\nthe time at 375x500" in README and 0.70 < 1 / gain < 0.77


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
