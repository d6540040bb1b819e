"""The table of backends: nothing counts as executed without a certificate that says so."""

from __future__ import annotations

from pathlib import Path

from benchmarks.proof import BACKENDS, NEVER, RESULTS, backends
from fcn.files import read_json, write_json

CERTIFICATE = RESULTS / "proofs" / "onnxruntime-cpu-fp32.json"


def test_without_certificates_nothing_was_executed(tmp_path: Path) -> None:
    assert [(of.name, of.ran) for of in backends(tmp_path)] == [(name, NEVER) for name in BACKENDS]


def test_a_certificate_counts_for_its_own_backend_only(tmp_path: Path) -> None:
    certificate = read_json(CERTIFICATE)
    card = {**certificate["machine"], "gpu": "NVIDIA L4"}
    rtx = {
        **certificate,
        "border": "elide",
        "backend": "TensorRT-RTX 1.7.1.116 on NVIDIA L4, CUDA graphs",
        "machine": card,
    }
    write_json(tmp_path / "gpu" / "proofs" / "rtx.json", rtx)
    write_json(tmp_path / "proofs" / "wrong.json", {**certificate, "agrees": False})
    rows = {of.name: of for of in backends(tmp_path)}
    assert rows["TensorRT"].ran == rows["ONNX Runtime on a GPU"].ran == NEVER
    assert "TensorRT-RTX 1.7.1.116" in rows["TensorRT-RTX"].ran and "NVIDIA L4" in rows["TensorRT-RTX"].ran
    assert rows["TensorRT-RTX"].found.startswith("fp32, border elided: ")
    assert "agrees with Caffe on 3 records of voc-fcn8s" in rows["TensorRT-RTX"].found
    assert "DIVERGES" in rows["ONNX Runtime on a CPU"].found
