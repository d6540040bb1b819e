"""Offsets, strides and receptive fields: the paper's numbers, and what perturbed pixels really change."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reference
from reference.builder import Builder
from reference.coordinates import (
    AxisMap,
    NoMap,
    axis_map,
    crop_offset,
    dependence,
    maps_to_ancestors,
    receptive_field,
    relative_map,
)
from reference.layers import Convolution, Crop, Deconvolution, InnerProduct, Layer, Pooling, ReLU
from reference.net import Net, NetSpec

FCNS = ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce")


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("voc-fcn32s", {"score": 19}),
        ("voc-fcn16s", {"score_pool4c": 5, "score": 27}),
        ("voc-fcn8s", {"score_pool4c": 5, "score_pool3c": 9, "score": 31}),
        ("voc-fcn8s-atonce", {"score_pool4c": 5, "score_pool3c": 9, "score": 31}),
        ("voc-fcn-alexnet", {"score": 18}),
        ("voc-fcn-googlenet", {"score": 98}),
        ("nyud-fcn32s-color-d", {"score": 19}),
        ("nyud-fcn32s-color-hha", {"score": 19}),
        ("siftflow-fcn16s", {"score_pool4_semc": 5, "score_sem": 27, "score_pool4_geoc": 5, "score_geo": 27}),
    ],
)
def test_crop_offsets_are_the_authors(name: str, offsets: dict[str, int]) -> None:
    crops = [layer for layer in reference.NETS[name]().layers if isinstance(layer, Crop)]
    assert {crop.name: crop.offset for crop in crops} == {key: (value,) for key, value in offsets.items()}


def test_receptive_field_and_stride_of_the_trunk() -> None:
    """CVPR 2015, table 1: 404 pixels, stride 32."""
    layers = reference.NETS["voc-fcn32s"]().layers
    assert receptive_field(layers, "score_fr") == receptive_field(layers, "score_fr", axis=1) == 404
    for top, stride in (("conv1_2", 1), ("pool3", 8), ("pool4", 16), ("pool5", 32), ("score_fr", 32)):
        assert maps_to_ancestors(layers, top, 0)["data"].scale == stride
    # A pixel of a conv has its own kernel; each pooling doubles what the kernels above it reach.
    assert [receptive_field(layers, f"conv{i}_1") for i in range(1, 6)] == [3, 10, 24, 60, 132]


@pytest.mark.parametrize("name", FCNS)
def test_scores_lie_over_the_image(name: str) -> None:
    """The whole net maps pixel i to pixel i: scale 1 and shift 0."""
    layers = reference.NETS[name]().layers
    for axis in (0, 1):
        assert relative_map(layers, "score", "data", axis) == AxisMap(Fraction(1), Fraction(0))


# --- against real outputs -----------------------------------------------------------------------------------


def changed(net: Net, top: str, pixel: int, size: int) -> set[int]:
    """Rows of `top` that change with row `pixel` of the input. Weights are positive, so that nothing cancels."""
    x = torch.ones(1, 1, size, 1, dtype=torch.float64)
    bumped = x.clone()
    bumped[0, 0, pixel] += 1
    with torch.inference_mode():
        one, other = (net.run((top,), {"data": value})[top] for value in (x, bumped))
    rows = (one != other).any(3).any(1)[0]
    return set(rows.nonzero().flatten().tolist())


def positive(spec: NetSpec) -> Net:
    net = Net(spec).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    return net


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.sampled_from([Convolution, Deconvolution, Pooling]), kernel=st.integers(1, 4),
       stride=st.integers(1, 3), pad=st.integers(0, 2), dilation=st.integers(1, 2), size=st.integers(4, 7))  # fmt: skip
def test_dependence_of_a_layer(kind, kernel, stride, pad, dilation, size) -> None:
    """Every interval, and that the map runs through its middle."""
    n = Builder("one")
    n.input("data", 1, (size, 1))
    settings_ = {"kernel_size": (kernel, 1), "stride": (stride, 1), "pad": (pad, 0)}
    if kind is Pooling:
        assume(2 * pad <= kernel and kernel >= stride)
        layer: Layer = Pooling(name="top", bottoms=("data",), tops=("top",), pool="AVE", **settings_)
    else:
        layer = kind(name="top", bottoms=("data",), tops=("top",), num_output=1, dilation=(dilation, 1), **settings_)
    n.add(layer)
    try:
        (rows,) = (shape[2] for shape in layer.top_shapes((1, 1, size, 1)))
    except ValueError:
        assume(False)
    assume(rows > 0)
    net = positive(n.spec())
    seen: dict[int, set[int]] = {row: set() for row in range(rows)}
    for pixel in range(size):
        for row in changed(net, "top", pixel, size):
            seen[row].add(pixel)
    gapless = getattr(layer, "dilation", (1, 1))[0] == 1
    for row, pixels in seen.items():
        first, last = dependence(layer, row, row, 0)
        inside = set(range(max(first, 0), min(last, size - 1) + 1))
        assert pixels == inside if gapless else pixels <= inside
        centre = axis_map(layer, 0)
        middle = centre.scale * row + centre.shift
        if not isinstance(layer, Deconvolution):
            assert middle == Fraction(first + last, 2)


@pytest.fixture(scope="module")
def narrow() -> dict[str, Net]:
    """Nets of one channel a layer, with positive weights."""
    return {name: positive(reference.NETS[name](classes=1, width=1 / 512)).eval() for name in FCNS}


def interval(layers: tuple[Layer, ...], top: str, row: int) -> tuple[int, int]:
    """Rows of the data that a row of `top` depends on, by the layers' own intervals."""
    seen = {top: (row, row)}
    for layer in reversed(layers):
        for name in layer.tops:
            if name in seen and layer.bottoms:
                first, last = dependence(layer, *seen[name], 0)
                for bottom in layer.bottoms[:1] if isinstance(layer, Crop) else layer.bottoms:
                    low, high = seen.get(bottom, (first, last))
                    seen[bottom] = min(low, first), max(high, last)
    return seen["data"]


