"""Layers of each entry or channel alone, against numpy statements of Caffe's source in float64."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reference.builder import Builder
from reference.caffe import load_caffemodel, net_from_text, save_caffemodel, save_prototxt
from reference.layers import ELU, AbsVal, BatchNorm, Bias, Param, Power, PReLU, Sigmoid, TanH
from reference.net import Net
from reference.solver import CaffeSGD
from tests.reference.test_layers import agree, compute, random
from tests.tolerances import OPENCV

X = random(2, 3, 4, 5)


@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 7)])
def test_activations(size: tuple[int, ...]) -> None:
    x = random(*size)
    agree(compute(Sigmoid(name="s"), {}, x), 1 / (1 + np.exp(-x)))
    agree(compute(TanH(name="t"), {}, x), np.tanh(x))
    agree(compute(AbsVal(name="a", bottoms=("x",), tops=("y",)), {}, x), np.where(x < 0, -x, x))
    for alpha in (1.0, 0.3):
        agree(compute(ELU(name="e", alpha=alpha), {}, x), np.maximum(x, 0) + alpha * (np.exp(np.minimum(x, 0)) - 1))


@pytest.mark.parametrize(
    ("power", "scale", "shift"), [(1, 1, 0), (2, -0.5, 3), (3, 1, 0), (-1, 2, 9), (0, 1, 0), (2, 0, 3)]
)
def test_power(power: float, scale: float, shift: float) -> None:
    """power_layer.cpp also calculates a power of 0, and a scale of 0, apart."""
    expected = np.ones_like(X) if power == 0 else np.full_like(X, shift) ** power if scale == 0 else None
    layer = Power(name="p", power=power, scale=scale, shift=shift)
    agree(compute(layer, {}, X), (shift + scale * X) ** power if expected is None else expected)


@pytest.mark.parametrize("shared", [False, True])
def test_prelu(shared: bool) -> None:
    layer = PReLU(name="p", channel_shared=shared)
    weight = np.array(0.3) if shared else random(3)
    by_channel = weight if shared else weight[:, None, None]
    agree(compute(layer, {"weight": weight}, X), np.maximum(X, 0) + by_channel * np.minimum(X, 0))
    n = Builder("one")
    n.input("data", 3)
    n.add(PReLU(name="p", bottoms=("data",), tops=("data",), channel_shared=shared))
    assert (Net(n.spec()).get_parameter("p.weight") == 0.25).all()  # prelu_layer.cpp: LayerSetUp


def test_bias() -> None:
    shift = random(3)
    agree(compute(Bias(name="b"), {"bias": shift}, X), X + shift[:, None, None])


def test_what_caffe_does_not_do_in_place_or_learn() -> None:
    with pytest.raises(ValueError, match="a: it cannot work in place"):
        AbsVal(name="a", bottoms=("x",), tops=("x",))
    with pytest.raises(ValueError, match="n: its statistics do not learn"):
        BatchNorm(name="n", params=(Param(0), Param(1)))


# --- batch normalization ------------------------------------------------------------------------------------


def sums(seed: int = 0) -> dict[str, np.ndarray]:
    """Running sums as after training."""
    return {
        "weight": 40 * random(3, seed=seed),
        "bias": 40 * np.abs(random(3, seed=seed + 1)),
        "factor": np.array([40.0]),
    }


def normalized(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, eps: float) -> np.ndarray:
    return (x - mean[:, None, None]) / np.sqrt(variance + eps)[:, None, None]


@pytest.mark.parametrize(("told", "training"), [(None, False), (True, True), (True, False)])
def test_with_the_statistics_of_training(told: bool | None, training: bool) -> None:
    """batch_norm_layer.cpp: the sums over their factor; they stay as they are."""
    layer, blobs = BatchNorm(name="n", use_global_stats=told, eps=1e-3), sums()
    before = {name: blob.copy() for name, blob in blobs.items()}
    expected = normalized(X, blobs["weight"] / 40, blobs["bias"] / 40, 1e-3)
    agree(compute(layer, blobs, X, training=training), expected)
    assert all(np.array_equal(blobs[name], before[name]) for name in blobs)


def test_before_any_training_mean_and_variance_are_zero() -> None:
    blobs = {"weight": np.zeros(3), "bias": np.zeros(3), "factor": np.zeros(1)}
    agree(compute(BatchNorm(name="n"), blobs, X), X / math.sqrt(1e-5))


@pytest.mark.parametrize(("told", "training"), [(None, True), (False, False)])
def test_with_the_statistics_of_the_batch(told: bool | None, training: bool) -> None:
    """batch_norm_layer.cpp: normalized by the variance of a population, remembered is that of a sample."""
    layer, blobs = BatchNorm(name="n", use_global_stats=told, moving_average_fraction=0.9), sums()
    mean, variance, count = X.mean((0, 2, 3)), X.var((0, 2, 3)), X.size // 3
    before = {name: blob.copy() for name, blob in blobs.items()}
    agree(compute(layer, blobs, X, training=training), normalized(X, mean, variance, 1e-5))
    agree(blobs["weight"], 0.9 * before["weight"] + mean)
    agree(blobs["bias"], 0.9 * before["bias"] + count / (count - 1) * variance)
    agree(blobs["factor"], 0.9 * before["factor"] + 1)


def test_the_gradient_of_the_batchs_statistics() -> None:
    """batch_norm_layer.cpp: (dE/dY - mean(dE/dY) - mean(dE/dY . Y) . Y) / sqrt(variance + eps), by channel."""
    x, above = torch.from_numpy(X).requires_grad_(), random(*X.shape, seed=1)
    blobs = {name: torch.from_numpy(blob) for name, blob in sums().items()}
    y = BatchNorm(name="n").forward(blobs, x, training=True)
    y.backward(torch.from_numpy(above))
    top, over = y.detach().numpy(), ((0, 2, 3), True)
    rest = above - above.mean(over[0], keepdims=True) - (above * top).mean(over[0], keepdims=True) * top
    assert x.grad is not None
    agree(x.grad.numpy(), rest / np.sqrt(X.var((0, 2, 3), keepdims=True) + 1e-5))


TEXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv"
        param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }
        batch_norm_param { moving_average_fraction: 0.5 eps: 0.001 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "conv" top: "conv" prelu_param { channel_shared: true } }
layer { name: "bias" type: "Bias" bottom: "conv" top: "shifted" bias_param { filler { value: 0.5 } } }
layer { name: "elu" type: "ELU" bottom: "shifted" top: "elu" elu_param { alpha: 0.5 } }
layer { name: "power" type: "Power" bottom: "elu" top: "power" power_param { power: 2 shift: 1 } }
layer { name: "abs" type: "AbsVal" bottom: "power" top: "abs" }
layer { name: "tanh" type: "TanH" bottom: "abs" top: "tanh" }
layer { name: "sigmoid" type: "Sigmoid" bottom: "tanh" top: "sigmoid" }
layer { name: "slice" type: "Slice" bottom: "sigmoid" top: "first" top: "rest" slice_param { slice_point: 1 } }
layer { name: "concat" type: "Concat" bottom: "rest" bottom: "first" top: "turned" }
"""


