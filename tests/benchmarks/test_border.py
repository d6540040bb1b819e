"""The comparison of plain and elided nets, on narrow ones and small images: real libraries, real child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import border, charts
from benchmarks.contenders import Task
from benchmarks.subject import scenes
from export.border import ELIDE, KEEP
from fcn.cli import BadInput
from fcn.images import preprocess, write_image
from fcn.record import ROOT

NARROW = ["--width", "0.03125", "--repeat", "2", "--threads", "1", "--device", "cpu"]


def run(*words: str) -> str:
    """What the command says, in a process of its own: in one with all these libraries, under pytest, a later SIGINT was
    met by a segmentation fault, and other tests send some. (torch.compile, which takes half a minute, has its test in
    test_latency.py.)
    """
    command = [sys.executable, str(ROOT / "benchmarks" / "border.py"), *words]
    env = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_library_plain_and_elided(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "0.png", scenes(1, 33, 47)[0])
    out = ["--out", str(tmp_path / "out")]
    said = run("voc-fcn8s:40x56", *NARROW, "--images", str(tmp_path / "photos"), *out)
    found = json.loads((tmp_path / "out" / "border.json").read_text())
    assert (tmp_path / "out" / "border.png").stat().st_size > 10_000
    (ax,) = charts.border(found).axes
    assert len(ax.patches) == len(found["cases"][0]["rows"])  # a bar each
    (exact,), (at,) = found["exactness"], found["cases"]
    assert exact["pixels"] == sum(h * w for h, w in border.SIZES) + 33 * 47 and exact["photographs"] == 1
    assert exact["labels_unequal"] <= exact["pixels_tied"] and 0 < exact["score_difference"] < border.EXACT
    assert at["multiply_adds"][ELIDE] < 0.7 * at["multiply_adds"][KEEP]
    rows = {row["name"]: row for row in at["rows"]}
    twice = ("PyTorch eager", "OpenVINO", "ONNX Runtime")
    assert rows.keys() == {"OpenCV DNN", *twice, *(f"{name}, elided" for name in twice)}
    for row in rows.values():
        assert row["runs"] == 2 and row["least_ms"] <= row["median_ms"] <= row["p99_ms"]
        assert row["equal_labels"] > 0.999 and (row["elision_gains"] is None) == (row["border"] == KEEP)
    assert "no-such-compiler" in at["absent"]["torch.compile"]
    assert "12 sizes and 1 photographs, elided against plain" in said and "G multiply-adds, elided" in said
    assert "MiB:" not in said

    said = run("--memory", *out)
    again = json.loads((tmp_path / "out" / "border.json").read_text())
    for row in again["cases"][0]["rows"]:
        if row["name"] == "PyTorch eager, elided":
            assert row["peak_mib"] is None
        else:
            assert again["memory"]["idle_mib"] < row["peak_mib"] < 2000
        assert rows[row["name"]].items() <= row.items()  # times are left alone
    assert "MiB: the peak of a process" in said


def test_memory_needs_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert border.main(["--memory", "--out", str(tmp_path)]) == 2
    assert "measure times first" in capsys.readouterr().err


def test_another_function_is_not_timed(tmp_path: Path) -> None:
    arms = border.prepare("voc-fcn8s", 1 / 32, tmp_path, [])
    (tmp_path / "other").mkdir()
    other = border.prepare("voc-fcn-alexnet", 1 / 32, tmp_path / "other", [])
    with pytest.raises(BadInput, match="computes something else"):
        border.compare({KEEP: arms[KEEP], ELIDE: other[ELIDE]}, [], 1)


def test_opencv_takes_the_same_input(tmp_path: Path) -> None:
    """It orders inputs and outputs in its own way; what it computes must be the file's."""
    arms = border.prepare("voc-fcn8s", 1 / 32, tmp_path, [(40, 56)])
    images = scenes(1, 40, 56)
    x = preprocess(images, arms[KEEP].metadata.mean)
    task = Task(arms[KEEP], images, x, torch.device("cpu"), 1)
    theirs, ours = border.WAYS["cpu"]["OpenCV DNN"].make(task).run(), border.onnx_runtime(task).run()
    assert isinstance(theirs, np.ndarray) and isinstance(ours, np.ndarray)
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()  # Winograd's sums


@pytest.mark.parametrize("case", ["voc-fcn8s", "voc-fcn9s:40x56", "voc-fcn8s:40", "voc-fcn8s:0x5"])
def test_a_case_that_is_none(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert border.main([case]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_net_of_two_images_is_no_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert border.main(["nyud-fcn32s-color-hha:40x56", *NARROW]) == 2
    assert "nothing to time" in capsys.readouterr().err
