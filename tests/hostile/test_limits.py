"""That the limits against hostile files leave real ones alone, and that each limit holds where it was set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

import reference
from fcn.cli import BadInput, command
from fcn.images import FORMATS, read_image, write_image
from reference import checkpoint
from reference.checkpoint import About
from reference.data import matlab
from reference.data.voc import CLASSES, MEAN
from runtime.ort import OrtBackend
from runtime.segment import SUFFIXES
from tests.hostile import models, pictures
from tests.hostile.victim import Victim


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of half a gigabyte, which pytest would keep."""
    with TemporaryDirectory(dir=tmp_path) as folder:
        yield Path(folder)


def test_the_authors_full_net_loads_from_both_formats(room: Path) -> None:
    """FCN-8s at full width: 538 MB, of which one blob is 411 MB."""
    net = reference.build("voc-fcn8s")
    weight = net.get_parameter("fc6.weight")
    with torch.no_grad():
        weight[-1, -1, -1, -1] = 1.5
    palette = tuple((i, i, i) for i in range(len(CLASSES)))
    about = About("voc-fcn8s", 100_000, "voc", CLASSES, palette, MEAN)
    old, new = room / "fcn8s.caffemodel", room / "fcn8s.safetensors"
    reference.save_caffemodel(net, old)
    checkpoint.save(new, net, about)
    assert min(old.stat().st_size, new.stat().st_size) > 537e6
    with torch.no_grad():
        weight[-1, -1, -1, -1] = 0
    assert not reference.load_caffemodel(net, old).missing
    assert weight.sum() == 1.5
    del net, weight
    assert checkpoint.load(new).net.get_parameter("fc6.weight").sum() == 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux has it")
def test_a_small_file_opens_in_little_memory(tmp_path: Path) -> None:
    """A constant of 980 MB, declared in 1 KB: ONNX Runtime alone would compute it while the model opens."""
    nodes = [
        models.node("Expand", ["one", "shape"], "vast"),
        models.node("ReduceMax", ["vast"], "most"),
        models.node("Conv", ["data", "w"], "x"),
        models.node("Add", ["x", "most"], "score"),
    ]
    ones = {"one": np.ones((1, 1, 1, 1), np.float32), "w": np.ones((5, 3, 1, 1), np.float32)}
    content = models.graph(nodes, {**ones, "shape": np.array([1, 5, 7000, 7000])})
    (tmp_path / "model.onnx").write_bytes(content)
    victim = Victim(tmp_path)
    try:
        victim.open("onnx-open", tmp_path / "model.onnx")  # what ONNX Runtime takes once
        answer = victim.open("onnx-open", tmp_path / "model.onnx")
    finally:
        victim.close()
    assert answer["outcome"] == "read" and answer["memory"] < 100, answer


def test_weights_in_other_peoples_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(60))
    folder = tmp_path / "models"
    folder.mkdir()
    for place in ("../secret", str(tmp_path / "secret"), "../models/../secret"):
        (folder / "model.onnx").write_bytes(models.outside(place, 0, 60))
        with pytest.raises(BadInput, match=r"model\.onnx: "):
            OrtBackend(folder / "model.onnx", "cpu", 1)
    (folder / "weights").write_bytes(bytes(60))
    (folder / "model.onnx").write_bytes(models.outside("weights", 0, 60))
    assert not OrtBackend(folder / "model.onnx", "cpu", 1).run(np.ones((1, 3, 2, 2), np.float32)).any()


def test_a_matlab_label_as_large_as_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of a megabyte, so that it takes no time: what fits is read, header and all, and nothing larger."""
    monkeypatch.setattr(matlab, "LARGEST", 2**20)
    path = tmp_path / "label.mat"
    for rows, kind, fits in ((1023, 9, True), (1024, 9, False), (127, 6, True), (130, 6, False)):
        values = pictures.element(2, bytes(1024 * rows))
        path.write_bytes(pictures.compressed(pictures.truth(pictures.matrix(b"", (1024, rows), values, kind=kind))))
        assert path.stat().st_size < 3000
        if fits:
            assert matlab.read_array(path, "GTcls", "Segmentation").shape == (1024, rows)
        else:
            with pytest.raises(BadInput, match=r"unpacks to more|too large"):
                matlab.read_array(path, "GTcls", "Segmentation")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_of_the_commands_is_read(suffix: str, tmp_path: Path) -> None:
    """What `segment` picks from a folder by its suffix is among the formats that are opened."""
    path = tmp_path / f"image{suffix}"
    pixels = pictures.PIXELS if suffix != ".pgm" else pictures.PIXELS[:, :, 0]
    write_image(path, pixels)
    assert read_image(path).shape == pictures.PIXELS.shape and len(FORMATS) == 8


def test_a_command_that_runs_out_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """torch says so by a RuntimeError; no other one is hidden."""

    @command
    def greedy(argv: object) -> None:
        torch.empty(2**60)

    @command
    def wrong(argv: object) -> None:
        torch.empty(3).reshape(2)

    assert greedy([]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: not enough memory; give a smaller image or net, or a machine with more"
    ]
    with pytest.raises(RuntimeError, match="shape"):
        wrong([])


def test_a_message_is_one_printable_line() -> None:
    told = str(BadInput("net.prototxt:\n layer '\x1b[2J\udcff\u202e' " + "x" * 10**6 + " ; mend it"))
    assert told.isprintable() and told.startswith("net.prototxt: layer '\\x1b[2J\\udcff\\u202e' xxx")
    assert told.endswith("xxx ; mend it") and len(told) < 1100


def test_a_name_that_no_encoding_knows_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Linux allows any bytes in names; standard output does not."""

    @command
    def echo(argv: list[str]) -> None:
        print(argv[0])

    assert echo([os.fsdecode(b"\xff.onnx")]) == 0
    assert capsys.readouterr().out == "\\udcff.onnx\n"
