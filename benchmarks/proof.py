"""What this project claims, the committed evidence, and the command that makes it: the table of the report and README.

Figures come from files in benchmarks/results; a claim whose file is missing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.camvid import by_arm
from export.border import ELIDE
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
    for name, read in READERS.items():
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
    what = certificate["precision"] + (", border elided" if certificate.get("border") == ELIDE else "")
    if not certificate["agrees"]:
        return f"{what}: DIVERGES from Caffe, see the certificate; {engine}"
    records = certificate["records"]
    differ, pixels = (sum(each[key] for each in records) for key in ("labels_that_differ", "pixels"))
    return (
        f"{what}: agrees with Caffe on {len(records)} records of {certificate['judged_by']}: every "
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
        f"{_worst(passes, 'loss')}, gradients within {_worst(passes, 'gradient')} (relative L2; ties of ReLU and "
        "pooling, listed one by one, aside)",
    )
    yield (
        "so does every step of the solver, staged as the authors stage",
        f"{len(runs)} training runs at full width: losses within {_worst(runs.values(), 'loss')}, history of the score "
        f"layers within {_worst(runs.values(), 'history of score layers')}, of all layers on this processor within "
        f"{_worst(runs.values(), 'history')} (ties of ReLU and pooling, which another processor breaks otherwise; "
        "VGG-16's are each named); weights within two float32 steps beside those; at the third stage's rate of 1e-14 "
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


def _half(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    nets = figures["nets"]
    least = min(net["agreement"][kind]["labels_equal"] for net in nets for kind in AS_FLOAT16)
    tops = [top for net in nets for top in net["tops"].values()]
    reached, stored = (max(top[key] for top in tops) for key in ("greatest", "stored"))
    yield (
        "float16 keeps the labels on real photographs",
        f"{sum(figures['images'].values())} photographs, {len(nets)} nets: at least {least:.2%} of float32's labels, "
        f"in ONNX Runtime and with every top stored in float16; tops reach {reached:,.0f} of float16's "
        f"{figures['float16_ends_at']:,.0f}, lowered by powers of two {stored:,.0f}",
    )


def _loading(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ratios = [each["time_ratio_with_building"] for each in figures["files"]]
    sizes = " and ".join(f"{each['mib']:.0f} MiB ({each['file']})" for each in figures["files"])
    yield (
        "Caffe's files load faster than protobuf parses them",
        f"{sizes}: {max(ratios):.2f} times the time of protobuf alone at most, the net's building included, and "
        f"{min(each['memory_left_mib'] for each in figures['files']):.0f} MiB less memory than protobuf and the net",
    )


def _soak(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for of in figures["models"]:
        yield (
            "several threads get what one gets, in flat memory",
            f"{of['images']:,} images of {len(of['sizes'])} sizes from {of['callers']} threads on {of['backend']}: "
            f"{of['images_with_other_labels']} with other labels, {of['growth_mib']['process']:+.1f} MiB",
        )


def _border(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    nets = figures["exactness"]
    sizes, photographs = len(nets[0]["sizes"]), nets[0]["photographs"]
    unequal = sum(of["labels_unequal"] for of in nets)
    yield (
        "leaving out what the padding costs changes no label" + (", ties aside" if unequal else ""),
        f"{len(nets)} nets at full width, each at {sizes} sizes from 1x1 on and on {photographs} photographs: scores "
        f"within {_worst(nets, 'score_difference')} of the greatest, {unequal} of "
        f"{sum(of['pixels'] for of in nets):,} labels unequal",
    )


# The order of the table's rows.
READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]] = {
    "caffe.json": _caffe,
    "camvid.json": _camvid,
    "half.json": _half,
    "border-cpu/border.json": _border,
    "loading.json": _loading,
    "soak-cpu.json": _soak,
}
# Of benchmarks/half.py's ways to run a float16 graph, those with its scales.
AS_FLOAT16 = ("exported, ONNX Runtime", "every top float16")


def _swallowed(difference: float) -> str:
    """Of the changes of weights in FCN-8s, Caffe's against ours."""
    if difference:
        return f"the changes of the weights agree within {difference:.1e}"
    return "all sampled weights end as Caffe's, bit for bit: what float32 swallows there, it swallows here"


def _worst(records: Iterable[Mapping[str, float]], key: str) -> str:
    return f"{max(of[key] for of in records):.1e}"