@pytest.mark.parametrize(("name", "top", "rows"), [
    ("voc-fcn32s", "score_fr", (8, 9)),
    ("voc-fcn32s", "score", (300, 307)),
    ("voc-fcn16s", "score", (300, 319)),
    ("voc-fcn8s", "score", (300, 323)),
])  # fmt: skip
def test_dependence_through_a_whole_net(narrow: dict[str, Net], name: str, top: str, rows: tuple[int, ...]) -> None:
    """The outermost rows of the interval do change the output, the next ones beyond do not."""
    net, size = narrow[name], 700
    widest = 0
    x = torch.ones(1, 3, size, 1, dtype=torch.float64)
    with torch.inference_mode():
        before = net.run((top,), {"data": x})[top]
        for row in rows:
            first, last = interval(net.spec.layers, top, row)
            assert first > 0 and last < size - 1, "the image must be larger than the interval"
            for pixel, sees in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
                bumped = x.clone()
                bumped[:, :, pixel] += 1e6
                after = net.run((top,), {"data": bumped})[top]
                assert bool((before[:, :, row] != after[:, :, row]).any()) is sees, (row, pixel)
            widest = max(widest, last - first + 1)
    assert widest <= receptive_field(net.spec.layers, top)
    if top == "score_fr":
        assert widest == 404


@pytest.mark.parametrize("name", FCNS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (33, 31), (97, 64)])
def test_nets_take_every_size(narrow: dict[str, Net], name: str, size: tuple[int, int]) -> None:
    net = narrow[name]
    with torch.inference_mode():
        blobs = net.blobs(data=torch.ones(2, 3, *size, dtype=torch.float64))
    assert blobs["score"].shape == (2, 1, *size)
    shapes = net.spec.shapes(data=(2, 3, *size), label=(2, 1, *size))
    assert {top: tuple(blob.shape) for top, blob in blobs.items()} == {top: shapes[top] for top in blobs}


# --- the algebra --------------------------------------------------------------------------------------------


