"""What this project claims, the committed evidence, and the command that makes it: the table of the report and README.

Figures come from files in benchmarks/results; a claim whose file is missing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.camvid import by_arm
from fcn.files import read_json
from fcn.record import ROOT

# What can run a model file: how a certificate names it, and what has it run.
BACKENDS = {
    "ONNX Runtime on a CPU": r"ONNX Runtime \S+, CPUExecutionProvider",
    "ONNX Runtime on a GPU": r"ONNX Runtime \S+, CUDAExecutionProvider",
    "TensorRT": r"TensorRT \d",
    "TensorRT-RTX": r"TensorRT-RTX \d",
}
NEVER = "never executed"
RESULTS = ROOT / "benchmarks" / "results"
CAFFE, CAMVID = "caffe.json", "camvid.json"


class Claim(NamedTuple):
    """One row."""

    claim: str
    evidence: str
    command: str


KILLED = Claim(
    "killed at any moment, a run goes on from its last snapshot and ends the same, bit for bit",
    "a staged run, killed (kill -9) at 20 moments, in snapshots, evaluations and between stages: weights and logs are "
    "those of an uninterrupted run; also where the disk was full, or the snapshot was cut short",
    "python -m pytest tests/reference/test_killed.py",
)


def claims(results: Path = RESULTS) -> list[Claim]:
    """All rows. Raises BadInput for a file that is no JSON, KeyError for one of another version."""
    found = [KILLED]
    for name, read in ((CAFFE, _caffe), (CAMVID, _camvid)):
        path = results / name
        if path.exists():
            figures = read_json(path)
            command = figures["command"].partition(" --figures")[0]
            found += [Claim(claim, evidence, command) for claim, evidence in read(figures)]
    return found


class Backend(NamedTuple):
    """What ran a model file, or that nothing did: a row of the table of backends."""

    name: str
    ran: str
    """Which version on which machine, and when; NEVER without a certificate that says so."""
    found: str


def backends(results: Path = RESULTS) -> list[Backend]:
    """A row for each certificate of benchmarks/prove.py among the results, and for each backend that has none.

    Raises BadInput for a file that is no JSON, KeyError for one of another version.
    """
    certificates = [read_json(path) for path in sorted(results.rglob("proofs/*.json"))]
    rows = []
    for name, pattern in BACKENDS.items():
        of = [each for each in certificates if re.match(pattern, each["backend"])]
        rows += [Backend(name, _ran(each), _found(each)) for each in of] or [Backend(name, NEVER, "")]
    return rows


def _ran(certificate: Mapping[str, Any]) -> str:
    machine = certificate["machine"]
    return f"{certificate['backend']}; {machine['gpu'] or machine['processor']}; {certificate['date']}"


def _found(certificate: Mapping[str, Any]) -> str:
    engine = f"sha256 {certificate['model_sha256'][:12]}"
    if not certificate["agrees"]:
        return f"{certificate['precision']}: DIVERGES from Caffe, see the certificate; {engine}"
    records = certificate["records"]
    differ, pixels = (sum(each[key] for each in records) for key in ("labels_that_differ", "pixels"))
    return (
        f"{certificate['precision']}: agrees with Caffe on {len(records)} records of {certificate['judged_by']}: every "
        f"top within {_worst(records, 'worst')}, {differ} of {pixels} labels differ; {engine}"
    )


def _caffe(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    records = figures["records"]
    passes = [of for of in records.values() if "blob" in of]
    runs = {name: of for name, of in records.items() if "change of the weights" in of}
    yield (
        "every layer computes what genuine Caffe computes, forward and back",
        f"{len(passes)} records, 1x1 and 375x500 among them: all tops within {_worst(passes, 'blob')} of their "
        f"largest entry, {sum(of['labels that differ'] for of in passes):.0f} labels differ, losses within "
        f"{_worst(passes, 'loss')}, gradients within {_worst(passes, 'gradient')} (relative L2; ties of max-pooling, "
        "listed one by one, aside)",
    )
    yield (
        "so does every step of the solver, staged as the authors stage",
        f"{len(runs)} training runs at full width: losses within {_worst(runs.values(), 'loss')}, history of the score "
        f"layers within {_worst(runs.values(), 'history of score layers')}, of all layers on this processor within "
        f"{_worst(runs.values(), 'history')} (ties of ReLU and pooling, which another processor breaks otherwise; each "
        "is named); weights within two float32 steps beside those; at the third stage's rate of 1e-14 "
        f"{_swallowed(runs['train-voc-fcn8s']['change of the weights'])}",
    )
    resumed = records["solverstate"]
    yield (
        "a run that Caffe began goes on here",
        f"from Caffe's own .solverstate at iteration 6 to 12: weights within {resumed['weights']:.1e}, history within "
        f"{resumed['history']:.1e}; read and written again the file is the same byte for byte",
    )


def _camvid(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    said = "; ".join(
        f"{arm} ({runs[0]['iterations']} iterations a stage, rate from {runs[0]['solver']['base_lr']:g}): "
        + ", ".join(f"{run['recipe'].rsplit('-', 1)[1]} {100 * run['mean_iu']:.1f}" for run in runs)
        for arm, runs in by_arm(figures).items()
    )
    yield (
        "Caffe's files carry real weights to real images",
        f"{figures['data']}, {figures['images']} images, mean IU in percent. {said}",
    )


def _swallowed(difference: float) -> str:
    """Of the changes of weights in FCN-8s, Caffe's against ours."""
    if difference:
        return f"the changes of the weights agree within {difference:.1e}"
    return "all sampled weights end as Caffe's, bit for bit: what float32 swallows there, it swallows here"


def _worst(records: Iterable[Mapping[str, float]], key: str) -> str:
    return f"{max(of[key] for of in records):.1e}"
