"""export/verify.py: files that compute what the net computes pass, all others are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from export.graph import IO, to_model
from export.verify import SIZES, TOLERANCE, Disagreement, verify
from fcn.cli import BadInput
from reference import build
from reference.data.voc import MEAN
from reference.layers import Convolution, Crop, InnerProduct, Softmax
from reference.net import Net, NetSpec
from tests.export.nets import NAMES, WIDTH, narrow, small


def write(net: Net, folder: Path, io: str = "scores", mean: Sequence[float] = MEAN) -> Path:
    """The net's file, unverified."""
    path = folder / "net.onnx"
    path.write_bytes(to_model(net, io, mean=mean).SerializeToString())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_faithful_file_passes(name: str, tmp_path: Path) -> None:
    report = verify(narrow(name), write(narrow(name), tmp_path))
    assert report.sizes == SIZES and report.agreement == 1
    assert report.worst is not None and 0 < report.worst < TOLERANCE / 5
    assert report.runtime == f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider"
    assert "1x1, 2 of 37x53, 97x131, 224x224: scores within" in str(report)


@pytest.mark.parametrize("io", ["labels", "image"])
def test_a_faithful_file_of_labels_passes(io: str, tmp_path: Path) -> None:
    report = verify(narrow(), write(narrow(), tmp_path, io), io, MEAN)
    assert report.worst is None and report.agreement == 1
    assert str(report).endswith("224x224: labels equal on 100.0000%")


@pytest.mark.parametrize("io", IO)
def test_other_weights_are_found_out(io: str, tmp_path: Path) -> None:
    path = write(narrow(seed=1), tmp_path, io)
    with pytest.raises(Disagreement, match=r"voc-fcn8s: ONNX Runtime and PyTorch disagree at \d+x\d+: "):
        verify(narrow(), path, io, MEAN)


def test_another_mean_and_another_order_of_colours_are_found_out(tmp_path: Path) -> None:
    for wrong in ((MEAN[0] + 8, *MEAN[1:]), MEAN[::-1]):
        with pytest.raises(Disagreement, match="labels of score differ"):
            verify(narrow(), write(narrow(), tmp_path, "image", wrong), "image", MEAN)


@pytest.mark.parametrize("crop", ["score_pool4c", "score_pool3c", "score"])
@pytest.mark.parametrize("name", ["voc-fcn8s", "voc-fcn8s-atonce"])
def test_a_crop_that_is_off_by_one_is_found_out(name: str, crop: str, tmp_path: Path) -> None:
    net = narrow(name)
    layers = [
        replace(layer, offset=(layer.offset[0] - 1,)) if isinstance(layer, Crop) and layer.name == crop else layer
        for layer in net.spec.layers
    ]
    shifted = Net(NetSpec(name, tuple(layers)))
    shifted.load_state_dict(net.state_dict())
    with pytest.raises(Disagreement, match="score differs by"):
        verify(net, write(shifted, tmp_path))


def test_another_number_of_classes_is_found_out(tmp_path: Path) -> None:
    path = write(build("voc-fcn8s", width=WIDTH, classes=20), tmp_path)
    with pytest.raises(Disagreement, match="score differs by inf"):
        verify(narrow(), path)


def test_zero_scores_agree_with_zero_scores_only(tmp_path: Path) -> None:
    fresh = build("voc-fcn8s", width=WIDTH)
    report = verify(fresh, write(fresh, tmp_path))
    assert report.worst == 0 and report.agreement == 1
    with pytest.raises(Disagreement, match="differs by inf"):
        verify(fresh, write(narrow(), tmp_path))


def test_labels_may_differ_where_scores_tie_within_the_tolerance(tmp_path: Path) -> None:
    """Two classes that are a tenth of the tolerance apart, and their order reversed in the file."""
    net, other = (two_classes(margin) for margin in (TOLERANCE / 10, -TOLERANCE / 10))
    report = verify(net, write(other, tmp_path, "labels"), "labels")
    assert report.agreement < 0.01
    with pytest.raises(Disagreement, match=r"labels of one differ"):
        verify(two_classes(10 * TOLERANCE), write(other, tmp_path, "labels"), "labels")


def two_classes(margin: float) -> Net:
    """Constant scores of 1 + margin and 1, whatever the image."""
    layer = Convolution(name="one", bottoms=("data",), tops=("one",), num_output=2, kernel_size=(1, 1))
    net = small(layer)
    net.load_state_dict({"one.weight": torch.zeros(2, 4, 1, 1), "one.bias": torch.tensor([1 + margin, 1])})
    return net


def test_weights_that_diverged_are_named_as_such(tmp_path: Path) -> None:
    net = build("voc-fcn32s", width=WIDTH)
    with torch.no_grad():
        net.get_parameter("score_fr.bias")[3] = float("nan")
    with pytest.raises(BadInput, match="score is not finite at 1x1: these weights have diverged"):
        verify(net, write(net, tmp_path))


@pytest.mark.parametrize("harm", ["truncated", "garbage", "empty"])
def test_a_broken_file(harm: str, tmp_path: Path) -> None:
    path = write(narrow(), tmp_path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"not ONNX" * 99, "empty": b""}[harm])
    with pytest.raises(Disagreement, match="voc-fcn8s: not a valid ONNX file"):
        verify(narrow(), path)


def test_the_net_keeps_its_mode(tmp_path: Path) -> None:
    net = build("voc-fcn32s", width=WIDTH).train()
    verify(net, write(net, tmp_path))
    assert net.training and all(module.training for module in net.modules())


def test_sizes_that_the_net_cannot_take_are_left_out(tmp_path: Path) -> None:
    wide = Convolution(name="one", bottoms=("data",), tops=("one",), num_output=3, kernel_size=(40, 5))
    net = small(wide, size=64)
    assert verify(net, write(net, tmp_path)).sizes == ((1, 97, 131), (1, 224, 224))
    net = small(replace(wide, kernel_size=(300, 300)), size=301)
    assert verify(net, write(net, tmp_path)).sizes == ((1, 301, 301), (2, 301, 301))


def test_a_classifier_is_verified_at_its_size(tmp_path: Path) -> None:
    head = InnerProduct(name="fc", bottoms=("data",), tops=("fc",), num_output=5)
    net = small(head, Softmax(name="prob", bottoms=("fc",), tops=("prob",)))
    with torch.no_grad():
        net.get_parameter("fc.weight").mul_(1e-3)
    for io in ("scores", "labels"):
        assert verify(net, write(net, tmp_path, io), io).sizes == ((1, 8, 8), (2, 8, 8))
