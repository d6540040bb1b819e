from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import contenders, latency, roofline
from benchmarks.contenders import Contender, Origin
from benchmarks.subject import Subject, scenes
from export.to_onnx import randomise, weights_sha256
from fcn.cli import BadInput
from fcn.images import preprocess
from reference import checkpoint, surgery
from reference.builder import Builder
from reference.checkpoint import About
from reference.data.shapes import Shapes
from reference.net import Net
from runtime.segmenter import labels
from tests.runtime.models import MEAN, WEIGHT, metadata, save

ROW = {
    *("name", "backend", "provider", "precision", "settings", "engine_sha256", "build_s", "begins_with"),
    *("equal_labels", "runs", "median_ms", "p90_ms", "p99_ms", "images_per_s", "images_per_s_by_callers"),
    *("gpu_ms", "bound_ms", "attained", "attained_on_gpu"),
}
FAST = ["--sizes", "40x56", "--threads", "1", "--device", "cpu", "--repeat", "3"]


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile takes half a minute: one test is enough."""
    monkeypatch.setenv("CXX", "no-such-compiler")


def figures(out: Path) -> dict:
    return json.loads((out / "latency.json").read_text())


def test_a_file_that_takes_pixels_gets_pixels(tmp_path: Path) -> None:
    path, images = save(tmp_path / "image.onnx", "image"), scenes(2, 20, 30)
    subject = Subject("", path, metadata("image"), None)
    task = contenders.Task(subject, images, preprocess(images, MEAN), torch.device("cpu"), 1)
    tensor, picture = contenders.onnx_runtime(task)
    assert tensor.begins_with == picture.begins_with == contenders.IMAGE
    expected = labels(np.einsum("kc,nchw->nkhw", WEIGHT[:, :, 0, 0], task.x))
    for contender in (tensor, picture):
        assert np.mean(contenders.label_map(contender.run()) == expected) > 0.99  # sums in another order


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The checkpoint of an FCN-2s of one convolution: torch.compile compiles C++ for each layer, seconds each."""
    n = Builder("tiny-fcn2s")
    data = n.input("data", 3)
    pooled = n.max_pool("pool1", n.relu("relu1", n.conv("conv1", data, 8, kernel=3, pad=1)))
    n.crop("score", n.upscore("upscore", n.conv("score_fr", pooled, 12, kernel=1), 12, kernel=4, stride=2), like=data)
    net = Net(n.spec())
    randomise(net, 0)
    surgery.interpolate(net)
    shapes = Shapes("val")
    palette = tuple((r, g, b) for r, g, b in shapes.palette.tolist())
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, net, About("tiny", 0, "shapes", shapes.classes, palette, shapes.mean))
    return path