def test_maps_compose_from_the_top_down() -> None:
    """Pixel i of the upper layer over the lower layer's output, and that over its input."""
    upper, lower = AxisMap(Fraction(2), Fraction(1)), AxisMap(Fraction(3), Fraction(-1, 2))
    stacked = upper.after(lower)
    for i in range(5):
        assert stacked.scale * i + stacked.shift == 3 * (2 * i + 1) - Fraction(1, 2)


def alexnet(kernel: int) -> Builder:
    """FCN-AlexNet's geometry with an upsampling kernel of one's choice."""
    n = Builder("fcn-alexnet")
    top = n.conv("conv1", n.input("data", 3), 1, 11, stride=4, pad=100)
    top = n.max_pool("pool1", top, 3)
    top = n.max_pool("pool2", n.conv("conv2", top, 1, 5, pad=2), 3)
    top = n.conv("conv5", n.conv("conv4", n.conv("conv3", top, 1, 3, pad=1), 1, 3, pad=1), 1, 3, pad=1)
    top = n.conv("fc7", n.conv("fc6", n.max_pool("pool5", top, 3), 1, 6), 1, 1)
    n.upscore("upscore", n.conv("score_fr", top, 1, 1), 1, kernel=kernel, stride=32)
    return n


def test_alexnet_needs_an_odd_kernel() -> None:
    """With 63 the offset is the authors' 18; with 64 it would be 18.5. Its receptive field is 355 (table 1)."""
    assert crop_offset(alexnet(63).layers, "upscore", "data") == 18
    assert receptive_field(alexnet(63).layers, "score_fr") == 355
    with pytest.raises(NoMap, match="offset 37/2 is not one whole number"):
        alexnet(64).crop("score", "upscore", like="data")


def test_crops_that_cannot_be() -> None:
    n = Builder("none")
    data = n.input("data", 1)
    half = n.conv("half", data, 1, 2, stride=2)
    up = n.upscore("up", half, 1, kernel=4, stride=2)
    with pytest.raises(NoMap, match="half cannot be cropped to data: their strides differ by 1/2"):
        crop_offset(n.layers, half, data)
    with pytest.raises(NoMap, match="offset -1"):
        crop_offset(n.layers, n.conv("grown", data, 1, 1, pad=0), n.conv("padded", data, 1, 1, pad=1))
    other = n.input("other", 1)
    with pytest.raises(NoMap, match="share no ancestor"):
        crop_offset(n.layers, up, other)
    uneven = Convolution(name="uneven", bottoms=(data,), tops=("uneven",), num_output=1, kernel_size=(1, 1), pad=(1, 2))
    n.add(uneven)
    with pytest.raises(NoMap, match="offset 1, 2 is not one"):
        crop_offset(n.layers, "uneven", data)


def test_layers_without_coordinates() -> None:
    layer = InnerProduct(name="fc", bottoms=("data",), tops=("fc",), num_output=1)
    for ask in (lambda: axis_map(layer, 0), lambda: dependence(layer, 0, 0, 0)):
        with pytest.raises(NoMap, match="fc: a InnerProduct layer has no coordinate map"):
            ask()
    relu = ReLU(name="relu", bottoms=("a",), tops=("b",))
    assert axis_map(relu, 0) == AxisMap() and dependence(relu, 3, 5, 1) == (3, 5)
    n = Builder("no")
    n.inner_product("fc", n.input("data", 1), 1)
    with pytest.raises(NoMap, match="fc does not depend on nothing"):
        receptive_field(n.layers[:1], "fc", of="nothing")


def test_height_and_width_are_two_axes() -> None:
    layer = Convolution(name="c", num_output=1, kernel_size=(3, 5), stride=(1, 2), pad=(1, 0))
    assert axis_map(layer, 0) == AxisMap(Fraction(1), Fraction(0))
    assert axis_map(layer, 1) == AxisMap(Fraction(2), Fraction(2))
    crop = Crop(name="crop", offset=(3, 7))
    assert [axis_map(crop, axis).shift for axis in (0, 1)] == [3, 7]
