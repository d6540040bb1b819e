"""export/to_onnx.py: the file with its metadata, and the command from each of its sources."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.graph import IO
from export.nodes import Graph, emits
from export.to_onnx import describe, export_onnx, load, main, parse, weights_sha256
from export.verify import Disagreement
from fcn.cli import BadInput
from fcn.files import sha256
from fcn.images import preprocess, voc_palette
from fcn.record import ROOT
from reference import build, checkpoint
from reference.caffe import save_caffemodel, save_prototxt
from reference.data.voc import CLASSES, MEAN
from reference.layers import Convolution, Input, Layer
from reference.net import Net, NetSpec
from runtime import Segmenter
from runtime.metadata import Metadata
from tests.export.nets import WIDTH, about, blobs, narrow, small


def properties(path: Path) -> dict[str, str]:
    """The file's metadata_props."""
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


# --- the function -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", IO)
def test_the_file_says_what_it_is(io: str, tmp_path: Path) -> None:
    net = narrow()
    export_onnx(net, tmp_path / "net.onnx", about(net), io)
    said = Metadata.from_properties(properties(tmp_path / "net.onnx"))
    assert said == describe(net, about(net), io)
    assert (said.net, said.classes, said.mean, said.void) == ("voc-fcn8s", CLASSES, MEAN, 255)
    assert said.io == io and said.input == ("image" if io == "image" else "data")
    assert said.output == ("score" if io == "scores" else "label")
    assert said.provenance == {
        **about(net).provenance,
        "recipe": "voc-fcn8s",
        "iteration": 100000,
        "dataset": "voc",
        "precision": "fp32",
        "border": "keep",
    }


@pytest.mark.parametrize("io", IO)
def test_the_runtime_gives_the_nets_labels(io: str, tmp_path: Path) -> None:
    net = narrow()
    export_onnx(net, tmp_path / "net.onnx", about(net), io)
    picture = np.random.RandomState(3).randint(0, 256, (45, 62, 3)).astype(np.uint8)
    score = blobs(net, ["score"], data=preprocess([picture], MEAN))["score"]
    with Segmenter.open(tmp_path / "net.onnx", "cpu", threads=1) as segmenter:
        assert np.mean(segmenter(picture) == score[0].argmax(0)) > 0.999  # means are subtracted in float64 and float32


@pytest.mark.parametrize(
    ("words", "border"),
    [
        ([], "elide"),
        (["--io", "image"], "elide"),
        (["--precision", "fp16"], "keep"),
        (["--precision", "fp16", "--border", "elide"], "elide"),
        (["--border", "keep"], "keep"),
    ],
)
def test_the_command_elides_what_a_cpu_runs(words: list[str], border: str, tmp_path: Path) -> None:
    net = narrow()
    checkpoint.save(tmp_path / "w.safetensors", net, about(net))
    assert main([str(tmp_path / "w.safetensors"), *words]) == 0
    said = Metadata.from_properties({p.key: p.value for p in onnx.load(str(tmp_path / "w.onnx")).metadata_props})
    assert said.provenance["border"] == border


def test_channels_that_are_no_colours_stay_in_their_order(tmp_path: Path) -> None:
    """HHA, as the authors' nyud_layers.py reads it: the net sees what `Nyud.prepare` gives, through the runtime too."""
    net, mean = narrow(), (132.431, 94.076, 118.477)
    said = about(net, mean=mean, channel_order="RGB")
    checkpoint.save(tmp_path / "hha.safetensors", net, said)
    saved = checkpoint.load(tmp_path / "hha.safetensors")
    assert saved.about == said
    export_onnx(saved.net, tmp_path / "hha.onnx", saved.about)
    picture = np.random.RandomState(3).randint(0, 256, (45, 62, 3)).astype(np.uint8)
    blob = (picture.astype(np.float32) - np.array(mean)).astype(np.float32).transpose(2, 0, 1)[None]
    score = blobs(net, ["score"], data=blob)["score"]
    with Segmenter.open(tmp_path / "hha.onnx", "cpu", threads=1) as segmenter:
        found = segmenter.scores(picture)
    assert np.abs(found - score[0]).max() < 1e-5 * np.abs(score).max()
    assert np.mean(found.argmax(0) == blobs(net, ["score"], data=blob[:, ::-1].copy())["score"][0].argmax(0)) < 0.99
    with pytest.raises(BadInput, match="in the order RGB: export it with --io labels"):
        export_onnx(saved.net, tmp_path / "image.onnx", saved.about, "image")

    save_prototxt(net, tmp_path / "caffe.prototxt", deploy=True)
    save_caffemodel(net, tmp_path / "caffe.caffemodel")
    words = [
        str(tmp_path / "caffe.prototxt"),
        "--weights",
        str(tmp_path / "caffe.caffemodel"),
        "--channel-order",
        "RGB",
    ]
    assert main([*words, "--mean", *map(str, mean)]) == 0
    with Segmenter.open(tmp_path / "caffe.onnx", "cpu", threads=1) as segmenter:
        assert np.array_equal(segmenter.scores(picture).argmax(0), found.argmax(0))


