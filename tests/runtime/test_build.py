"""runtime/build.py with a real builder: TensorRT-RTX's needs no GPU. TensorRT's own does, and has never run here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fcn.__main__ import main as fcn
from runtime import build, profiles, sidecar
from runtime.library import load
from runtime.progress import progress
from tests.runtime.models import metadata, model, save

TARGETS = ("8.6", "8.9", "12.0")
BY_HAND = ["--minShapes", "1x3x1x1", "--optShapes", "1x3x375x500", "--maxShapes", "4x3x1024x1024"]


@pytest.fixture(scope="module")
def library() -> Any:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86-64 Linux and Windows)")
    return load("tensorrt-rtx")


@pytest.fixture
def small(library: Any, tmp_path: Path) -> Path:
    return save(tmp_path / "m.onnx")


def run(*words: str | Path) -> int:
    return build.main([*map(str, words), "--backend", "tensorrt-rtx"])


def exported(name: str, io: str, precision: str, path: Path) -> onnx.ModelProto:
    """The narrow net as export/to_onnx.py writes it; it is verified elsewhere."""
    from export.graph import to_model
    from export.precision import to_half
    from export.to_onnx import describe
    from tests.export.nets import about, narrow

    net = narrow(name)
    made = (to_half if precision == "fp16" else to_model)(net, io, mean=about(net).mean)
    helper.set_model_props(made, describe(net, about(net), io, precision).to_properties())
    path.write_bytes(made.SerializeToString())
    return made


@pytest.mark.parametrize(
    ("name", "io", "precision"),
    [
        ("voc-fcn32s", "scores", "fp32"),
        ("voc-fcn16s", "scores", "fp32"),
        ("voc-fcn8s", "scores", "fp32"),
        ("voc-fcn8s", "labels", "fp32"),
        ("voc-fcn8s-atonce", "labels", "fp32"),
        ("voc-fcn8s", "image", "fp32"),
        ("voc-fcn8s", "scores", "fp16"),
        ("voc-fcn8s-atonce", "image", "fp16"),
        ("voc-fcn-alexnet", "labels", "fp32"),
        ("voc-fcn-googlenet", "image", "fp16"),
    ],
)
def test_every_export_is_parsed_and_built_with_free_sizes(
    name: str, io: str, precision: str, library: Any, tmp_path: Path
) -> None:
    """For three cards at once. The plan holds the file's own floats: weights, bit for bit, and names.

    Of a plan no more can be read without a card. Weights of convolutions stand in it with channels last;
    deconvolutions are taken apart.
    """
    source = exported(name, io, precision, tmp_path / "m.onnx")
    assert run(tmp_path / "m.onnx", "--computeCapabilities", *TARGETS) == 0
    plan = (tmp_path / "m.engine").read_bytes()
    about = sidecar.read(tmp_path / "m.engine")
    assert about.plan_sha256 == hashlib.sha256(plan).hexdigest()
    declared = (-1, -1, -1, 3) if io == "image" else (-1, 3, -1, -1)
    assert about.ranges() == [profiles.default(declared)] and about.targets == list(TARGETS)
    kind, dtype = ("HALF", np.float16) if precision == "fp16" else ("FLOAT", np.float32)
    assert about.precision[kind] > 20 and not {"HALF", "BF16", "INT8", "FP8"} - {kind} & set(about.precision)
    squaring = sum(node.op_type == "LRN" for node in source.graph.node)
    # The ends of a float16 graph, and LRN.
    assert about.precision["FLOAT"] <= 10 + 2 * squaring or precision == "fp32"
    assert about.described().net == name and about.described().io == io

    weights = {each.name: numpy_helper.to_array(each) for each in source.graph.initializer}
    convolutions = [node for node in source.graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 8
    for node in convolutions:
        kernel, bias = weights[node.input[1]], weights[node.input[2]]
        assert kernel.dtype == dtype and bias.tobytes() in plan
        # Of float16, 1x1 kernels and odd numbers of channels are rearranged.
        if precision == "fp32" or (kernel.shape[1] % 4 == 0 and kernel.shape[2] > 1):
            assert np.ascontiguousarray(kernel.transpose(0, 2, 3, 1)).tobytes() in plan, node.name
    assert about.described().input.encode() in plan and about.described().output.encode() in plan


@pytest.mark.parametrize(
    ("name", "io", "precision"),
    [("voc-fcn8s", "scores", "fp32"), ("voc-fcn8s", "image", "fp16"), ("voc-fcn-googlenet", "labels", "fp32")],
)
def test_elided_borders_are_built_with_free_sizes(
    name: str, io: str, precision: str, library: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their windows follow from the image's size by shape operations, which the parser must take as such; it makes many
    layers of each.
    """
    from export.border import ELIDE
    from export.to_onnx import write_model
    from tests.export.nets import about, narrow

    net = narrow(name)
    write_model(net, tmp_path / "m.onnx", about(net), io, precision=precision, border=ELIDE)
    assert run(tmp_path / "m.onnx", "--computeCapabilities", *TARGETS) == 0
    built = sidecar.read(tmp_path / "m.engine")
    declared = (-1, -1, -1, 3) if io == "image" else (-1, 3, -1, -1)
    assert built.ranges() == [profiles.default(declared)]
    assert built.described().provenance["border"] == ELIDE
    assert sum(built.precision.values()) < (450 if name == "voc-fcn8s" else 500)
    assert "is elided, which no GPU was timed with" in capsys.readouterr().out


