"""Hostile files through the commands: exit code 2, one line that names the file and the fix, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.records import FOLDER
from fcn.__main__ import main
from fcn.images import voc_palette, write_image, write_label
from fcn.record import ROOT
from reference import build, checkpoint
from reference.checkpoint import About
from reference.data.voc import CLASSES, MEAN
from tests.hostile import checkpoints, lists, models, pictures
from tests.hostile.caffe_files import ALL_TYPES, DATA, conv, layer
from tests.hostile.mutate import field
from tests.runtime.models import metadata, model, save

GARBAGE = bytes(range(256)) * 4
PICKLE = b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."
TEXT = b"not found, said the server\n" * 9
TINY = str(FOLDER / "solverstate/train.prototxt")
WEIGHTS = str(FOLDER / "solverstate/tiny_iter_6.caffemodel")
Words = Callable[[Path, Path], list[str]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a narrow net for VOC's classes, a model, an image and its labels."""
    folder = tmp_path_factory.mktemp("good")
    palette = tuple((int(r), int(g), int(b)) for r, g, b in voc_palette()[: len(CLASSES)])
    about = About("handmade", 0, "voc", CLASSES, palette, MEAN)
    checkpoint.save(folder / "net.safetensors", build("voc-fcn32s", width=1 / 64), about)
    save(folder / "net.onnx")
    write_image(folder / "image.png", pictures.PIXELS)
    write_label(folder / "label.png", pictures.IDS, voc_palette())
    return folder


def prototxts() -> list[bytes]:
    texts = (
        DATA + conv("num_output: 3 kernel_size: 3 stride: 0"),
        DATA + conv("num_output: 4294967295 kernel_size: 3"),
        DATA + conv("num_output: 3 kernel_size: 3 weight_filler { std: nan }"),
        DATA + layer("ReLU", "", "a", "b") + layer("ReLU", "", "b", "a"),
        'name: "\\x1b[2J\\n"' + DATA + layer("Python", 'python_param { module: "os" layer: "system" }'),
        "layer {" * 5000,
        ALL_TYPES[:500],
    )
    return [*(text.encode() for text in texts), GARBAGE, PICKLE, TEXT, b"\0", bytes(2**21)]


def caffemodels(file: str, layers: int, name: int, blobs: int) -> list[bytes]:
    whole = (FOLDER / file).read_bytes()
    vast = field(7, field(1, b"\x80\x80\x80\x80\x80\x20")) + field(5, bytes(16))
    shaped = field(layers, field(name, b"conv1") + field(blobs, vast))
    return [whole[:4000], whole[1:], shaped, field(1, b"\xff"), b"\xa2\x06\xff\xff\xff\xff\x7f", GARBAGE, PICKLE, TEXT]


def saved(running: bool) -> list[bytes]:
    whole = checkpoints.written(running)
    header, tensors = checkpoints.split(whole)
    del header["conv1.weight"]
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    return [
        *(whole[:100], whole[:-1], b"\x00\x80\xc6\xa4\x7e\x8d\x03\0" + whole[8:], bytes(flipped)),
        *(checkpoints.join(json.dumps(header).encode(), tensors), GARBAGE, PICKLE, TEXT),
    ]


def images() -> list[bytes]:
    cut = [good()[0].content[:200] for good in (pictures.jpeg_samples, pictures.png_samples)]
    return [*cut, pictures.png(100_000, 100_000), pictures.png(0, 9), *islice(pictures.others(), 6), GARBAGE, TEXT]


def mats() -> list[bytes]:
    whole, _, packed = (sample.wrap(sample.content) for sample in pictures.mat_samples())
    bomb = pictures.compressed(pictures.element(14, bytes(2**25)))
    wrong = pictures.compressed(pictures.matrix(b"GTcls", (1, 1), pictures.element(2, b"x")))
    return [whole[:300], packed[:-9], bomb, wrong, pictures.HEAD, GARBAGE, PICKLE, TEXT]


def onnxs() -> list[bytes]:
    told = metadata().to_properties()
    endless = {**told, "fcn.classes": "[" * 10**5}
    circle = [models.node("Add", ["data", "score"], "score")]
    mute = model().SerializeToString() + field(14, field(1, b"fcn.net") + field(2, b"\xff"))
    outside = models.outside("../../../../../../../../etc/passwd", 0, 60)
    made = [models.graph(circle), outside, mute, model(properties={}).SerializeToString()]
    made += [model(properties=changed).SerializeToString() for changed in (endless, {**told, "fcn.mean": "[1e300]"})]
    return [*made, models.onnx_samples()[2].content[:2000], GARBAGE, PICKLE, TEXT]


def broken_lists() -> list[bytes]:
    names = (b"x" * 5000, b"../../../etc/passwd", b"\x1b[2J", b"a\0b", b"\xff\xfe", b"\n\n", b"/dev/zero")
    return [*names, GARBAGE]


def in_dataset(name: str, folder: str) -> Words:
    """Evaluate on a data set, one file of which is the bad one."""

    def words(good: Path, bad: Path) -> list[str]:
        root = bad.parents[folder.count("/")]
        if bad.suffix != ".txt":
            (root / "split.txt").write_text(f"{bad.stem}\n")
        split = str(bad) if bad.suffix == ".txt" else str(root / "split.txt")
        return ["evaluate", str(good / "net.safetensors"), "--dataset", name, "--data", str(root), "--split", split]

    return words


def training(good: Path, bad: Path) -> list[str]:
    return ["train", "shapes-fcn32s", "--workers", "0", "--out", str(bad.parent.parent)]


