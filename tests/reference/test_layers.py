"""Each layer against a plain loop over Caffe's definition, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference.layers import (
    LRN,
    TYPES,
    Concat,
    Convolution,
    Crop,
    Deconvolution,
    Dropout,
    Eltwise,
    Filler,
    InnerProduct,
    Input,
    Layer,
    Param,
    Pooling,
    ReLU,
    Scale,
    Slice,
    Softmax,
    SoftmaxWithLoss,
    Window,
    bilinear_kernel,
)
from tests.tolerances import FLOAT32, FLOAT64

FEW = settings(max_examples=60, deadline=None, derandomize=True)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float64 numbers."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def compute(layer: Layer, blobs: dict[str, np.ndarray], *bottoms: np.ndarray, training: bool = False) -> np.ndarray:
    """The layer's top, whose shape must be the one that it foretells."""
    tensors = [torch.from_numpy(bottom) for bottom in bottoms]
    before = [tensor.clone() for tensor in tensors]
    assert {key: blob.shape for key, blob in blobs.items()} == layer.blob_shapes(*(b.shape for b in bottoms))
    top = layer.forward({k: torch.from_numpy(v) for k, v in blobs.items()}, *tensors, training=training)
    assert (tuple(top.shape),) == layer.top_shapes(*(bottom.shape for bottom in bottoms))
    if not layer.in_place:
        assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    return top.numpy()


def agree(ours: np.ndarray, definition: np.ndarray) -> None:
    assert ours.shape == definition.shape
    np.testing.assert_allclose(ours, definition, rtol=FLOAT64, atol=FLOAT64)


# --- convolution --------------------------------------------------------------------------------------------


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: Convolution) -> np.ndarray:
    """conv_layer.cpp as a loop: every output is a sum over the taps that lie inside the image."""
    (_, channels, height, width), (outputs, depth, kh, kw) = x.shape, weight.shape
    (sh, sw), (ph, pw), (dh, dw) = layer.stride, layer.pad, layer.dilation
    rows = (height + 2 * ph - (dh * (kh - 1) + 1)) // sh + 1
    columns = (width + 2 * pw - (dw * (kw - 1) + 1)) // sw + 1
    top = np.zeros((len(x), outputs, rows, columns)) + bias[:, None, None]
    for n, o, i, j in np.ndindex(top.shape):
        first = o // (outputs // layer.group) * depth
        for c, a, b in np.ndindex(depth, kh, kw):
            row, column = i * sh - ph + a * dh, j * sw - pw + b * dw
            if 0 <= row < height and 0 <= column < width:
                top[n, o, i, j] += weight[o, c, a, b] * x[n, first + c, row, column]
    assert depth * layer.group == channels
    return top


@FEW
@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), kernel=pairs, stride=pairs, pad=pads, dilation=pairs,
       group=st.integers(1, 3))  # fmt: skip
def test_convolution(size, kernel, stride, pad, dilation, group) -> None:
    layer = Convolution(name="conv", num_output=2 * group, kernel_size=kernel, stride=stride, pad=pad,
                        dilation=dilation, group=group)  # fmt: skip
    assume(all(size[i] + 2 * pad[i] >= layer.extent(i) for i in (0, 1)))
    x, weight, bias = random(2, 2 * group, *size), random(2 * group, 2, *kernel), random(2 * group)
    agree(compute(layer, {"weight": weight, "bias": bias}, x), convolve(x, weight, bias, layer))


def test_convolution_without_bias() -> None:
    layer = Convolution(name="conv", num_output=2, kernel_size=(3, 1), bias_term=False)
    x, weight = random(1, 3, 4, 5), random(2, 3, 3, 1)
    agree(compute(layer, {"weight": weight}, x), convolve(x, weight, np.zeros(2), layer))


