from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from export.to_onnx import export_onnx
from reference import checkpoint
from reference.engine import METRICS
from runtime.segmenter import Segmenter


def test_both_roads_agree(weights: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "accuracy.json"
    words = [str(weights), "--model", str(model), "--limit", "3", "--out", str(out), "--device", "cpu"]
    assert accuracy.main(words) == 0
    found = json.loads(out.read_text())
    trained = json.loads((weights.parent / "result.json").read_text())  # scored on the same three images
    assert found["pytorch"] == pytest.approx({key: trained["metrics"][key] for key in METRICS}, abs=1e-12)
    assert found["onnx"] == pytest.approx(found["pytorch"], abs=1e-3)
    assert found["equal_labels"] == 1 - found["differ"] / found["pixels"] > 0.9999
    assert (found["images"], found["data"], found["recipe"]) == (3, "shapes val", "shapes-fcn8s")
    assert found["verification"]["worst"] < 1e-4 and found["verification"]["runtime"].startswith("ONNX Runtime")
    assert found["runtime"].startswith("ONNX Runtime")
    said = capsys.readouterr().out
    assert f"{100 * found['onnx']['mean_iu']:.4f}" in said and "labels equal on" in said


def test_both_roads_subtract_the_mean_of_the_weights(weights: Path, tmp_path: Path) -> None:
    """Which is not always the data set's: torchvision's weights bring their own."""
    saved = checkpoint.load(weights)
    about = replace(saved.about, mean=(0.0, 60.0, 250.0))
    checkpoint.save(tmp_path / "w.safetensors", saved.net, about)
    export_onnx(saved.net, tmp_path / "w.onnx", about)
    out = tmp_path / "accuracy.json"
    assert accuracy.main([str(tmp_path / "w.safetensors"), "--limit", "3", "--out", str(out), "--device", "cpu"]) == 0
    assert json.loads(out.read_text())["equal_labels"] > 0.9999


def test_a_disagreement_is_counted(weights: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Segmenter, image: np.ndarray) -> np.ndarray:
        label = self.batch([image])[0].copy()
        label[0, :7] = (label[0, :7] + 1) % 12
        return label

    monkeypatch.setattr(Segmenter, "__call__", wrong)
    out = tmp_path / "accuracy.json"
    assert accuracy.main([str(weights), "--model", str(model), "--limit", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["differ"] == 14 and found["onnx"] != found["pytorch"]


def test_refusals(weights: Path, model: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = runs / "shapes-fcn16s" / "weights.safetensors"
    for words, said in (
        ([str(other), "--model", str(model)], "holds other weights than"),
        ([str(weights), "--model", str(tmp_path / "no.onnx")], "no such file"),
        ([str(tmp_path / "no.safetensors")], "no such file"),
        ([str(weights), "--model", str(model), "--limit", "0"], "--limit 0"),
    ):
        out = tmp_path / "accuracy.json"
        assert accuracy.main([*words, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err and not out.exists()
