"""Engines as contenders: what is said where there is no GPU, and on one the whole table (`make gpu-check`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engines, latency, soak
from benchmarks.subject import find
from fcn.cli import BadInput
from fcn.files import sha256
from runtime import build, sidecar
from runtime.device import open_device
from runtime.library import NAMES, load
from tests.runtime.models import save
from tests.runtime.test_device import has_gpu
from tests.runtime.test_engine import change, engine

SHAPES = [(1, 20, 30), (2, 20, 30)]


def test_an_engine_is_timed_beside_the_file_it_was_built_from(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx")
    path = engine(tmp_path / "m.engine", onnx="m.onnx", onnx_sha256=sha256(tmp_path / "m.onnx"))
    subject = find(str(path), None, tmp_path)
    assert (subject.engine, subject.model, subject.net) == (path, tmp_path / "m.onnx", None)
    assert subject.file == path and "give its .onnx file instead" in subject.missing
    change(path, onnx_sha256="0" * 64)
    subject = find(str(path), None, tmp_path)
    assert subject.model is None and subject.missing == f"{tmp_path / 'm.onnx'}, its source, is not there any more"


def test_no_engine_is_at_hand_without_a_gpu() -> None:
    """Then benchmarks/latency.py exports for the CPU."""
    if has_gpu():
        pytest.skip("this machine has a GPU")
    assert not engines.any_present()


def test_an_engine_that_cannot_run_here_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the runtime's own line: nothing else is timed in its place."""
    if has_gpu():
        pytest.skip("this machine has a GPU")
    path = engine(tmp_path / "m.engine")
    assert latency.main([str(path), "--repeat", "1", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "pip install tensorrt==10.16.1.11" in said.err or "no GPU can be used" in said.err
    with (
        pytest.raises(BadInput, match=r"pip install|no GPU can be used"),
        engines.opened(find(str(path), None, tmp_path), SHAPES, tmp_path, wanted=True),
    ):
        pass


def test_without_a_gpu_each_library_is_absent_with_what_to_install(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    subject = find(str(save(tmp_path / "m.onnx")), None, tmp_path)
    with engines.opened(subject, SHAPES, tmp_path, wanted=True) as (opened, absent):
        assert not opened and list(absent) == list(NAMES.values())
        for reason in absent.values():
            assert "no GPU can be used" in reason and "\n" not in reason
            assert reason.endswith("engines need all of requirements-gpu.txt: see docs/deploy.md")
    with engines.opened(subject, SHAPES, tmp_path, wanted=False) as (opened, absent):
        assert not opened and set(absent.values()) == {"runs on a GPU only, and --device cpu was asked for"}
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_inputs_have_the_files_own_layout(tmp_path: Path) -> None:
    shapes = [
        engines.input_shape(find(str(save(tmp_path / f"{io}.onnx", io)), None, tmp_path), (2, 20, 30))
        for io in ("scores", "image")
    ]
    assert shapes == [(2, 3, 20, 30), (2, 20, 30, 3)]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", NAMES)
def test_on_a_card(backend: str, model: Path, tmp_path: Path) -> None:
    """Both ways: built here of the .onnx file, and as a file of its own. Its rows bear its own names and hash."""
    try:
        open_device()
        library = load(backend)
    except BadInput as missing:
        pytest.skip(f"needs {backend} and a GPU: {missing}")
    alone = tmp_path / "m.onnx"  # without its checkpoint: torch.compile takes a minute a shape
    alone.write_bytes(model.read_bytes())
    words = ["--sizes", "40x56,64x48", "--batch", "1,2", "--streams", "2", "--repeat", "5"]
    assert latency.main([str(alone), *words, "--out", str(tmp_path)]) == 0
    for at in json.loads((tmp_path / "latency.json").read_text())["sizes"]:
        assert NAMES[backend] not in at["absent"]
        check(at["rows"], NAMES[backend], str(library))

    assert build.main([str(alone), "--backend", backend]) == 0
    assert latency.main([str(tmp_path / "m.engine"), *words, "--out", str(tmp_path)]) == 0
    about = sidecar.read(tmp_path / "m.engine")
    for at in json.loads((tmp_path / "latency.json").read_text())["sizes"]:
        assert {row["engine_sha256"] for row in at["rows"]} == {None, about.plan_sha256}
        check(at["rows"], NAMES[backend], str(library))
    assert latency.main([str(tmp_path / "m.engine"), "--sizes", "2000x20", "--out", str(tmp_path / "no")]) == 2
    words = ["--images", "100", "--largest", "90", "--out", str(tmp_path / "soak.json")]
    assert soak.main([str(tmp_path / "m.engine"), *words]) == 0


def check(rows: list[dict], name: str, library: str) -> None:
    """One row of the engine itself and one of its Segmenter."""
    own = {row["name"]: row for row in rows if row["backend"] == library}
    assert list(own) == [name, f"Segmenter, {name}"]
    for row in own.values():
        assert row["provider"] == open_device().name and len(row["engine_sha256"]) == 64 and row["build_s"] > 0
    assert 0 < own[name]["gpu_ms"] < own[name]["median_ms"]
    assert list(own[f"Segmenter, {name}"]["images_per_s_by_callers"]) == ["1", "2"]
