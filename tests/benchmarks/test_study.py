from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import study
from benchmarks.accuracy import First
from export.to_onnx import randomise
from reference import build, checkpoint, train
from reference.checkpoint import About
from reference.data.shapes import Shapes
from reference.recipes import find
from reference.recipes.shapes import CLASSIFIER


def run(seed: int, net: str, mean_iu: float) -> dict:
    found = {**dict.fromkeys(study.FIGURES, 0.5), "mean_iu": mean_iu}
    return {"seed": seed, "net": net, "val": found, "test": {**found, "mean_iu": mean_iu / 2}}


def test_conclusions() -> None:
    ious = {1337: (0.1, 0.2, 0.3, 0.25), 1338: (0.1, 0.3, 0.2, 0.4)}
    runs = [run(seed, net, iu) for seed, row in ious.items() for net, iu in zip(study.NETS, row, strict=True)]
    found = study.conclude(runs)
    assert found["order_held"] == {split: {"1337": True, "1338": False} for split in ("val", "test")}
    assert found["gain_over_control"]["val"] == pytest.approx({"1337": 0.05, "1338": -0.2})
    middle = found["summary"]["val"]["shapes-fcn16s"]
    assert middle["mean_iu"] == pytest.approx({"mean": 0.25, "min": 0.2, "max": 0.3})
    assert middle["wheel"] == {"mean": 0.5, "min": 0.5, "max": 0.5}
    assert found["summary"]["test"][study.CONTROL]["mean_iu"]["max"] == pytest.approx(0.2)
    order, control = study.verdict(found, "val")
    assert "held for 1 of 2 seeds on val; it DID NOT HOLD for 1338." in order
    assert "+5.00, -20.00 points by seed; better for 1 of 2" in control


def test_equal_figures_are_no_order() -> None:
    runs = [run(1, net, 0.1) for net in study.NETS]
    assert study.conclude(runs)["order_held"]["val"] == {"1": False}


def test_the_study_trains_scores_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Shapes("val")
    recipe = find(CLASSIFIER)
    classifier = build(recipe.net, **recipe.options)
    randomise(classifier, 0)
    start, out, json_file = tmp_path / "start.safetensors", tmp_path / "runs", tmp_path / "study.json"
    palette = tuple((r, g, b) for r, g, b in data.palette.tolist())
    checkpoint.save(start, classifier, About(CLASSIFIER, 0, "shapes-crops", data.classes, palette, data.mean))
    monkeypatch.setattr(study, "Shapes", lambda split: First(Shapes(split), 2))
    monkeypatch.setattr(train, "open_data", lambda name, root, split: First(Shapes(split), 2))
    words = ["--seeds", "5", "--iterations", "1", "--weights", str(start), "--out", str(out), "--device", "cpu"]
    assert study.main([*words, "--json", str(json_file)]) == 0
    found = json.loads(json_file.read_text())
    assert [(r["seed"], r["net"], r["iterations"]) for r in found["runs"]] == [
        (5, "shapes-fcn32s", 1),
        (5, "shapes-fcn16s", 1),
        (5, "shapes-fcn8s", 1),
        (5, study.CONTROL, 3),
    ]
    for one in found["runs"]:
        trained = json.loads((study.place(out, 5, one["net"]) / "result.json").read_text())
        assert one["val"]["mean_iu"] == pytest.approx(trained["metrics"]["mean_iu"])
        assert set(one["test"]["iu"]) == set(data.classes) and {"wheel", "stool"} <= one["test"].keys()
    said = capsys.readouterr().out
    assert "The paper's order of mean IU, 32s < 16s < 8s" in said

    assert study.main([*words, "--json", str(json_file)]) == 0
    assert capsys.readouterr().out.count("done already") == 4
    again = json.loads(json_file.read_text())
    assert again["runs"] == found["runs"]


def test_bad_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--iterations", "0"]) == 2
    assert "--iterations 0" in capsys.readouterr().err
