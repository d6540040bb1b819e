"""The loss against softmax_loss_layer.cpp written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.loss import MAX_PIXEL_LOSS, NORMALIZATIONS, softmax_loss
from tests.tolerances import FLOAT32, FLOAT64, FLOAT64_GRADIENT

FLT_MIN = 2.0**-126


def caffe(score: np.ndarray, label: np.ndarray, ignore: int | None, mode: str) -> tuple[float, np.ndarray]:
    """Loss and its gradient at the scores, pixel by pixel. score: N x K x ..., label: N x ..."""
    n, k = score.shape[:2]
    score, label = score.reshape(n, k, -1), label.reshape(n, -1)
    total, valid, gradient = 0.0, 0, np.zeros_like(score)
    for i, j in np.ndindex(label.shape):
        if ignore is not None and label[i, j] == ignore:
            continue
        exp = np.exp(score[i, :, j] - score[i, :, j].max())
        probability = exp / exp.sum()
        total -= math.log(max(probability[label[i, j]], FLT_MIN))
        gradient[i, :, j] = probability
        gradient[i, label[i, j], j] -= 1
        valid += 1
    normalizer = max(1, {"batch_size": n, "valid": valid, "full": label.size, "none": 1}[mode])
    return total / normalizer, gradient / normalizer


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.integers(1, 3), k=st.integers(1, 5), size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
       ignore=st.sampled_from([None, 0, 255]), mode=st.sampled_from(NORMALIZATIONS), spread=st.floats(0.1, 30),
       seed=st.integers(0, 99))  # fmt: skip
def test_value_and_gradient(n, k, size, ignore, mode, spread, seed) -> None:
    random = np.random.default_rng(seed)
    score, label = random.standard_normal((n, k, *size)) * spread, random.integers(0, k, (n, *size))
    if ignore == 255:
        label[random.uniform(size=label.shape) < 0.3] = 255
    value, gradient = caffe(score, label, ignore, mode)
    ours = torch.from_numpy(score).requires_grad_()
    loss = softmax_loss(ours, torch.from_numpy(label), ignore_label=ignore, normalization=mode)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=FLOAT64, abs=FLOAT64)
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.reshape(n, k, -1), gradient, rtol=0, atol=FLOAT64_GRADIENT)


def test_normalizers() -> None:
    """Two images of 12 pixels, three of them void: divided by 2, 21, 24 and 1."""
    score, label = torch.zeros(2, 5, 3, 4), torch.zeros(2, 3, 4)
    label[0, 0, :3] = 255
    losses = {mode: softmax_loss(score, label, normalization=mode).item() for mode in NORMALIZATIONS}
    divisors = {"batch_size": 2, "valid": 21, "full": 24, "none": 1}
    assert losses == {mode: pytest.approx(21 * math.log(5) / d, rel=FLOAT32) for mode, d in divisors.items()}


def test_the_default_is_the_authors() -> None:
    """normalize: false, ignore_label: 255."""
    score, label = torch.randn(2, 5, 3, 4), torch.tensor([0, 1, 2, 255] * 6).view(2, 3, 4)
    assert softmax_loss(score, label) == softmax_loss(score, label, ignore_label=255, normalization="batch_size")


@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_an_image_that_is_all_void_costs_nothing(mode: str) -> None:
    """The normalizer is at least 1."""
    score = torch.randn(1, 5, 3, 4, requires_grad=True)
    loss = softmax_loss(score, torch.full((1, 3, 4), 255), normalization=mode)
    loss.backward()
    assert loss.item() == 0
    assert score.grad is not None and not score.grad.any()


@pytest.mark.parametrize("wrong", [80.0, 100.0, 1e4, 1e10, 1e30])
def test_a_hugely_wrong_score_is_clamped_in_value_alone(wrong: float) -> None:
    """-log(FLT_MIN) = 87.34 at most; the gradient stays probability minus truth."""
    score = torch.tensor([[wrong, 0.0]], requires_grad=True)
    loss = softmax_loss(score, torch.tensor([1]))
    loss.backward()
    assert pytest.approx(-math.log(FLT_MIN)) == MAX_PIXEL_LOSS
    assert loss.item() == pytest.approx(min(wrong, -math.log(FLT_MIN)), rel=FLOAT32)
    assert score.grad is not None and score.grad.tolist() == [[1, -1]]


def test_the_sum_is_taken_in_float64() -> None:
    """A float32 sum of 2e6 pixels would be off in the fourth digit, as Caffe's printed loss is."""
    score = torch.zeros(1, 3, 1000, 2000)
    loss = softmax_loss(score, torch.zeros(1, 1000, 2000))
    assert loss.dtype == torch.float32
    pixel = -torch.log_softmax(torch.zeros(3), 0)[0].double().item()
    assert loss.item() == pytest.approx(2e6 * pixel, rel=FLOAT32)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 3, 4), (2, 12)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_labels_of_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    score, ids = torch.randn(2, 5, 3, 4), torch.tensor([0, 1, 2, 3, 4, 255] * 4)
    assert softmax_loss(score, ids.view(shape).to(dtype)) == softmax_loss(score, ids.view(2, 3, 4))


def test_scores_without_pixels() -> None:
    """N x K scores of a classifier with N, or N x 1 x 1 x 1, labels."""
    score, label = torch.randn(4, 7), torch.tensor([0, 6, 3, 3])
    expected, _ = caffe(score.double().numpy(), label.numpy(), None, "valid")
    for ids in (label, label.view(4, 1, 1, 1)):
        loss = softmax_loss(score, ids, ignore_label=None, normalization="valid")
        assert loss.item() == pytest.approx(expected, rel=5 * FLOAT32)


@pytest.mark.parametrize("bad", [5, 254, -1])
def test_a_class_that_the_scores_do_not_have(bad: int) -> None:
    label = torch.zeros(1, 3, 4, dtype=torch.int64)
    label[0, 1, 2] = bad
    with pytest.raises(ValueError, match=f"label holds class {bad}, but score has 5 channels"):
        softmax_loss(torch.zeros(1, 5, 3, 4), label)
    label[0, 1, 2] = 255
    with pytest.raises(ValueError, match="label holds class 255"):
        softmax_loss(torch.zeros(1, 5, 3, 4), label, ignore_label=None)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"label \(1, 3, 5\) does not fit score \(1, 5, 3, 4\)"):
        softmax_loss(torch.zeros(1, 5, 3, 4), torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="'mean' is none of batch_size, valid, full, none"):
        softmax_loss(torch.zeros(1, 5, 3, 4), torch.zeros(1, 3, 4), normalization="mean")
