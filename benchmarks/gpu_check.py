"""Everything that needs an NVIDIA GPU, step by step: tests, engines, proof, soak, latency, border, training.

The subject is a net with random weights: in float32, plain and with its border elided, and in float16 from pixels to
labels. What is not installed is left out, with a line that says what to install; nothing stops at the first failure.
Exit code 1 where a check failed, 2 where there is no GPU. Each step leaves JSON files in OUT, and OUT/check.json says
how each ended.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from benchmarks.contenders import FAILS, Absent
from benchmarks.engines import present
from export.to_onnx import load, parse
from fcn.cli import BadInput, command, parser
from fcn.files import read_json, write_json
from fcn.record import ROOT, machine, record
from reference import checkpoint
from reference.runs import WEIGHTS
from runtime.library import NAMES
from runtime.ort import OrtBackend

FAILED = 1
NET = "voc-fcn8s"
EXPORTS = {
    "fp32": ["--border", "keep"],
    "fp16": ["--precision", "fp16", "--io", "image", "--border", "keep"],
    "elided": ["--border", "elide"],
}
TORCH, ORT = "PyTorch", "ONNX Runtime"
CUDA = ["--provider", "cuda", "--out"]
SHAPES = ["--sizes", "375x500,500x500", "--batch", "1,4", "--streams", "4", "--out"]
WORK, OUT = "out/gpu", "benchmarks/results/gpu"
STEPS = ("tests", "engines", "proof", "soak", "latency", "border", "training")


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("gpu_check.py", __doc__ or "", "python benchmarks/gpu_check.py proof soak")
    args.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; not given: all")
    args.add_argument("--width", default="1", help="factor of the net's channels")
    args.add_argument("--work", type=Path, metavar="DIR", help=f"for models and engines; not given: {WORK}")
    args.add_argument("--out", type=Path, metavar="DIR", help=f"not given: {OUT}")
    options = args.parse_args(argv)
    work, out = ((given or ROOT / usual).resolve() for given, usual in ((options.work, WORK), (options.out, OUT)))
    if unknown := set(options.steps) - set(STEPS):
        raise BadInput(f"step {min(unknown)!r}: there are {', '.join(STEPS)}")
    gpu = machine()["gpu"] or (torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    if gpu is None:
        raise BadInput(
            "no GPU here (nvidia-smi lists none, torch sees none): this needs an NVIDIA GPU with its driver, a CUDA "
            "build of torch, and for engines requirements-gpu.txt (docs/deploy.md)"
        )
    print(f"{gpu}: making {NET} with random weights ...", flush=True)
    models = make_models(work, options.width)
    absent = missing(models["fp32"])
    check = out / "check.json"
    done: dict[str, Any] = read_json(check)["steps"] if check.exists() else {}  # of steps that were run before
    failed = []
    for step in options.steps or STEPS:
        done[step] = [run(words) for words in commands(step, models, absent, work, out)]
        failed += [each["command"] for each in done[step] if each["failed"]]
        write_json(check, record(gpu=gpu, absent=absent, steps=done))
    print(f"\n{check}")
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    for words in failed:
        print(f"FAILED: {words}")
    return FAILED if failed else 0


def make_models(work: Path, width: str) -> dict[str, Path]:
    """A checkpoint with random weights, and the paths of its exports, which lie beside it. Raises BadInput."""
    net, about, _ = load(parse(["--random", NET, "--width", width]))
    assert about
    weights = work / WEIGHTS
    checkpoint.save(weights, net, about)
    models = {name: work / f"{NET}-{name}.onnx" for name in EXPORTS}
    for name, path in models.items():
        words = ["export/to_onnx.py", str(weights), "-o", str(path), *EXPORTS[name]]
        if subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
            raise BadInput(f"{path}: cannot be exported, see above; nothing can be checked without it")
    return models


def missing(model: Path) -> dict[str, str]:
    """What cannot be run here, by name, and what to install. model: a .onnx file."""
    absent = {}
    if not torch.cuda.is_available():
        absent[TORCH] = f"torch {torch.__version__} sees no GPU: install a CUDA build, as pytorch.org tells"
    if importlib.util.find_spec("triton") is None:
        absent["torch.compile"] = "pip install triton"
    try:
        OrtBackend(model, "cuda").close()
    except BadInput as problem:
        absent[ORT] = str(problem)
    for backend, name in NAMES.items():
        try:
            present(backend)
        except Absent as problem:
            absent[name] = str(problem)
    return absent


def commands(step: str, models: dict[str, Path], absent: dict[str, str], work: Path, out: Path) -> list[list[str]]:
    """What a step runs, given what is absent: arguments of Python, the place for what it writes last."""
    builds = {
        path.with_suffix(f".{backend}.engine"): [str(path), "--backend", backend]
        for path in models.values()
        for backend, name in NAMES.items()
        if name not in absent
    }
    runnable = [*(models.values() if ORT not in absent else ()), *builds]
    match step:
        case "tests":
            return [["-m", "pytest", "-q", "-m", "gpu", "--junitxml", str(work / "junit.xml")]]
        case "engines":
            return [["runtime/build.py", *words, "-o", str(engine)] for engine, words in builds.items()]
        case "proof":
            return [["benchmarks/prove.py", str(path), *CUDA, f"{out}/proofs/{path.name}.json"] for path in runnable]
        case "soak":
            return [["benchmarks/soak.py", str(path), *CUDA, f"{out}/soaks/{path.name}.json"] for path in runnable]
        case "latency":
            files = (*models.values(), *builds)
            return [["benchmarks/latency.py", str(path), *SHAPES, f"{out}/latency/{path.name}"] for path in files]
    if TORCH in absent:
        return []
    return [[f"benchmarks/{step}.py", "--device", "cuda", "--out", str(out / step)]]  # border, training


def run(words: list[str]) -> dict[str, Any]:
    """Run Python with these arguments in the project's folder; how it ended."""
    inside = [word.removeprefix(f"{ROOT}{os.sep}") for word in words]  # results hold no path of this machine
    shown = shlex.join(["python", *inside])
    print(f"\n== {shown}", flush=True)
    start = time.perf_counter()
    code = subprocess.run([sys.executable, *inside], cwd=ROOT).returncode
    found: dict[str, Any] = {}
    match words:
        case ["-m", "pytest", *_, junit] if code in (0, 1):
            found = tests(Path(junit))
        case ["benchmarks/latency.py", *_, folder] if code == 0:
            found = {"fail": broken(Path(folder) / "latency.json")}
    failed = bool(code or found.get("fail"))
    about = {"command": shown, "exit_code": code, "seconds": round(time.perf_counter() - start, 1), "failed": failed}
    return {**record(), **about, **found}


def tests(junit: Path) -> dict[str, Any]:
    """How many tests passed, which failed, and how many were skipped for which reason."""
    cases = list(ElementTree.parse(junit).iter("testcase"))
    skipped = Counter(each.get("message", "") for case in cases for each in case.findall("skipped"))
    fail = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if {each.tag for each in case} & {"failure", "error"}
    ]
    return {"passed": len(cases) - skipped.total() - len(fail), "fail": fail, "skipped": dict(skipped)}


def broken(latency: Path) -> dict[str, str]:
    """Contenders that are installed and did not work, by name."""
    absent = {name: reason for at in read_json(latency)["sizes"] for name, reason in at["absent"].items()}
    return {name: reason for name, reason in absent.items() if reason.startswith(FAILS)}


if __name__ == "__main__":
    sys.exit(main())
