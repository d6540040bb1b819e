"""runtime/sidecar.py: what stands beside an engine, and who is refused because of it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fcn.cli import BadInput
from fcn.files import write_json
from runtime import build, profiles, sidecar
from runtime.sidecar import Sidecar
from tests.runtime.models import metadata

ENGINE = Path("m.engine")
L4 = ("NVIDIA L4", "8.9")


def about(**changes: Any) -> Sidecar:
    values: dict[str, Any] = {
        "backend": "tensorrt",
        "version": "10.16.1.11",
        "cuda": "13.0",
        "driver": "580.95.05",
        "gpu": L4[0],
        "capability": L4[1],
        "targets": [],
        "profiles": [{"min": [1, 3, 1, 1], "opt": [1, 3, 375, 500], "max": [4, 3, 1024, 1024]}],
        "precision": {"FLOAT": 46},
        "tf32": False,
        "version_compatible": False,
        "hardware_compatibility": "none",
        "onnx": "voc fcn8s.onnx",
        "onnx_sha256": "0" * 64,
        "plan_sha256": "1" * 64,
        "metadata": metadata().to_properties(),
    }
    return Sidecar(**{**values, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    assert sidecar.beside(engine) == tmp_path / "m.engine.json"
    write_json(sidecar.beside(engine), {**asdict(about()), "date": "2026-11-22", "machine": {}})
    read = sidecar.read(engine)
    assert read == about() and read.described() == metadata() and read.library == "TensorRT 10.16.1.11"
    assert read.ranges() == [profiles.Profile(*profiles.VOC)]


def test_a_plan_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m.engine.json: no such file; .*python runtime/build.py"):
        sidecar.read(tmp_path / "m.engine")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"format": 2},
        {"format": 0},
        {"backend": "openvino"},
        {"backend": ["tensorrt"]},
        {"version": "10.x"},
        {"version": 10},
        {"version": "9" * 5000 + ".1.1"},
        {"version_compatible": "no"},
        {"tf32": 1},
        {"gpu": 5},
        {"targets": 8.9},
        {"targets": [8.9]},
        {"profiles": []},
        {"profiles": [{"min": [1, 3, 1, 1]}]},
        {"profiles": [{"min": [1], "opt": [1], "max": [1]}]},
        {"profiles": [{"min": ["1"] * 4, "opt": ["1"] * 4, "max": ["1"] * 4}]},
        {"profiles": 3},
        {"profiles": [{"min": [1, 3, 1, 1], "opt": [1, 3, 2.5, 1], "max": [1, 3, 9, 9]}]},
        {"profiles": [{"min": [True] * 4, "opt": [1] * 4, "max": [1] * 4}]},
        {"precision": None},
        {"precision": {"FLOAT": "46"}},
        {"hardware_compatibility": "turing+"},
        {"onnx": None},
        {"plan_sha256": 0},
        {"metadata": {}},
        {"metadata": {"fcn.format": "1"}},
        {"metadata": None},
        {"metadata": {**metadata().to_properties(), "fcn.mean": 3}},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_sidecar_that_is_none_is_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "m.engine.json", {**asdict(about()), **changes})
    with pytest.raises(BadInput, match=r"m\.engine\.json: .*(build it again|update)"):
        sidecar.read(tmp_path / "m.engine")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 1}'])
def test_a_text_that_is_no_sidecar_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.engine.json").write_text(text)
    with pytest.raises(BadInput, match=r"m\.engine\.json: .*build it again with python runtime/build.py"):
        sidecar.read(tmp_path / "m.engine")


def test_the_command_that_mends_builds_the_same_engine() -> None:
    made = about(
        profiles=about().profiles * 2,
        tf32=True,
        version_compatible=True,
        hardware_compatibility="sameComputeCapability",
    )
    program, script, *words = shlex.split(made.rebuild(Path("out dir/m.engine")))
    assert (program, script) == ("python", "runtime/build.py")
    args = build.parse(words)
    assert (args.model, args.out) == (Path("voc fcn8s.onnx"), Path("out dir/m.engine"))
    free = (-1, 3, -1, -1)
    assert profiles.from_options(args.minShapes, args.optShapes, args.maxShapes, free) == made.ranges()
    assert (args.backend, args.tf32, args.versionCompatible) == ("tensorrt", True, True)
    assert args.hardwareCompatibilityLevel == "sameComputeCapability"


@pytest.mark.parametrize(
    ("built", "installed", "compatible", "runs"),
    [
        ("10.16.1.11", "10.16.1.11", False, True),
        ("10.16.1.11", "10.16.1.12", False, False),
        ("10.0.0b6", "10.16.1.11", True, True),
        ("10.16.1.11", "10.17.0.1", True, True),
        ("10.16.1.11", "10.3.0.26", True, False),
        ("10.16.1.11", "11.4.0.106", True, True),
        ("10.16.1.11", "11.4.0.106", False, False),
        ("11.4.0.106", "10.16.1.11", True, False),
        ("9.3.0.1", "10.16.1.11", True, False),
        ("11.4.0.106", "12.0.0.1", True, False),
    ],
)
def test_versions(built: str, installed: str, compatible: bool, runs: bool) -> None:
    """As NVIDIA's support matrix has it: forwards, and across a major version from 10 to 11 alone."""
    made = about(version=built, version_compatible=compatible)
    if runs:
        made.check_library(ENGINE, installed)
        return
    with pytest.raises(
        BadInput, match=rf"m.engine: built by TensorRT {built}, and {installed} is installed; python run"
    ):
        made.check_library(ENGINE, installed)


@pytest.mark.parametrize(
    ("level", "gpu", "runs"),
    [
        ("none", L4, True),
        ("none", ("NVIDIA RTX 4000 Ada", "8.9"), False),
        ("none", ("NVIDIA L4", "9.0"), False),
        ("sameComputeCapability", ("NVIDIA RTX 4000 Ada", "8.9"), True),
        ("sameComputeCapability", ("NVIDIA H200", "9.0"), False),
        ("ampere+", ("NVIDIA H200", "9.0"), True),
        ("ampere+", ("NVIDIA B200", "10.0"), True),
        ("ampere+", ("Tesla T4", "7.5"), False),
    ],
)
def test_cards(level: str, gpu: tuple[str, str], runs: bool) -> None:
    made = about(hardware_compatibility=level)
    if runs:
        made.check_gpu(ENGINE, *gpu)
        return
    with pytest.raises(
        BadInput, match=rf"m.engine: built for NVIDIA L4, .*, and this is {gpu[0]}, .*; python runtime/b"
    ):
        made.check_gpu(ENGINE, *gpu)


def test_targets_of_tensorrt_rtx() -> None:
    free = about(backend="tensorrt-rtx", version="1.7.1.116", gpu=None, capability=None)
    free.check_gpu(ENGINE, *L4)
    bound = about(backend="tensorrt-rtx", version="1.7.1.116", gpu=None, capability=None, targets=["8.6", "12.0"])
    bound.check_gpu(ENGINE, "NVIDIA GeForce RTX 3090", "8.6")
    with pytest.raises(BadInput, match="this is NVIDIA L4"):
        bound.check_gpu(ENGINE, *L4)
