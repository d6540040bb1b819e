"""The soak: a sound model passes, and what it is there to find is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from benchmarks import soak
from runtime.segmenter import Segmenter
from tests.runtime.models import save


@pytest.fixture
def segmenter(tmp_path: Path) -> Iterator[Segmenter]:
    with Segmenter.open(save(tmp_path / "m.onnx"), "cpu", 1) as opened:
        yield opened


def test_a_narrow_net_passes(model: Path, tmp_path: Path) -> None:
    words = [str(model), "--images", "60", "--largest", "64", "--provider", "cpu", "--threads", "1"]
    assert soak.main([*words, "--out", str(tmp_path / "soak.json")]) == 0
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found.keys() >= {"command", "machine", "versions", "date"}
    (of,) = found["models"]
    assert of["passed"] and of["images"] == 60 and of["callers"] == 4 and of["images_with_other_labels"] == 0
    assert len(set(of["sizes"])) > 20 and all(32 <= int(side) <= 64 for size in of["sizes"] for side in size.split("x"))
    assert "CPUExecutionProvider" in of["backend"] and of["growth_mib"]["card"] is None
    assert len(of["memory_mib"]["process"]) == soak.BLOCKS and min(of["memory_mib"]["process"]) > 50


def test_a_leak_is_found(segmenter: Segmenter) -> None:
    """Of half a MiB an image: 75 MiB from the first quarter of the run to the last."""
    kept = []

    def leaking(image: np.ndarray) -> np.ndarray:
        kept.append(np.ones(2**19, np.uint8))
        return segmenter(image)

    sound, leaks = (soak.soak(each, 200, 4, 40) for each in (segmenter, leaking))
    assert sound["passed"] and abs(sound["growth_mib"]["process"]) < 8
    assert not leaks["passed"] and leaks["growth_mib"]["process"] == pytest.approx(75, abs=8)
    assert soak.line(leaks).startswith("FAILED: 200 images from 4 threads") and "process +" in soak.line(leaks)


def test_a_leak_on_the_card_is_found(segmenter: Segmenter) -> None:
    level = count(1000, 5)  # MiB, a block
    found = soak.soak(segmenter, 20, 2, 40, lambda: float(next(level)))
    assert found["growth_mib"]["card"] == 75 and not found["passed"]
    unread = soak.soak(segmenter, 20, 2, 40, lambda: None)
    assert unread["growth_mib"]["card"] is None and "card unread" in soak.line(unread)


def test_labels_that_change_under_load_are_found(segmenter: Segmenter) -> None:
    """Of a pixel, in one image of a hundred."""
    calls = count()

    def racing(image: np.ndarray) -> np.ndarray:
        label = segmenter(image)
        label[0, 0] ^= next(calls) == 5 * soak.DIFFERENT + 70  # alone, and four at once, before the run
        return label

    found = soak.soak(racing, 100, 4, 40)
    assert found["images_with_other_labels"] == 1 and not found["passed"]


def test_growth() -> None:
    assert soak.growth([1, 4, None, 900, 900, 900, 0, 6, 9]) == 7.5 - 2.5
    assert soak.growth([None, None]) is None and soak.growth([]) is None


@pytest.mark.parametrize("words", [["--images", "19"], ["--callers", "0"], ["--largest", "1"]])
def test_bad_options(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["m.onnx", *words, "--out", str(tmp_path / "soak.json")]) == 2
    assert words[0] in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main([str(tmp_path / "m.engine"), "--out", str(tmp_path / "out")]) == 2
    assert "m.engine: no such file" in capsys.readouterr().err and not (tmp_path / "out").exists()