def test_convolution_that_does_not_fit() -> None:
    layer = Convolution(name="conv", num_output=2, kernel_size=(3, 3))
    with pytest.raises(ValueError, match="conv: an input of 2 pixels is smaller"):
        layer.top_shapes((1, 3, 5, 2))
    with pytest.raises(ValueError, match="3 -> 4 channels do not divide into 2 groups"):
        Convolution(name="conv", num_output=4, kernel_size=(1, 1), group=2).blob_shapes((1, 3, 5, 5))
    with pytest.raises(ValueError, match="4 -> 3 channels do not divide into 2 groups"):
        Deconvolution(name="up", num_output=3, kernel_size=(1, 1), group=2).blob_shapes((1, 4, 5, 5))


# --- deconvolution ------------------------------------------------------------------------------------------


def deconvolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: Deconvolution) -> np.ndarray:
    """deconv_layer.cpp as a loop: every input pixel lays the kernel down, scaled, a stride apart."""
    (_, channels, height, width), (_, depth, kh, kw) = x.shape, weight.shape
    (sh, sw), (ph, pw), (dh, dw) = layer.stride, layer.pad, layer.dilation
    rows = sh * (height - 1) + dh * (kh - 1) + 1 - 2 * ph
    columns = sw * (width - 1) + dw * (kw - 1) + 1 - 2 * pw
    top = np.zeros((len(x), layer.num_output, rows, columns)) + bias[:, None, None]
    for n, c, i, j in np.ndindex(x.shape):
        first = c // (channels // layer.group) * depth
        for o, a, b in np.ndindex(depth, kh, kw):
            row, column = i * sh - ph + a * dh, j * sw - pw + b * dw
            if 0 <= row < rows and 0 <= column < columns:
                top[n, first + o, row, column] += weight[c, o, a, b] * x[n, c, i, j]
    return top


@FEW
@given(size=st.tuples(st.integers(1, 5), st.integers(1, 5)), kernel=pairs, stride=pairs, pad=pads, dilation=pairs,
       group=st.integers(1, 3))  # fmt: skip
def test_deconvolution(size, kernel, stride, pad, dilation, group) -> None:
    layer = Deconvolution(name="up", num_output=group, kernel_size=kernel, stride=stride, pad=pad,
                          dilation=dilation, group=group)  # fmt: skip
    assume(all(stride[i] * (size[i] - 1) + layer.extent(i) - 2 * pad[i] >= 1 for i in (0, 1)))
    x, weight, bias = random(2, 2 * group, *size), random(2 * group, 1, *kernel), random(group)
    agree(compute(layer, {"weight": weight, "bias": bias}, x), deconvolve(x, weight, bias, layer))


def test_deconvolution_is_the_transpose_of_the_convolution() -> None:
    """<conv(x), y> = <x, deconv(y)> for the same weights: what makes it a backward pass (section 3.3)."""
    conv = Convolution(name="c", num_output=4, kernel_size=(4, 4), stride=(2, 2), bias_term=False)
    up = Deconvolution(name="u", num_output=3, kernel_size=(4, 4), stride=(2, 2), bias_term=False)
    x, weight, y = random(1, 3, 10, 8), random(4, 3, 4, 4), random(1, 4, 4, 3)
    left = (compute(conv, {"weight": weight}, x) * y).sum()
    assert left == pytest.approx((x * compute(up, {"weight": weight}, y)).sum(), rel=FLOAT64)


# --- pooling ------------------------------------------------------------------------------------------------


def pooled_size(size: int, kernel: int, stride: int, pad: int, padded: bool, ceil: bool) -> int:
    """pooling_layer.cpp: Reshape. `padded`: either axis has padding; then no last window starts outside."""
    span = (size + 2 * pad - kernel) / stride
    out = int(math.ceil(span) if ceil else math.floor(span)) + 1
    return out - 1 if padded and (out - 1) * stride >= size + pad else out