def trained(text: str) -> Net:
    """The net after a step of training."""
    torch.manual_seed(0)
    net = Net(net_from_text(text, "all"))
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    CaffeSGD(net, 0.1, momentum=0.9).step()
    return net


@pytest.fixture
def net() -> Net:
    return trained(TEXT)


def test_all_but_statistics_learn(net: Net) -> None:
    norm = dict(net.layer("norm").named_parameters())
    assert list(norm) == ["weight", "bias", "factor"] and float(norm["factor"].detach()) == 1
    assert norm["weight"].any() and not any(blob.requires_grad for blob in norm.values())
    assert all(blob.grad is not None and blob.grad.any() for blob in net.parameters() if blob.requires_grad)


def test_blobs_are_written_in_caffes_order(net: Net, tmp_path: Path) -> None:
    save_caffemodel(net, tmp_path / "net.caffemodel")
    again = Net(net.spec)
    report = load_caffemodel(again, tmp_path / "net.caffemodel")
    assert not (report.missing or report.dropped or report.coerced)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), net.eval()(x))


def test_opencv_reads_them_so_too(tmp_path: Path) -> None:
    """But for Bias, and one weight for all channels (a blob without axes), which OpenCV 4.14 does not take."""
    lines = [line for line in TEXT.splitlines() if '"Bias"' not in line]
    net = trained("\n".join(lines).replace("channel_shared: true", "").replace('"shifted"', '"conv"'))
    save_prototxt(net, tmp_path / "net.prototxt")
    save_caffemodel(net, tmp_path / "net.caffemodel")
    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"))
    x = torch.randn(1, 3, 8, 8)
    theirs.setInput(x.numpy())
    ours = net.eval()(x).detach().numpy()
    assert np.abs(theirs.forward() - ours).max() < OPENCV * np.abs(ours).max()