def test_the_sidecar_says_what_was_built_of_what(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small.parent / "out" / "model.plan"
    assert run(small, "-o", out, *BY_HAND) == 0
    assert capsys.readouterr().out.startswith(f"{out}: ")
    written = json.loads((out.parent / "model.plan.json").read_text())
    about = sidecar.read(out)
    trt = load("tensorrt-rtx")
    assert (about.backend, about.version) == ("tensorrt-rtx", trt.version) and str(trt) == about.library
    assert (about.gpu, about.capability, about.cuda, about.driver, about.targets) == (None, None, None, None, [])
    assert about.onnx_sha256 == hashlib.sha256(small.read_bytes()).hexdigest() and about.onnx == "m.onnx"
    assert about.plan_sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert about.described() == metadata() and not about.tf32
    assert {"command", "date", "machine", "versions", "build_seconds"} <= set(written)
    log = (out.parent / "model.plan.log").read_text()
    assert "info: " in log and "verbose: " not in log and str(small) in log
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.plan", "model.plan.json", "model.plan.log"]


def test_several_profiles_in_the_order_given(small: Path) -> None:
    shapes = ["--minShapes", "1x3x1x1", "1x3x9x9", "--optShapes", "1x3x8x8", "2x3x9x9", "--maxShapes", "1x3x64x64"]
    assert run(small, *shapes, "--maxShapes", "data:4x3x9x9", "--verbose") == 0
    about = sidecar.read(small.with_suffix(".engine"))
    assert [str(profile) for profile in about.ranges()] == ["1x3x1x1 to 1x3x64x64", "1x3x9x9 to 4x3x9x9"]
    assert "verbose: " in (small.parent / "m.engine.log").read_text()


def test_a_graph_of_one_size_gets_a_profile_of_one_size(library: Any, tmp_path: Path) -> None:
    assert run(save(tmp_path / "m.onnx", size=(24, 32))) == 0
    assert [str(p) for p in sidecar.read(tmp_path / "m.engine").ranges()] == ["1x3x24x32 to 4x3x24x32"]


def test_a_graph_that_takes_pixels(library: Any, tmp_path: Path) -> None:
    """uint8 N x H x W x 3 gets VOC's profile with its axes in that order; the graph casts, and the builder takes it."""
    given = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", "H", "W", 3])
    taken = helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["score"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(nodes, "pixels", [given], [taken])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    plan, ranges, precision = build._plan(build.parse([str(tmp_path / "m.onnx")]), library)
    assert [str(profile) for profile in ranges] == ["1x1x1x3 to 4x1024x1024x3"] and len(plan) > 1000
    assert ranges[0].opt == (1, 375, 500, 3) and set(precision) == {"FLOAT"}


def test_tf32_is_off_unless_asked_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = load("tensorrt-rtx").trt
    seen: list[bool] = []
    configure = build._configure

    def watch(config: Any, *rest: Any) -> Any:
        made = configure(config, *rest)
        seen.append(config.get_flag(trt.BuilderFlag.TF32))
        return made

    monkeypatch.setattr(build, "_configure", watch)
    for words in ([], ["--tf32"]):
        assert run(small, *words) == 0
        assert sidecar.read(small.with_suffix(".engine")).tf32 is bool(words)
    assert seen == [False, True]


def test_memory_pools_and_levels_reach_the_library(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = load("tensorrt-rtx").trt
    seen: list[tuple[int, int]] = []
    configure = build._configure

    def watch(config: Any, *rest: Any) -> Any:
        made = configure(config, *rest)
        seen.append((config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE), config.builder_optimization_level))
        return made

    monkeypatch.setattr(build, "_configure", watch)
    assert run(small, "--memPoolSize", "workspace:1.5G", "--builderOptimizationLevel", "5") == 0
    assert run(small, "--memPoolSize", "workspace:256") == 0  # trtexec's MiB
    assert seen == [(3 * 2**29, 5), (2**28, 3)]


def _one_more(kind: str, name: str) -> onnx.ModelProto:
    """A model that ONNX Runtime takes and TensorRT does not."""
    made = model()
    made.graph.node.append(helper.make_node(kind, ["score"], [f"{name}-out"], name=name))
    return made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.onnx"], "none.onnx: no such file; write one with python export/to_onnx.py"),
        (["text.onnx"], "text.onnx: not an ONNX model"),
        (["foreign.onnx"], "foreign.onnx: not a model written by this project's export"),
        (["det.onnx"], r"det.onnx: TensorRT-RTX \S+ cannot parse it: layer 'odd' \(Unique\): .*"),
        (["m.onnx", "-o", "m.onnx"], "m.onnx: the file's name must end in .engine"),
        (["m.onnx", "--minShapes", "1x3x1x1"], "--minShapes, --optShapes and --maxShapes"),
        (["m.onnx", *BY_HAND[:-1], "4x4x8x8"], "on every axis 1 <= min <= opt <= max"),
        (["m.onnx", "--minShapes", "1x2x1x1", *BY_HAND[2:]], r"1x2x1x1: the network takes \?x3x\?x\?"),
        (["m.onnx", "--computeCapabilities", "9.9"], "--computeCapabilities 9.9: TensorRT-RTX"),
        (["m.onnx", "--timingCacheFile", "t"], "--timingCacheFile: TensorRT-RTX .* leave it out"),
        (["m.onnx", "--versionCompatible"], "--versionCompatible: TensorRT-RTX .* leave it out"),
        (["m.onnx", "--hardwareCompatibilityLevel", "ampere+"], "--hardwareCompatibilityLevel: TensorRT-RTX"),
        (["m.onnx", "-o", "folder.engine"], "folder.engine: is a folder; choose another name with -o"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_builds_nothing(
    words: list[str],
    message: str,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("not a model" * 9)
    save(Path("foreign.onnx"), properties={})
    Path("det.onnx").write_bytes(_one_more("Unique", "odd").SerializeToString())
    Path("folder.engine").mkdir()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("error: ") and error.count("\n") == 1, error
    assert not [path for path in tmp_path.glob("*.engine*") if path.is_file() and path.suffix != ".log"]


def test_a_failed_build_leaves_the_former_engine(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(small) == 0
    before = {path: path.read_bytes() for path in (small.with_suffix(".engine"), small.parent / "m.engine.json")}
    assert run(small, "--minShapes", "1x2x1x1", *BY_HAND[2:]) == 2
    assert all(path.read_bytes() == content for path, content in before.items())


def test_tensorrt_is_never_taken_for_tensorrt_rtx(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        load("tensorrt")
    except Exception as problem:
        assert "pip install tensorrt" in str(problem)
        assert build.main([str(small), "--backend", "tensorrt"]) == 2
        assert "pip install tensorrt" in capsys.readouterr().err
        assert build.main([str(small)]) == 0  # auto: what is there, and said so
        assert "by TensorRT-RTX" in capsys.readouterr().out
    else:
        pytest.skip("TensorRT is installed")


def test_an_interrupt_ends_the_build(small: Path, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives in a callback that Python runs for the library, which would print and drop an exception."""
    before = signal.getsignal(signal.SIGINT)
    with progress(library.trt) as monitor:
        monitor.phase_start("a", None, 3)
        assert monitor.step_complete("a", 0)
        os.kill(os.getpid(), signal.SIGINT)
        assert not monitor.step_complete("a", 1)
        monitor.phase_finish("a")
    assert signal.getsignal(signal.SIGINT) is before

    @contextlib.contextmanager
    def interrupted(trt: Any) -> Iterator[Any]:
        with progress(trt) as monitor:
            os.kill(os.getpid(), signal.SIGINT)
            yield monitor

    monkeypatch.setattr(build, "progress", interrupted)
    assert run(small) == 130
    assert not small.with_suffix(".engine").exists()


def test_a_callback_outside_of_any_phase_harms_nothing(library: Any) -> None:
    with progress(library.trt) as monitor:
        assert monitor.step_complete("never started", 5)
        monitor.phase_finish("never started")


def test_from_the_one_command_line(small: Path) -> None:
    assert fcn(["build", str(small), "--backend", "tensorrt-rtx"]) == 0
    assert sidecar.read(small.with_suffix(".engine")).described() == metadata()