def test_without_a_description_the_file_has_no_metadata(tmp_path: Path) -> None:
    export_onnx(narrow(), tmp_path / "net.onnx", expose=["pool3", "score"])
    model = onnx.load(str(tmp_path / "net.onnx"))
    assert not model.metadata_props and [x.name for x in model.graph.output] == ["score", "pool3"]


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    net = narrow()
    checkpoint.save(tmp_path / "w.safetensors", net, about(net))
    files = [tmp_path / f"{i}.onnx" for i in range(2)]
    for path in files:
        loaded = checkpoint.load(tmp_path / "w.safetensors")
        export_onnx(loaded.net, path, loaded.about)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_hash_of_the_weights(tmp_path: Path) -> None:
    net = small(Convolution(name="one", bottoms=("data",), tops=("one",), num_output=2, kernel_size=(1, 3)))
    bias, weight = (net.state_dict()[f"one.{name}"].numpy().tobytes() for name in ("bias", "weight"))
    expected = hashlib.sha256(b"one.bias float32 2\n" + bias + b"one.weight float32 2x4x1x3\n" + weight)
    assert weights_sha256(net) == expected.hexdigest()
    with torch.no_grad():
        net.get_parameter("one.bias")[1] += 1e-3
    assert weights_sha256(net) != expected.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Halved(Layer):
    """A layer whose emitter is wrong: PyTorch halves, ONNX does not."""

    def forward(self, blobs: object, *bottoms: torch.Tensor, training: bool = False) -> torch.Tensor:
        return bottoms[0] / 2


@emits(Halved)
def _halved(graph: Graph, layer: Halved, bottoms: Sequence[str], top: str) -> None:
    graph.node("Identity", bottoms, top, layer.name)


