"""runtime/engine.py, as far as it goes without a GPU: who is refused, in which order, and by which line.

What runs on the card is in test_engine_gpu.py; which profile, how buffers grow and which sizes stay prepared are
test_profiles.py's and test_reuse.py's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fcn.cli import BadInput
from fcn.files import write_json
from fcn.images import write_image
from runtime import segment, sidecar
from runtime.library import load
from runtime.segmenter import Segmenter
from tests.runtime.models import image, save
from tests.runtime.test_device import has_gpu
from tests.runtime.test_sidecar import about

PLAN = b"a plan of nobody's"


def engine(path: Path, **changes: Any) -> Path:
    """A file that is no plan, with a sidecar for it: everything up to the library can be refused by it."""
    path.write_bytes(PLAN)
    made = about(**{"plan_sha256": hashlib.sha256(PLAN).hexdigest(), **changes})
    write_json(sidecar.beside(path), asdict(made))
    return path


def installed(backend: str) -> bool:
    try:
        load(backend)
    except BadInput:
        return False
    return True


@pytest.fixture
def rtx(tmp_path: Path) -> Path:
    """A real plan."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86-64 Linux and Windows)")
    from runtime import build

    save(tmp_path / "m.onnx")
    assert build.main([str(tmp_path / "m.onnx"), "--backend", "tensorrt-rtx"]) == 0
    return tmp_path / "m.engine"


def change(path: Path, **values: Any) -> Path:
    """Change fields of an engine's sidecar."""
    there = json.loads(sidecar.beside(path).read_text())
    write_json(sidecar.beside(path), {**there, **values})
    return path


def test_an_engine_without_a_sidecar(tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_bytes(PLAN)
    with pytest.raises(
        BadInput, match=r"m\.plan\.json: no such file; m\.plan cannot be opened without it; build it ag"
    ):
        Segmenter.open(tmp_path / "m.plan")


def test_a_file_changed_since_its_sidecar(tmp_path: Path) -> None:
    path = engine(tmp_path / "m.engine")
    path.write_bytes(PLAN + b"!")
    with pytest.raises(BadInput, match=r"m\.engine: changed since its sidecar was written; python runtime/build.py "):
        Segmenter.open(path)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_library_that_is_not_installed(backend: str, tmp_path: Path) -> None:
    if installed(backend):
        pytest.skip(f"{backend} is installed")
    package = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-cu13"}[backend]
    with pytest.raises(BadInput, match=rf"not installed.*: pip install {package}==10\.16\.1\.11$"):
        Segmenter.open(engine(tmp_path / "m.engine", backend=backend))


def test_an_engine_of_another_version(rtx: Path) -> None:
    version = load("tensorrt-rtx").version
    change(rtx, version="1.2.0.54")
    with pytest.raises(
        BadInput, match=rf"m\.engine: built by TensorRT-RTX 1\.2\.0\.54, and {version} is installed; python"
    ):
        Segmenter.open(rtx)


def test_no_driver(rtx: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BadInput, match=r"no GPU can be used \(.*\): (install NVIDIA's driver|pip install pycuda)"):
        Segmenter.open(rtx)


def test_from_the_command_line_a_refusal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", image(4, 5))
    (tmp_path / "m.engine").write_bytes(PLAN)
    assert segment.main([str(tmp_path / "m.engine"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and not out and not (tmp_path / "out").exists()


def test_a_fallback_is_the_file_that_was_built(tmp_path: Path) -> None:
    path = engine(tmp_path / "m.engine")
    with pytest.raises(BadInput, match=rf"m\.onnx: not the file that {path} was built from; python runtime/build.py"):
        Segmenter.open(path, fallback=save(tmp_path / "m.onnx"))
    with pytest.raises(BadInput, match=r"m\.onnx: takes inputs of any size; --fallback is for engines"):
        Segmenter.open(tmp_path / "m.onnx", fallback=tmp_path / "m.onnx")


def test_an_engine_does_not_run_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m\.engine: an engine runs on its GPU only; give the \.onnx file"):
        Segmenter.open(engine(tmp_path / "m.engine"), "cpu")