def pool(x: np.ndarray, layer: Pooling) -> np.ndarray:
    """pooling_layer.cpp: Forward_cpu as a loop. An average divides by the window clipped at size + pad."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel_size, layer.stride, layer.pad
    height, width = x.shape[2:]
    padded, ceil = bool(ph or pw), layer.round_mode == "CEIL"
    rows = pooled_size(height, kh, sh, ph, padded, ceil)
    columns = pooled_size(width, kw, sw, pw, padded, ceil)
    top = np.zeros((*x.shape[:2], rows, columns))
    for n, c, i, j in np.ndindex(top.shape):
        top_, left = i * sh - ph, j * sw - pw
        bottom, right = min(top_ + kh, height + ph), min(left + kw, width + pw)
        window = x[n, c, max(top_, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        top[n, c, i, j] = window.max() if layer.pool == "MAX" else window.sum() / ((bottom - top_) * (right - left))
    return top


@settings(max_examples=300, deadline=None, derandomize=True)
@given(kind=st.sampled_from(["MAX", "AVE"]), mode=st.sampled_from(["CEIL", "FLOOR"]),
       size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
       stride=st.tuples(st.integers(1, 4), st.integers(1, 4)), pad=pads)  # fmt: skip
@example(kind="MAX", mode="CEIL", size=(1, 1), kernel=(2, 2), stride=(2, 2), pad=(0, 0))
@example(kind="AVE", mode="CEIL", size=(7, 7), kernel=(3, 3), stride=(1, 1), pad=(1, 1))
@example(kind="MAX", mode="CEIL", size=(5, 5), kernel=(3, 1), stride=(1, 3), pad=(1, 0))
def test_pooling(kind, mode, size, kernel, stride, pad) -> None:
    assume(all(2 * p <= k for p, k in zip(pad, kernel, strict=True)))
    layer = Pooling(name="pool", pool=kind, round_mode=mode, kernel_size=kernel, stride=stride, pad=pad)
    x = random(1, 2, *size) - 5  # below zero, where a maximum that saw the padding would show
    out = [
        pooled_size(size[i], kernel[i], stride[i], pad[i], any(pad), mode == "CEIL") for i in (0, 1)
    ]  # fmt: skip
    empty = not any(pad) and any((o - 1) * s >= n for o, s, n in zip(out, stride, size, strict=True))
    if min(out) < 1 or empty:
        with pytest.raises(ValueError, match="pool: "):
            layer.top_shapes(x.shape)
        return
    agree(compute(layer, {}, x), pool(x, layer))


@FEW
@given(size=st.integers(1, 40), kernel=st.integers(2, 3))
def test_the_papers_pooling_rounds_up_and_never_leaves_a_pixel_out(size, kernel) -> None:
    layer = Pooling(name="pool", kernel_size=(kernel, kernel), stride=(2, 2))
    assume(size >= kernel - 1)
    (shape,) = layer.top_shapes((1, 1, size, size))
    assert (shape[2] - 1) * 2 + kernel >= size


def test_a_window_without_a_pixel_is_refused_even_at_a_size_that_construction_did_not_see() -> None:
    """Caffe fills it with -FLT_MAX (maximum) or divides by 0 (average), and corrupts memory going backward."""
    layer = Pooling(name="pool", kernel_size=(1, 1), stride=(2, 2))
    assert layer.top_shapes((1, 1, 5, 5)) == ((1, 1, 3, 3),)
    with pytest.raises(ValueError, match="no pixel"):
        layer.top_shapes((1, 1, 4, 4))
    with pytest.raises(ValueError, match="no pixel"):
        layer.forward({}, torch.zeros(1, 1, 4, 4))


def test_pooling_that_torch_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="over half the kernel"):
        Pooling(name="pool", kernel_size=(3, 3), pad=(2, 2))
    with pytest.raises(ValueError, match="STOCHASTIC"):
        Pooling(name="pool", kernel_size=(3, 3), pool="STOCHASTIC")


@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_global_pooling(kind: str) -> None:
    x = random(2, 3, 5, 4)
    layer = Pooling(name="pool", kernel_size=(1, 1), global_pooling=True, pool=kind)
    reduce = np.max if kind == "MAX" else np.mean
    agree(compute(layer, {}, x), reduce(x, axis=(2, 3), keepdims=True))


def test_a_tie_in_a_window_sends_the_gradient_to_its_first_pixel() -> None:
    """Caffe takes a later pixel only if it is larger; the 100 pixels of padding are full of ties."""
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    Pooling(name="pool", kernel_size=(2, 2), stride=(2, 2)).forward({}, x).sum().backward()
    assert x.grad is not None
    assert x.grad[0, 0].tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]


# --- pointwise and joining layers ---------------------------------------------------------------------------


def test_relu() -> None:
    x = np.array([[-2.0, -0.0, 0.0, 3.0]])
    layer, leaky = (ReLU(name="r", bottoms=("a",), tops=("b",), negative_slope=slope) for slope in (0, 0.1))
    agree(compute(layer, {}, x), np.maximum(x, 0))
    agree(compute(leaky, {}, x), np.maximum(x, 0) + 0.1 * np.minimum(x, 0))
    at_zero = torch.zeros(1, requires_grad=True)
    layer.forward({}, at_zero).backward()
    assert at_zero.grad == 0  # as in Caffe: the gradient passes where the bottom is above zero


def test_dropout_zeroes_elements_and_scales_the_others_up() -> None:
    layer = Dropout(name="drop", dropout_ratio=0.3)
    x = random(2, 50, 20, 20) + 10
    torch.manual_seed(0)
    top = compute(layer, {}, x, training=True)
    kept = top != 0
    agree(top[kept], (x / 0.7)[kept])
    # A fifth of a percent is five standard deviations of 40,000 draws' mean; no channel goes as a whole.
    assert kept.mean() == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / kept.size))
    shares = kept.mean(axis=(2, 3))
    assert shares.min() > 0.5 and shares.max() < 0.9


def test_dropout_does_nothing_outside_training() -> None:
    x = random(2, 3, 4, 4)
    agree(compute(Dropout(name="drop"), {}, x), x)


@FEW
@given(channels=st.integers(1, 9), size=st.sampled_from([1, 3, 5]), alpha=st.floats(1e-4, 2), k=st.floats(0.5, 2))
def test_lrn(channels, size, alpha, k) -> None:
    """lrn_layer.cpp: alpha is divided by the size, and channels beyond the border count as zero."""
    layer = LRN(name="norm", local_size=size, alpha=alpha, beta=0.75, k=k)
    x = random(2, channels, 3, 2) * 3
    scale = np.full_like(x, k)
    for c, other in itertools.product(range(channels), repeat=2):
        if abs(c - other) <= size // 2:
            scale[:, c] += alpha / size * x[:, other] ** 2
    agree(compute(layer, {}, x), x * scale**-0.75)


def test_lrn_over_an_even_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        LRN(name="norm", local_size=4)


@pytest.mark.parametrize("bias", [False, True])
def test_scale(bias: bool) -> None:
    x, factor, shift = random(2, 3, 4, 5), random(3), random(3, seed=1)
    layer = Scale(name="scale", bias_term=bias)
    blobs = {"weight": factor, "bias": shift} if bias else {"weight": factor}
    expected = np.stack([x[:, c] * factor[c] + bias * shift[c] for c in range(3)], axis=1)
    agree(compute(layer, blobs, x), expected)


@pytest.mark.parametrize("coeff", [(), (0.5, 0.5, -2.0)])
def test_eltwise_sum(coeff: tuple[float, ...]) -> None:
    bottoms = [random(2, 3, 4, 4, seed=i) for i in range(3)]
    expected = sum(c * b for c, b in zip(coeff or (1, 1, 1), bottoms, strict=True))
    agree(compute(Eltwise(name="fuse", coeff=coeff), {}, *bottoms), np.asarray(expected))


def test_eltwise_product_and_maximum() -> None:
    a, b, c = (random(2, 3, 4, 4, seed=i) for i in range(3))
    agree(compute(Eltwise(name="fuse", operation="PROD"), {}, a, b, c), a * b * c)
    agree(compute(Eltwise(name="fuse", operation="MAX"), {}, a, b, c), np.maximum(np.maximum(a, b), c))


def test_a_tie_of_an_eltwise_maximum_sends_the_gradient_where_caffe_does() -> None:
    """To the second of the first two, and to a later one only if it is larger; never half and half."""
    bottoms = [torch.zeros(1, requires_grad=True) for _ in range(3)]
    Eltwise(name="fuse", operation="MAX").forward({}, *bottoms).backward()
    assert [float(b.grad) if b.grad is not None else 0 for b in bottoms] == [0, 1, 0]


def test_eltwise_refuses_what_caffe_refuses() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Eltwise(name="fuse").top_shapes((1, 2, 3, 3), (1, 2, 1, 1))
    with pytest.raises(ValueError, match="2 coefficients for 3 bottoms"):
        Eltwise(name="fuse", bottoms=("a", "b", "c"), coeff=(1, 2))
    with pytest.raises(ValueError, match="DIV"):
        Eltwise(name="fuse", operation="DIV")


def test_concat() -> None:
    a, b = random(2, 3, 4, 5), random(2, 1, 4, 5)
    top = compute(Concat(name="concat"), {}, a, b)
    agree(top[:, :3], a)
    agree(top[:, 3:], b)
    agree(compute(Concat(name="concat", axis=0), {}, a, a), np.concatenate([a, a]))


@pytest.mark.parametrize(("points", "ends"), [((), (2, 4)), ((1, 5), (1, 5))])
def test_slice(points: tuple[int, ...], ends: tuple[int, int]) -> None:
    """slice_layer.cpp, Reshape: equal parts where there are no points."""
    x = random(2, 6, 4, 5)
    layer = Slice(name="slice", tops=("a", "b", "c"), slice_point=points)
    tops = layer.forward({}, torch.from_numpy(x))
    assert layer.top_shapes(x.shape) == tuple(tuple(top.shape) for top in tops)
    for top, part in zip(tops, np.split(x, ends, axis=1), strict=True):
        agree(top.numpy(), part)


def test_slices_that_do_not_come_out() -> None:
    with pytest.raises(ValueError, match="slice: 3 tops need 2 slice_point"):
        Slice(name="slice", tops=("a", "b", "c"), slice_point=(1,))
    for points, channels in (((), 7), ((2, 2), 6), ((4, 2), 6), ((2, 6), 6)):
        with pytest.raises(ValueError, match=f"slice: {channels} channels do not divide so into 3 tops"):
            Slice(name="slice", tops=("a", "b", "c"), slice_point=points).top_shapes((1, channels, 2, 2))


@pytest.mark.parametrize(("offset", "place"), [((), (0, 0)), ((2,), (2, 2)), ((1, 3), (1, 3))])
def test_crop(offset: tuple[int, ...], place: tuple[int, int]) -> None:
    x, like = random(2, 3, 9, 8), random(1, 7, 4, 5)
    (top, left) = place
    agree(compute(Crop(name="crop", offset=offset), {}, x, like), x[:, :, top : top + 4, left : left + 5])


def test_crop_that_does_not_fit_is_refused_and_never_cut_short() -> None:
    layer = Crop(name="crop", offset=(3,))
    with pytest.raises(ValueError, match="crop: 5 pixels from 3 on do not fit into 7"):
        layer.top_shapes((1, 2, 8, 7), (1, 1, 5, 5))
    with pytest.raises(ValueError, match="do not fit"):
        layer.forward({}, torch.zeros(1, 2, 8, 7), torch.zeros(1, 1, 5, 5))
    with pytest.raises(ValueError, match="only crops of height and width"):
        Crop(name="crop", axis=1).offsets()


@pytest.mark.parametrize("bias", [False, True])
def test_inner_product(bias: bool) -> None:
    x, weight, shift = random(2, 3, 4, 5), random(6, 60), random(6)
    layer = InnerProduct(name="fc", num_output=6, bias_term=bias)
    expected = np.array([[(x[n].ravel() * weight[o]).sum() + bias * shift[o] for o in range(6)] for n in (0, 1)])
    agree(compute(layer, {"weight": weight, "bias": shift} if bias else {"weight": weight}, x), expected)


def test_softmax() -> None:
    x = random(2, 3, 4, 5)
    agree(compute(Softmax(name="prob"), {}, x), np.exp(x) / np.exp(x).sum(1, keepdims=True))


def test_loss_layer_passes_its_settings_on() -> None:
    score, label = torch.zeros(2, 4, 3, 3), torch.full((2, 1, 3, 3), 7.0)
    label[:, :, 0] = 1
    layer = SoftmaxWithLoss(name="loss", ignore_label=7, normalization="valid")
    assert layer.forward({}, score, label) == pytest.approx(math.log(4))
    assert layer.top_shapes(score.shape, label.shape) == ((),)


def test_input_computes_nothing() -> None:
    assert Input(name="data", shape=(1, 3, 8, 8)).top_shapes() == ((1, 3, 8, 8),)
    with pytest.raises(NotImplementedError, match="Input computes nothing"):
        Input(name="data").forward({})


# --- what all layers share ----------------------------------------------------------------------------------


def test_types_bear_caffes_names() -> None:
    assert all(name == cls.__name__ for name, cls in TYPES.items())
    assert {"Convolution", "Deconvolution", "Pooling", "InnerProduct", "SoftmaxWithLoss", "LRN"} <= set(TYPES)
    assert Convolution(name="c", num_output=1, kernel_size=(1, 1)).type == "Convolution"


def test_multipliers_are_one_where_none_are_declared() -> None:
    layer = Convolution(name="c", num_output=1, kernel_size=(1, 1), params=(Param(0.5, 0),))
    assert (layer.param(0), layer.param(1)) == (Param(0.5, 0), Param(1, 1))


def test_extent_of_a_dilated_kernel() -> None:
    assert Window(name="w", kernel_size=(3, 1), dilation=(4, 9)).extent(0) == 9
    assert Window(name="w", kernel_size=(3, 1), dilation=(4, 9)).extent(1) == 1


# --- fillers ------------------------------------------------------------------------------------------------


def fill(filler: Filler, *shape: int) -> Tensor:
    torch.manual_seed(0)
    blob = torch.full(shape, math.nan)
    filler.fill_(blob)
    return blob


def test_constant_filler_is_zero_by_default() -> None:
    assert not fill(Filler(), 3, 4).any()
    assert (fill(Filler(value=0.01), 3, 4) == 0.01).all()


def test_random_fillers() -> None:
    """filler.hpp: xavier is uniform within sqrt(3 / fan in), msra normal with variance 2 / fan in."""
    shape, fan_in = (200, 50, 3, 3), 450
    draws = math.prod(shape)
    xavier, bound = fill(Filler("xavier"), *shape), math.sqrt(3 / fan_in)
    assert 0.999 * bound < xavier.abs().max() <= bound
    uniform = fill(Filler("uniform", min=-1, max=3), *shape)
    assert uniform.min() >= -1 and uniform.max() <= 3
    assert uniform.mean() == pytest.approx(1, abs=5 * math.sqrt(16 / 12 / draws))
    for filler, mean, std in (
        (Filler("gaussian", mean=2, std=0.5), 2, 0.5),
        (Filler("msra"), 0, math.sqrt(2 / fan_in)),
    ):
        blob = fill(filler, *shape).double()
        # Five standard deviations of a mean, and of a standard deviation, of that many draws.
        assert blob.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(draws))
        assert blob.std() == pytest.approx(std, abs=5 * std / math.sqrt(2 * draws))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 16, 63, 64])
def test_bilinear_filler_is_caffes(size: int) -> None:
    """filler.hpp: f = ceil(size / 2), c = (size - 1) / (2 f), value (1 - |x / f - c|) (1 - |y / f - c|)."""
    f = math.ceil(size / 2)
    c = (size - 1) / (2 * f)
    expected = np.array([[(1 - abs(x / f - c)) * (1 - abs(y / f - c)) for x in range(size)] for y in range(size)])
    blob = fill(Filler("bilinear"), 2, 3, size, size).double()
    np.testing.assert_allclose(blob, np.broadcast_to(expected, blob.shape), rtol=FLOAT32)
    agree(bilinear_kernel(size).numpy(), expected)


def test_unknown_filler() -> None:
    with pytest.raises(ValueError, match="positive_unitball"):
        fill(Filler("positive_unitball"), 2, 2)