def test_a_file_that_fails_verification_never_appears(tmp_path: Path) -> None:
    net = Net(
        NetSpec("half", (Input(name="data", tops=("data",), shape=(1, 3, 4, 4)), Halved(**wired("data", "score"))))
    )
    (tmp_path / "net.onnx").write_text("an older file")
    with pytest.raises(Disagreement, match=r"half: .* disagree at 1x1: score differs .*; nothing written"):
        export_onnx(net, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "an older file"


def wired(bottom: str, top: str) -> dict[str, Any]:
    """Name, bottom and top of a layer."""
    return {"name": top, "bottoms": (bottom,), "tops": (top,)}


def test_a_description_that_contradicts_the_net(tmp_path: Path) -> None:
    net = narrow()
    for changes, message in (
        ({"classes": CLASSES[:-1]}, "score has 21 channels, but 20 classes are named"),
        ({"palette": ()}, "palette"),
        ({"mean": (1.0, 2.0, float("inf"))}, "mean"),
    ):
        with pytest.raises(BadInput, match=message):
            export_onnx(net, tmp_path / "net.onnx", about(net, **changes))
    assert not list(tmp_path.iterdir())


# --- the command --------------------------------------------------------------------------------------------


def test_from_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = narrow("voc-fcn16s")
    checkpoint.save(tmp_path / "weights.safetensors", net, about(net))
    assert main([str(tmp_path / "weights.safetensors"), "--io", "labels"]) == 0
    out = tmp_path / "weights.onnx"
    said = Metadata.from_properties(properties(out))
    assert (said.net, said.io, said.weights_sha256) == ("voc-fcn16s", "labels", weights_sha256(net))
    printed = capsys.readouterr().out
    assert f"sha256 {sha256(out)}" in printed and "agrees with PyTorch at 1x1" in printed and str(out) in printed


def test_from_a_caffe_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, files = narrow("voc-fcn8s-atonce"), (tmp_path / "deploy.prototxt", tmp_path / "at-once.caffemodel")
    save_prototxt(net, files[0])
    save_caffemodel(net, files[1])
    command = [str(files[0]), "--weights", str(files[1]), "-o", str(tmp_path / "net.onnx"), "--mean", "1", "2.5", "3"]
    assert main(command) == 0
    said = Metadata.from_properties(properties(tmp_path / "net.onnx"))
    assert (said.weights_sha256, said.mean, said.classes) == (weights_sha256(net), (1.0, 2.5, 3.0), CLASSES)
    assert said.palette == tuple(map(tuple, voc_palette()[:21].tolist()))


def test_a_caffe_net_that_is_no_segmentation_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build("vgg16", width=1 / 64, size=32)
    save_prototxt(net, tmp_path / "vgg.prototxt")
    save_caffemodel(net, tmp_path / "vgg.caffemodel")
    assert main([str(tmp_path / "vgg.prototxt"), "--weights", str(tmp_path / "vgg.caffemodel")]) == 0
    assert "note: vgg16 does not make one label map of one image" in capsys.readouterr().out
    assert not properties(tmp_path / "vgg.onnx")


def test_random_weights_are_seeded_and_loud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        assert main(["--width", str(WIDTH), "-o", f"{name}.onnx"]) == 0
    assert main(["--random", "voc-fcn32s", "--width", str(WIDTH), "--seed", "7"]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "warning: exporting voc-fcn8s with RANDOM weights (seed 0); its labels mean nothing"
    assert errors[2] == "warning: exporting voc-fcn32s with RANDOM weights (seed 7); its labels mean nothing"
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert "seed 7" in Metadata.from_properties(properties(Path("out/voc-fcn32s.onnx"))).provenance["recipe"]


@pytest.mark.parametrize("name", ["nyud-fcn32s-color-hha", "siftflow-fcn16s", "voc-fcn-googlenet"])
def test_nets_of_two_images_two_tasks_and_another_trunk(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command verifies them all; only a net of one image and one task says how to run it."""
    path = tmp_path / "model.onnx"
    assert main(["--random", name, "--width", "0.03125", "--io", "labels", "-o", str(path)]) == 0
    said = capsys.readouterr().out
    assert "agrees with PyTorch at 1x1, 2 of 37x53" in said
    assert bool(properties(path)) is (name == "voc-fcn-googlenet") is (f"note: {name} does not make" not in said)


def test_without_arguments_the_latest_run_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("voc-fcn16s", "voc-fcn32s")):
        path = Path("out/runs") / name / "weights.safetensors"
        checkpoint.save(path, narrow(name), about(narrow(name)))
        os.utime(path, (10**9 - age, 10**9 - age))
    assert main([]) == 0
    assert Metadata.from_properties(properties(Path("out/runs/voc-fcn16s/weights.onnx"))).net == "voc-fcn16s"
    assert not capsys.readouterr().err


def test_without_arguments_and_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is loaded, at full width; writing it takes half a minute and is left to the command by hand."""
    monkeypatch.chdir(tmp_path)
    net, described, out = load(parse([]))
    assert net.get_parameter("fc6.weight").shape == (4096, 512, 7, 7) and out == Path("out/voc-fcn8s.onnx")
    assert described is not None and described.recipe == "random weights, seed 0"
    says = "warning: no trained run found: exporting voc-fcn8s with RANDOM weights (seed 0); its labels mean nothing\n"
    assert capsys.readouterr().err == says


def test_as_a_file_from_any_directory(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "export" / "to_onnx.py")]
    done = subprocess.run([*script, "--width", "0.02"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and done.stderr.startswith("warning: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["voc-fcn8s.onnx"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whole and with broken sources."""
    folder = tmp_path_factory.mktemp("sources")
    net = narrow("voc-fcn32s")
    checkpoint.save(folder / "good.safetensors", net, about(net))
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").touch()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    del header["__metadata__"]
    foreign = json.dumps(header).encode()
    (folder / "foreign.safetensors").write_bytes(len(foreign).to_bytes(8, "little") + foreign + whole[8 + length :])
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    save_prototxt(net, folder / "32s.prototxt")
    save_caffemodel(narrow("voc-fcn16s"), folder / "16s.caffemodel")
    save_caffemodel(build("voc-fcn32s", width=1 / 8), folder / "wide.caffemodel")
    (folder / "empty.caffemodel").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.safetensors"], "missing.safetensors: no such file"),
        (["empty.safetensors"], "empty.safetensors: the file is empty"),
        (["cut.safetensors"], "cut.safetensors: not a readable safetensors file"),
        (["foreign.safetensors"], "foreign.safetensors: not a checkpoint"),
        (["photo.jpg"], "photo.jpg: give a checkpoint (.safetensors) or a Caffe net (.prototxt)"),
        (["32s.prototxt"], "give it with --weights"),
        (["32s.prototxt", "--weights", "empty.caffemodel"], "empty.caffemodel: the file is empty"),
        (["32s.prototxt", "--weights", "16s.caffemodel"], "16s.caffemodel: lacks upscore.weight of 32s.prototxt"),
        (["32s.prototxt", "--weights", "wide.caffemodel"], "wide.caffemodel"),
        (["missing.prototxt", "--weights", "16s.caffemodel"], "missing.prototxt: no such file"),
        (["good.safetensors", "--weights", "16s.caffemodel"], "--channel-order belong to a Caffe net"),
        (["good.safetensors", "--mean", "1", "2", "3"], "--channel-order belong to a Caffe net"),
        (["good.safetensors", "--width", "0.5"], "good.safetensors has its own weights"),
        (["good.safetensors", "--random", "voc-fcn8s"], "good.safetensors has its own weights"),
        (["good.safetensors", "-o", "net.engine"], "net.engine: the file's name must end in .onnx"),
        (["good.safetensors", "-o", "photo.jpg/net.onnx"], "cannot be written"),
        (["--width", "0"], "--width 0.0: give a factor"),
        (["--width", "nan"], "--width nan: give a factor"),
        (["--seed", "-1"], "--seed -1: give a number"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert sorted(files.rglob("*")) == before
