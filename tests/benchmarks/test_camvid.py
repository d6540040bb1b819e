"""The CamVid benchmark from training to figures, on a CamVid of a few small images in the true layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import camvid
from reference.data.camvid import CamVid

PAIRS = {"train": 4, "val": 2, "test": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data/CamVid with labels in 16-pixel blocks, class 4 (pavement) in none of them."""
    root = tmp_path / "data" / "CamVid"
    rng = np.random.default_rng(0)
    for split, count in PAIRS.items():
        for kind in (split, f"{split}annot"):
            (root / kind).mkdir(parents=True)
        names = [f"{split}{i}" for i in range(count)]
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            label = rng.choice([0, 1, 2, 3, 5, 9, 10, 11], (3, 4)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
            Image.fromarray(label).save(root / f"{split}annot" / f"{name}.png")
            Image.fromarray((label[..., None] * 20 + rng.integers(0, 9, (48, 64, 3))).astype(np.uint8)).save(
                root / split / f"{name}.png"
            )
    return root.parent


def test_trains_scores_draws_and_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "runs", tmp_path / "results" / "camvid.json"
    words = ["--data", str(folder), "--arms", "2", "--iterations", "2", "--out", str(out), "--json", str(file)]
    assert camvid.main([*words, "--device", "cpu"]) == 0
    found = json.loads(file.read_text())
    assert (found["data"], found["images"], tuple(found["classes"])) == ("camvid test", 3, CamVid.classes)
    assert [(run["recipe"], run["iterations"], run["start"][:7]) for run in found["runs"]] == [
        ("camvid-squeezenet-random-16s", 2, "random "),
        ("camvid-squeezenet-random-8s", 2, "weights"),
    ]
    for run in found["runs"]:
        assert run["iu"][4] is None or run["iu"][4] == 0  # absent, unless predicted
        seen = [iu for iu in run["iu"] if iu is not None]
        assert run["mean_iu"] == pytest.approx(sum(seen) / len(seen))
        assert run["val"][-1]["iteration"] == 2
    said = capsys.readouterr().out
    assert "IU by class" in said and "camvid-squeezenet-random-8s" in said
    for picture in (file.with_suffix(".png"), out / "grid.png"):
        assert Image.open(picture).width > 300

    assert camvid.main([*words, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("done already") == 2
    assert json.loads(file.read_text())["runs"] == found["runs"]


def test_an_arm_needs_its_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert camvid.main(["--data", str(folder), "--arms", "2", "3"]) == 2
    assert "give the file with --vgg" in capsys.readouterr().err
