"""`make gpu-check` as far as it goes without a GPU: its refusal, what it would run, and how it reads what ran."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from benchmarks import gpu_check
from fcn.files import write_json
from fcn.record import ROOT
from runtime.library import NAMES
from tests.runtime.models import save
from tests.runtime.test_device import has_gpu

MODELS = {name: ROOT / "out" / "gpu" / f"voc-fcn8s-{name}.onnx" for name in gpu_check.EXPORTS}
WORK, OUT = ROOT / gpu_check.WORK, ROOT / gpu_check.OUT


def test_without_a_gpu_it_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    assert gpu_check.main(["--work", str(tmp_path), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert (
        said.err.startswith("error: no GPU here") and said.err.count("\n") == 1 and "requirements-gpu.txt" in said.err
    )
    assert not list(tmp_path.iterdir())


def test_an_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["tests", "sok"]) == 2
    assert "step 'sok': there are tests, engines, proof" in capsys.readouterr().err


def planned(*absent: str) -> dict[str, list[list[str]]]:
    missing = dict.fromkeys(absent, "not there")
    return {step: gpu_check.commands(step, MODELS, missing, WORK, OUT) for step in gpu_check.STEPS}


def test_everything_is_run_on_every_backend() -> None:
    steps = planned()
    counts = {step: len(commands) for step, commands in steps.items()}
    assert counts == {"tests": 1, "engines": 6, "proof": 9, "soak": 9, "latency": 9, "border": 1, "training": 1}
    made = {words[words.index("-o") + 1] for words in steps["engines"]}
    assert all(
        {words[1] for words in steps[step]} == made | set(map(str, MODELS.values())) for step in ("proof", "soak")
    )
    for words in (words for commands in steps.values() for words in commands):
        assert words[0] == "-m" or (ROOT / words[0]).exists()
    places = [words[-1] for commands in steps.values() for words in commands]
    assert len(set(places)) == len(places)


def test_what_is_absent_is_left_out_and_nothing_else() -> None:
    steps = planned("TensorRT", "TensorRT-RTX", "PyTorch")
    assert steps["engines"] == steps["border"] == steps["training"] == [] and len(steps["tests"]) == 1
    assert (
        [words[1] for words in steps["soak"]]
        == [words[1] for words in steps["latency"]]
        == list(map(str, MODELS.values()))
    )
    steps = planned("ONNX Runtime", "TensorRT")
    assert len(steps["proof"]) == len(steps["soak"]) == 3 and len(steps["latency"]) == 6
    assert all(words[1].endswith(".tensorrt-rtx.engine") for words in steps["proof"])


@pytest.mark.parametrize("step", ["engines", "proof", "soak", "latency", "border", "training"])
def test_the_commands_have_the_options_that_are_given(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in planned()[step]:
        script = importlib.import_module(words[0].removesuffix(".py").replace("/", "."))
        with pytest.raises(SystemExit):
            script.main(["--help"])
        known = re.findall(r"(?<!\S)--?\w+", capsys.readouterr().out)
        assert {word for word in words if word.startswith("-")} <= set(known)


def test_what_is_missing_is_named_with_what_to_install(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    absent = gpu_check.missing(save(tmp_path / "m.onnx"))
    assert {"PyTorch", "ONNX Runtime", *NAMES.values()} <= set(absent)
    for reason in absent.values():
        assert "install" in reason and "\n" not in reason


def test_a_run_of_tests_is_counted(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 0\n"
        "def test_c(): pytest.skip('needs a card')\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError\n"
        "def test_d(broken): pass\n"
    )
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), "--junitxml", str(tmp_path / "junit.xml")]
    done = gpu_check.run(words)
    assert (done["exit_code"], done["failed"], done["passed"]) == (1, True, 1)
    assert [name.rpartition("::")[2] for name in done["fail"]] == ["test_b", "test_d"]
    assert done["skipped"] == {"needs a card": 1} and done.keys() >= {"machine", "versions", "date", "seconds"}


def test_a_contender_that_does_not_work_is_a_failure(tmp_path: Path) -> None:
    absent = {"TensorRT": "not installed", "TensorRT-RTX": "fails here: no kernel"}
    write_json(tmp_path / "latency.json", {"sizes": [{"absent": absent}]})
    assert gpu_check.broken(tmp_path / "latency.json") == {"TensorRT-RTX": "fails here: no kernel"}


def test_a_command_that_fails_is_a_failure() -> None:
    done = gpu_check.run(["-c", "import sys; sys.exit(3)"])
    assert (done["exit_code"], done["failed"]) == (3, True) and done["command"].startswith("python -c")
    assert gpu_check.run(["-c", ""])["failed"] is False