STEM = lists.NAMES[0]
RUN = "out/shapes-fcn32s"
# What is attacked: the name of the bad file, its contents, and the command that is given it.
ATTACKS: list[tuple[str, Callable[[], list[bytes]], Words]] = [
    ("net.prototxt", prototxts, lambda good, bad: ["export", str(bad), "--weights", WEIGHTS, "-o", f"{bad}.onnx"]),
    ("net.prototxt", prototxts, lambda good, bad: ["show", str(bad), "--draw", f"{bad}.png"]),
    (
        "new.caffemodel",
        partial(caffemodels, "solverstate/tiny_iter_6.caffemodel", 100, 1, 7),
        lambda good, bad: ["export", TINY, "--weights", str(bad), "-o", f"{bad}.onnx"],
    ),
    (
        "old.caffemodel",
        partial(caffemodels, "v1-small.caffemodel", 2, 4, 6),
        lambda good, bad: ["export", str(FOLDER / "v1-small.prototxt"), "--weights", str(bad), "-o", f"{bad}.onnx"],
    ),
    ("net.safetensors", partial(saved, False), lambda good, bad: ["export", str(bad)]),
    ("net.safetensors", partial(saved, False), lambda good, bad: ["evaluate", str(bad), "--dataset", "shapes"]),
    (
        "net.safetensors",
        partial(saved, False),
        lambda good, bad: ["infer", str(good / "image.png"), "--weights", str(bad), "--out", f"{bad}.png"],
    ),
    (f"{RUN}/snapshot.safetensors", partial(saved, True), training),
    (f"{RUN}/run.json", lambda: [GARBAGE, TEXT, b"[" * 10**5, b"[]", b'{"recipe": 7}', b"9" * 5000], training),
    (
        "image.jpg",
        images,
        lambda good, bad: ["infer", str(bad), "--weights", str(good / "net.safetensors"), "--out", f"{bad}.png"],
    ),
    ("label.png", images, lambda good, bad: ["score", str(good / "label.png"), str(bad)]),
    (f"voc/SegmentationClass/{STEM}.png", images, in_dataset("voc", "voc/SegmentationClass")),
    (f"sbd/cls/{STEM}.mat", mats, in_dataset("sbd", "sbd/cls")),
    *((f"{name}/mine.txt", broken_lists, in_dataset(name, name)) for name in ("voc", "sbd", "camvid")),
    ("net.onnx", onnxs, lambda good, bad: ["segment", str(bad), str(good / "image.png"), "--out", f"{bad}.labels"]),
    ("net.onnx", onnxs, lambda good, bad: ["latency", str(bad), "--out", f"{bad}.latency"]),
]


@pytest.mark.parametrize("name, contents, words", ATTACKS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_answers_in_one_line(
    name: str,
    contents: Callable[[], list[bytes]],
    words: Words,
    good: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / name
    if name.split("/")[0] in ("voc", "sbd", "camvid"):
        lists.dataset(name.split("/")[0], tmp_path / name.split("/")[0], "mine")
    bad.parent.mkdir(parents=True, exist_ok=True)
    command = words(good, bad)
    before = {*tmp_path.rglob("*")} | {bad}
    for content in contents():
        bad.write_bytes(content)
        code = main(command)
        lines = capfd.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1, (code, lines, content[:80])
        assert lines[0].startswith("error: ") and lines[0].isprintable(), lines
        assert (str(bad) in lines[0] or bad.name in lines[0] or str(bad.parent) in lines[0]) and ";" in lines[0], lines
    assert {file for file in tmp_path.rglob("*") if file.name != ".lock"} <= before, "a file was left behind"


def test_bad_images_are_skipped_one_line_each(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = images()
    for index, content in enumerate(bad):
        (tmp_path / f"{index:02}.jpg").write_bytes(content)
    assert main(["segment", str(good / "net.onnx"), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        f"skipped {tmp_path / f'{i:02}.jpg'}" for i in range(len(bad))
    ]
    assert (
        lines[-1].startswith(f"error: {len(bad)} of {len(bad)} images were skipped") and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize(
    "script, name, content",
    [
        ("runtime/segment.py", b"\xff\n.onnx", models.graph([])),
        ("reference/infer.py", b"\xff\x1b[2J.jpg", pictures.png(100_000, 100_000)),
    ],
)
def test_a_script_answers_in_one_line(script: str, name: bytes, content: bytes, good: Path, tmp_path: Path) -> None:
    """In a process of its own, with a file whose very name is hostile."""
    bad = tmp_path / os.fsdecode(name)
    bad.write_bytes(content)
    words = [bad, good / "image.png"] if bad.suffix == ".onnx" else [bad, "--weights", good / "net.safetensors"]
    done = subprocess.run(
        [sys.executable, ROOT / script, *words, "--out", tmp_path / "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith(f"error: {tmp_path}"), done.stderr
    assert lines[0].isprintable() and ";" in lines[0] and [*tmp_path.iterdir()] == [bad]


def test_a_net_that_makes_no_label_map(tmp_path: Path, good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A whole and harmless file that cannot serve: the committed classifier."""
    classifier = str(ROOT / "reference/recipes/shapes-vgg16.safetensors")
    for command in (
        ["infer", str(good / "image.png"), "--weights", classifier, "--out", str(tmp_path / "label.png")],
        ["evaluate", classifier, "--dataset", "shapes", "--split", "val"],
    ):
        assert main(command) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"error: {classifier}: ") and "give an FCN" in lines[0]