def test_every_way_to_run_a_checkpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    assert latency.main([str(tiny), *FAST, "--batch", "2", "--streams", "2", "--out", str(tmp_path)]) == 0
    found = figures(tmp_path)
    assert found.keys() >= {"command", "machine", "date", "versions", "net", "source", "io", "device", "threads"}
    assert (found["net"], found["threads"], found["device"]) == ("tiny-fcn2s", 1, "cpu")
    assert found["weights_sha256"] == weights_sha256(checkpoint.load(tiny).net)
    (at,) = found["sizes"]
    assert (at["batch"], at["height"], at["width"]) == (2, 40, 56)
    rows = {row["name"]: row for row in at["rows"]}
    names = ["PyTorch eager", "torch.compile", "ONNX Runtime", "Segmenter, ONNX Runtime"]
    assert list(rows) == [name for name in names if name not in at["absent"]]
    assert set(at["absent"]) - {"torch.compile"} == {"PyTorch CUDA graph", "TensorRT", "TensorRT-RTX"}
    for row in rows.values():
        assert set(row) == ROW
        assert row["runs"] == 3 and 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_s"] == pytest.approx(2e3 / row["median_ms"], rel=1e-2)
        assert row["equal_labels"] >= latency.AGREEMENT
        assert row["attained"] == pytest.approx(row["bound_ms"] / row["median_ms"], rel=0.01)
        assert (row["precision"], row["engine_sha256"], row["gpu_ms"]) == ("float32", None, None)
        assert row["backend"].startswith(("PyTorch ", "ONNX Runtime "))
    assert list(rows["Segmenter, ONNX Runtime"]["images_per_s_by_callers"]) == ["1", "2"]
    assert rows["ONNX Runtime"]["images_per_s_by_callers"] == {}
    assert rows["ONNX Runtime"]["provider"] == "CPUExecutionProvider"
    assert rows["Segmenter, ONNX Runtime"]["begins_with"] == "image"
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "TensorRT-RTX is absent: runs on a GPU only, and --device cpu" in said
    assert (
        "not to be compared: FCN-8s takes about 175 ms on a NVIDIA Tesla K40c" in said
        and f"{rows['ONNX Runtime']['median_ms']:.2f}" in said
    )
    if "torch.compile" in at["absent"]:
        pytest.skip(f"all but torch.compile, which {at['absent']['torch.compile']}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
def test_every_way_to_run_a_checkpoint_on_a_card(tiny: Path, tmp_path: Path) -> None:
    """All give the labels of PyTorch eager, or nothing would have been timed."""
    words = ["--sizes", "40x56", "--batch", "2", "--repeat", "3", "--device", "cuda", "--out", str(tmp_path)]
    assert latency.main([str(tiny), *words]) == 0
    found = figures(tmp_path)
    (at,) = found["sizes"]
    rows = {row["name"]: row for row in at["rows"]}
    assert {"PyTorch eager", "PyTorch CUDA graph"} <= set(rows) and set(found["rates"]["flops"]) == {
        "float32",
        "float16",
    }
    assert not [reason for reason in at["absent"].values() if reason.startswith(contenders.FAILS)]
    for row in rows.values():
        assert row["provider"] in ("CUDAExecutionProvider", torch.cuda.get_device_name()) and row["attained"] > 0
    for name in ("PyTorch eager", "PyTorch CUDA graph"):
        assert rows[name]["backend"] == f"PyTorch {torch.__version__}"


def test_a_file_with_its_checkpoint_beside_it(model: Path, weights: Path, no_compiler: None, tmp_path: Path) -> None:
    assert latency.main([str(model), *FAST, "--sizes", "33x20,16x16", "--out", str(tmp_path)]) == 0
    found = figures(tmp_path)
    assert [(at["height"], at["width"]) for at in found["sizes"]] == [(33, 20), (16, 16)]
    for at in found["sizes"]:
        assert [row["name"] for row in at["rows"]] == ["PyTorch eager", "ONNX Runtime", "Segmenter, ONNX Runtime"]
        assert at["costs"] == asdict(roofline.costs(checkpoint.load(weights).net.spec, 1, at["height"], at["width"]))
        assert at["absent"]["torch.compile"].startswith("needs a C++ compiler, and there is no no-such-compiler")
    assert found["source"] == str(model)


def test_a_file_alone_is_timed_alone(model: Path, runs: Path, tmp_path: Path, no_compiler: None) -> None:
    alone = shutil.copy(model, tmp_path / "alone.onnx")
    # Another net's checkpoint beside it is not taken for its own.
    shutil.copy(runs / "shapes-fcn32s" / "weights.safetensors", tmp_path)
    assert latency.main([str(alone), *FAST, "--out", str(tmp_path)]) == 0
    found = figures(tmp_path)
    assert found["border"] == "keep"
    (at,) = found["sizes"]
    assert [row["name"] for row in at["rows"]] == ["ONNX Runtime", "Segmenter, ONNX Runtime"]
    assert at["absent"]["PyTorch eager"] == at["absent"]["torch.compile"]
    assert "no checkpoint with the weights of" in at["absent"]["PyTorch eager"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.engine", b"ftrt"),
        ("net.plan", b"ftrt"),
        ("empty.onnx", b""),
        ("text.onnx", b"not a model\n"),
        ("missing.onnx", None),
        ("net.bin", b"?"),
        ("empty.safetensors", b""),
        ("text.safetensors", b"not a checkpoint"),
    ],
)
def test_what_cannot_be_executed_is_refused(
    name: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert latency.main([str(path), *FAST, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and name in said.err
    assert not (tmp_path / "out").exists() and "ms" not in said.out


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "0"],
        ["--batch", "1,x"],
        ["--streams", "0"],
        ["--sizes", "375"],
        ["--sizes", "0x5"],
        ["--sizes", "axb"],
        ["--repeat", "0"],
        ["--threads", "0"],
    ],
)
def test_bad_options(words: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency.main([str(model), *FAST, *words, "--out", str(tmp_path / "out")]) == 2
    assert words[0] in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_weights_of_another_net_are_refused(
    model: Path, runs: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs / "shapes-fcn16s" / "weights.safetensors"
    for words in ([str(model), "--weights", str(other)], [str(weights), "--weights", str(other)]):
        assert latency.main([*words, *FAST, "--out", str(tmp_path / "out")]) == 2
    assert "holds other weights than" in capsys.readouterr().err


def test_contenders_that_disagree_are_not_timed() -> None:
    scores = np.random.RandomState(0).rand(1, 3, 20, 20).astype(np.float32)
    best = scores.argmax(1).astype(np.uint8)
    origin = Origin("", "", "float32")
    same = Contender("scores", "", origin, lambda: torch.from_numpy(scores))
    labels = Contender("labels", "", origin, lambda: best)
    assert latency.agreement([same, labels]) == {"scores": 1.0, "labels": 1.0}
    wrong = Contender("wrong", "", origin, lambda: np.where(np.arange(20) < 1, best + 1, best))
    with pytest.raises(BadInput, match=r"wrong gives the labels of scores on 95\.00%"):
        latency.agreement([same, labels, wrong])
    near = np.where((np.arange(20) < 1) & (np.arange(20)[:, None] < 3), best + 1, best)  # on 99.25 %
    half = Contender("half", "", Origin("", "", "float16"), lambda: near)
    assert latency.agreement([same, half])["half"] == 0.9925
    with pytest.raises(BadInput, match=r"half gives the labels of scores on 99\.25% of the pixels only, 99\.95%"):
        latency.agreement([same, Contender("half", "", origin, lambda: near)])


def test_a_compiler_that_fails_leaves_the_contender_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = latency.find(str(model), None, model.parent)
    images = scenes(1, 16, 16)
    task = contenders.Task(subject, images, latency.preprocess(images, (0, 0, 0)), torch.device("cpu"), 1)

    def broken(*arguments: object, **options: object) -> object:
        def run(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("CppCompileError\nx.cpp:2:10: fatal error: Python.h: no such file\nand a long log")

        return run

    monkeypatch.setattr(contenders, "_need_compiler", lambda device: None)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(contenders.Absent, match=r"^fails here: x.cpp:2:10: fatal error: Python\.h: no such file$"):
        contenders.compiled(task)


def test_scenes_fill_any_size() -> None:
    images = scenes(2, 400, 300)
    assert images.shape == (2, 400, 300, 3) and not np.array_equal(images[0], images[1])
    assert images.std(axis=(1, 2, 3)).min() > 10
