"""runtime/segment.py: the command, run on real files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.__main__ import main as fcn
from fcn.images import overlay, read_image, read_label, voc_palette, write_image
from fcn.record import ROOT
from runtime import segment
from runtime.segment import SUFFIXES, find, main, plan
from runtime.segmenter import Segmenter
from tests.runtime.models import image, save

CPU = ["--provider", "cpu", "--threads", "1"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of different sizes, formats and modes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        write_image(folder / f"p{index}.png", image(20 + 3 * index, 41 - 2 * index, index))
    Image.fromarray(image(9, 8)).save(folder / "photo.JPG", quality=90)
    Image.fromarray(image(9, 8)[:, :, 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([image(7, 5), np.full((7, 5), 99, np.uint8)])).save(folder / "alpha.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image either")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_becomes_palette_pngs(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert main([str(model), str(photos), "--out", str(out), *CPU]) == 0
    assert names(out) == ["alpha.png", "grey.png", "p0.png", "p1.png", "p2.png", "p3.png", "photo.png"]
    with Segmenter.open(model, "cpu", 1) as seg:
        for source in find([photos]):
            written = out / f"{source.stem}.png"
            np.testing.assert_array_equal(read_label(written), seg(read_image(source)))
            with Image.open(written) as png:
                assert png.mode == "P"
                palette = np.array(png.getpalette()).reshape(-1, 3)
                np.testing.assert_array_equal(palette, voc_palette()[: len(palette)])
    said, complained = capsys.readouterr()
    count, per_class = said.splitlines()
    assert count.startswith("7 images, ") and " images/s, ONNX Runtime " in count
    assert count.endswith("CPUExecutionProvider")
    counts = np.bincount(np.concatenate([read_label(path).ravel() for path in out.iterdir()]), minlength=5)
    assert f"bird {100 * counts[3] / counts.sum():.1f} %" in per_class
    assert complained == ""


def test_overlays_and_probabilities(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    picture = photos / "p1.png"
    assert main([str(model), str(picture), "--out", str(out), "--overlay", "--probabilities", *CPU]) == 0
    assert names(out) == ["p1.png", "p1_overlay.png", "p1_probabilities.npy"]
    pixels, label = read_image(picture), read_label(out / "p1.png")
    np.testing.assert_array_equal(read_image(out / "p1_overlay.png"), overlay(pixels, label, voc_palette()))
    probabilities = np.load(out / "p1_probabilities.npy", allow_pickle=False)
    with Segmenter.open(model, "cpu", 1) as seg:
        np.testing.assert_array_equal(probabilities, seg.probabilities(pixels))
        np.testing.assert_array_equal(label, seg(pixels))


def test_probabilities_of_a_label_model_are_refused_before_starting(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = save(tmp_path / "l.onnx", "labels"), tmp_path / "out"
    assert main([str(model), str(photos), "--out", str(out), "--probabilities", *CPU]) == 2
    assert "--io scores" in capsys.readouterr().err and not out.exists()
    assert main([str(model), str(photos), "--out", str(out), *CPU]) == 0


def test_broken_images_are_named_and_skipped(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "p1.png").write_bytes((photos / "p1.png").read_bytes()[:300])
    (photos / "p2.png").write_bytes(b"")
    out, gone = tmp_path / "out", tmp_path / "gone.png"
    assert main([str(model), str(photos), str(gone), "--out", str(out), *CPU]) == 2
    assert names(out) == ["alpha.png", "grey.png", "p0.png", "p3.png", "photo.png"]
    said, complained = capsys.readouterr()
    lines = complained.splitlines()
    assert lines[0].startswith(f"skipped {photos / 'p1.png'}: broken image")
    assert lines[1].startswith(f"skipped {photos / 'p2.png'}: the file is empty")
    assert lines[2].startswith(f"skipped {gone}: no such file")
    assert lines[3].startswith("error: 3 of 8 images were skipped") and len(lines) == 4
    assert said.startswith("5 images, ")


def test_an_image_the_net_refuses_is_skipped_too(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path / "fixed.onnx", size=(9, 8))
    out = tmp_path / "out"
    assert main([str(model), str(photos), "--out", str(out), *CPU]) == 2
    assert names(out) == ["grey.png", "photo.png"]
    assert f"skipped {photos / 'alpha.png'}: {model}: " in capsys.readouterr().err


def test_nothing_but_broken_images(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert main([str(model), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), *CPU]) == 2
    said, complained = capsys.readouterr()
    assert said.startswith("0 images, 0.00 images/s") and "1 of 1 images" in complained
    assert not (tmp_path / "out").exists()


def test_results_that_would_overwrite_one_another_are_refused(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = tmp_path / "p0.bmp"
    write_image(other, image(4, 4))
    assert main([str(model), str(photos), str(other), "--out", str(out), *CPU]) == 2
    complained = capsys.readouterr().err
    assert str(photos / "p0.png") in complained and str(other) in complained
    assert complained.count("\n") == 1 and not out.exists()

    write_image(photos / "p0_overlay.png", image(4, 4))
    assert main([str(model), str(photos), "--out", str(out), "--overlay", *CPU]) == 2
    assert "would both become" in capsys.readouterr().err and not out.exists()
    assert main([str(model), str(photos), "--out", str(out), *CPU]) == 0


def test_an_image_is_never_overwritten(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "p0.png").read_bytes()
    assert main([str(model), str(photos), "--out", str(photos / ".." / photos.name), *CPU]) == 2
    assert "would overwrite the image" in capsys.readouterr().err
    assert (photos / "p0.png").read_bytes() == before


def test_an_image_named_twice_is_done_once(photos: Path) -> None:
    images = find([photos / "p1.png", photos, photos / "p1.png"])
    assert images[0] == photos / "p1.png" and len(images) == 7
    assert images[1:] == sorted(images[1:])


def test_a_dot_in_the_name_stays(tmp_path: Path) -> None:
    (job,) = plan([Path("a.b.jpg")], tmp_path, True, True)
    assert job.label.name == "a.b.png"
    assert job.overlay and job.overlay.name == "a.b_overlay.png"
    assert job.probabilities and job.probabilities.name == "a.b_probabilities.npy"


def test_bad_arguments_are_one_line(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        ([str(model), str(empty), *out], f"{empty}: no images in this folder (.bmp .gif"),
        ([str(tmp_path / "none.onnx"), str(photos), *out], "none.onnx: no such file"),
        ([str(photos / "notes.txt"), str(photos), *out], "notes.txt: not a model file"),
        ([str(model), str(photos), *out, "--provider", "tpu"], "provider 'tpu': choose one of auto, cpu, cuda"),
        ([str(model), str(photos), *out, "--threads", "0"], "threads 0: give 1 or more"),
        ([str(model), str(photos), "--out", str(model), *CPU], "alpha.png: cannot be written"),
    ):
        assert main(arguments) == 2
        complained = capsys.readouterr().err
        assert message in complained
        assert complained.startswith("error: ") and complained.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_many_images_keep_their_results_apart(model: Path, tmp_path: Path) -> None:
    """More images than may wait at once, so that the queues of decoding and writing turn over."""
    photos, out = tmp_path / "many", tmp_path / "out"
    for index in range(30):
        write_image(photos / f"{index:02}.png", np.full((4 + index, 5, 3), 8 * index, np.uint8))
    assert main([str(model), str(photos), "--out", str(out), *CPU]) == 0
    with Segmenter.open(model, "cpu", 1) as seg:
        for path in find([photos]):
            np.testing.assert_array_equal(read_label(out / path.name), seg(read_image(path)))
    assert len(names(out)) == 30, "no temporary file is left"


def test_a_slow_disk_does_not_fill_the_memory(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    written: list[segment.Job] = []
    held: list[int] = []

    def reading(path: Path) -> np.ndarray:
        read.append(path)
        return read_image(path)

    def writing(job: segment.Job, *results: Any) -> None:
        time.sleep(0.01)
        held.append(len(read) - len(written))
        write(job, *results)
        written.append(job)

    write = segment.write
    monkeypatch.setattr(segment, "read_image", reading)
    monkeypatch.setattr(segment, "write", writing)
    for index in range(40):
        write_image(tmp_path / "many" / f"{index:02}.png", image(3, 4, index))
    assert main([str(model), str(tmp_path / "many"), "--out", str(tmp_path / "out"), *CPU]) == 0
    assert len(written) == 40 and max(held) <= 2 * (segment.AHEAD + 2)


def test_it_is_a_command_of_fcn(model: Path, photos: Path, tmp_path: Path) -> None:
    assert fcn(["segment", str(model), str(photos / "p0.png"), "--out", str(tmp_path / "out"), *CPU]) == 0
    assert names(tmp_path / "out") == ["p0.png"]


def test_help_from_another_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "runtime" / "segment.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    said = " ".join(done.stdout.split())
    assert "example:" in said and "--overlay" in said and "(default: auto)" in said


def test_every_suffix_is_one_that_pillow_reads() -> None:
    Image.init()
    assert all(Image.registered_extensions().get(suffix) in Image.OPEN for suffix in SUFFIXES)
