"""runtime/ort.py: what opens, what is refused, and what is said to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fcn.cli import BadInput
from runtime.ort import CPU, CUDA, OrtBackend
from tests.runtime.models import WEIGHT, metadata, model, save


def cuda_loads(path: Path) -> bool:
    return CUDA in OrtBackend(path, "auto").name


def test_runs_and_says_what_runs(tmp_path: Path) -> None:
    backend = OrtBackend(save(tmp_path / "m.onnx"), "cpu", threads=1)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = np.einsum("kc,nchw->nkhw", WEIGHT[:, :, 0, 0], x)
    np.testing.assert_allclose(backend.run(x), expected, atol=1e-5)
    assert backend.name == f"ONNX Runtime {onnxruntime.__version__}, {CPU}"
    assert backend.metadata == metadata()


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_an_opened_model_is_silent(tmp_path: Path, provider: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even where CUDA fails to load, or for an old opset: both of which ONNX Runtime writes to its log."""
    OrtBackend(save(tmp_path / "m.onnx", opset=3), provider, threads=1)
    assert capfd.readouterr() == ("", "")


def test_cuda_is_used_or_refused_never_faked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "m.onnx")
    if cuda_loads(path):
        assert CUDA in OrtBackend(path, "cuda").name
    else:
        with pytest.raises(BadInput, match=r"provider cuda did not load \(.+\); install"):
            OrtBackend(path, "cuda")
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("provider", ["cpu", "auto", "cuda"])
def test_a_file_that_is_no_model_is_blamed_whatever_the_provider(tmp_path: Path, provider: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"this is a text, not a model" * 9)
    with pytest.raises(BadInput, match=r"m.onnx: not an ONNX model, or a truncated one; export it again"):
        OrtBackend(path, provider)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m.onnx: no such file; write one with python export/to_onnx.py"):
        OrtBackend(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").touch()
    with pytest.raises(BadInput, match=r"m.onnx: the file is empty"):
        OrtBackend(tmp_path / "m.onnx")


def test_a_model_cut_anywhere_is_bad_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = model(properties=metadata(palette=[(0, 0, 0)] * 5).to_properties()).SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"cut\.onnx: "):
            OrtBackend(path, "cpu", threads=1)
    assert capfd.readouterr() == ("", "")


def test_unsupported_opset_and_operator_name_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot open it: ONNX Runtime only .*Opset 99 is under development"):
        OrtBackend(save(tmp_path / "new.onnx", opset=99), "cpu")
    strange = model()
    strange.graph.node[0].op_type = "Convolve"
    (tmp_path / "strange.onnx").write_bytes(strange.SerializeToString())
    with pytest.raises(BadInput, match="No Op registered for Convolve"):
        OrtBackend(tmp_path / "strange.onnx", "cpu")


def test_external_weights_that_stayed_behind(tmp_path: Path) -> None:
    onnx.save_model(model(), tmp_path / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    with pytest.raises(BadInput, match=r"m.onnx: .*External data path does not exist.*copy it again"):
        OrtBackend(tmp_path / "m.onnx", "cpu")


def test_metadata_that_the_graph_does_not_keep(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m.onnx: not a model written by this project's export"):
        OrtBackend(save(tmp_path / "m.onnx", properties={}), "cpu")
    wrongs: tuple[tuple[dict[str, Any], str], ...] = (
        ({"input": "image"}, "sole input 'image'"),
        ({"output": "prob"}, "output 'prob'"),
        ({"classes": ("a", "b")}, "output 'score' with scores of 2 classes"),
        ({"io": "labels"}, "output 'score' with labels"),
        ({"io": "image"}, "sole input 'image' of N x H x W x 3 uint8"),
    )
    for changes, what in wrongs:
        wrong = metadata(**{"output": "score", **changes}).to_properties()
        with pytest.raises(BadInput, match=rf"m.onnx: lacks .*{what}"):
            OrtBackend(save(tmp_path / "m.onnx", properties=wrong), "cpu")


def test_options_are_checked(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="provider 'gpu': choose one of auto, cpu, cuda"):
        OrtBackend(path, "gpu")
    with pytest.raises(BadInput, match="threads 0"):
        OrtBackend(path, "cpu", threads=0)


def test_a_refused_input_and_a_closed_model(tmp_path: Path) -> None:
    backend = OrtBackend(save(tmp_path / "m.onnx", size=(4, 5)), "cpu", threads=1)
    with pytest.raises(BadInput, match=r"m.onnx: .* fails on an input of 1 x 3 x 6 x 5: .*Got: 6 Expected: 4"):
        backend.run(np.zeros((1, 3, 6, 5), np.float32))
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.run(np.zeros((1, 3, 4, 5), np.float32))
