"""Border elision computes the same: zones against brute force, elided nets against whole ones at all kinds of sizes."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from export.border import elide, whole_tops
from export.graph import to_model
from export.pasting import EdgePad, Frame, Paste
from export.precision import to_half
from export.to_onnx import export_onnx
from export.trunk import Trunk, zones
from fcn.record import ROOT
from reference import NETS, build
from reference.caffe import net_from_text
from reference.layers import (
    ELU,
    BatchNorm,
    Bias,
    Concat,
    Convolution,
    Eltwise,
    Input,
    Layer,
    Pooling,
    PReLU,
    ReLU,
    Scale,
)
from reference.net import Net, NetSpec
from tests.export.nets import about, compute, narrow, session
from tests.tolerances import ELIDED

TRUNKS = ("voc-fcn8s", "voc-fcn-alexnet", "voc-fcn-googlenet")
# Those of two images pass through, and so does the classifier.
WHOLE = ("vgg16", "nyud-fcn32s-color-d", "nyud-fcn32s-color-hha")
ELIDABLE = tuple(name for name in NETS if name not in WHOLE)
# One net of each shape. The rest differ in their numbers of classes only, and their deconvolutions take long: of those
# the tops that the whole part reads are compared, which is stricter.
SHAPES = (*TRUNKS, "voc-fcn32s", "voc-fcn16s", "voc-fcn8s-atonce", "siftflow-fcn8s")


@functools.cache
def loud(name: str, seed: int = 0) -> Net:
    """A narrow net whose biases are as large as its activations: what the border does is then seen everywhere."""
    net = build(name, width=1 / 16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.spec.layers:
            if isinstance(layer, Convolution) and layer.type == "Convolution":
                weight, *bias = net.layer(layer.name).parameters()
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
                for each in bias:
                    each.normal_(0, 1, generator=generator)
    return net.eval().requires_grad_(False)


@functools.cache
def elided(name: str) -> Net:
    return elide(loud(name))


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    random = np.random.RandomState(height * 1000 + width)
    return torch.from_numpy(random.normal(0, 1, (batch, 3, height, width)).astype(np.float32))


def assert_same(name: str, height: int, width: int, batch: int = 1) -> None:
    x = {loud(name).spec.inputs[0]: image(height, width, batch)}
    tops = loud(name).spec.outputs if name in SHAPES else tuple(Trunk(loud(name).spec).frontier)
    whole, less = loud(name).run(tops, x), elided(name).run(tops, x)
    for top in tops:
        assert whole[top].shape == less[top].shape
        worst = whole[top].abs().max()
        assert (whole[top] - less[top]).abs().max() <= ELIDED * worst, (name, height, width, top)
        best, second = whole[top].topk(2, dim=1).values.unbind(1)
        same = whole[top].argmax(1) == less[top].argmax(1)
        assert bool((same | (best - second <= 2 * ELIDED * worst)).all())


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize("size", [1, 17, 64])
def test_zones_are_what_brute_force_finds(name: str, size: int) -> None:
    """In every top: only cells from `first` to `last` change with the image, all these can, and between the borders a
    blank image's are all alike."""
    net = loud(name)
    layers = [x for x in net.spec.deploy().layers if not isinstance(x, Input)]
    found = zones(layers, "data", size, 0)
    tops = tuple(found.keys() - {"data"})
    blank = net.run(tops, {"data": torch.zeros(1, 3, size, size)})
    changed = {top: torch.zeros(blank[top].shape[2], dtype=torch.bool) for top in tops}
    for seed in range(2):
        random = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 100
        for top, whole in net.run(tops, {"data": random}).items():
            changed[top] |= ((whole - blank[top]).abs() > 1e-4 * blank[top].abs().max()).any(3).any(1)[0]
    for top in tops:
        zone, rows = found[top], changed[top].nonzero().flatten()
        cells = blank[top].shape[2]
        assert zone.cells == cells
        assert zone.first <= rows.min() and rows.max() <= zone.last, top
        if zone.apart:
            # Through GoogLeNet's stacked poolings the farthest pixel may win nowhere.
            slack = 1 if name == "voc-fcn-googlenet" else 0
            assert rows.min() <= zone.first + slack and rows.max() >= zone.last - slack, top
            # Of a column in the middle: the others hold corners.
            column = blank[top][0, :, :, (zone.border_end + zone.border_start - 1) // 2]
            inner = column[:, zone.border_end : zone.border_start]
            assert (inner - inner[:, :1]).abs().max() <= 1e-5 * column.abs().max(), top


@pytest.mark.parametrize("name", ELIDABLE)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 2))
@example(1, 1, 1)
@example(1, 90, 1)
@example(90, 2, 1)
def test_scores_are_the_same_at_any_size(name: str, height: int, width: int, batch: int) -> None:
    assert_same(name, height, width, batch)


@pytest.mark.parametrize("name", TRUNKS)
def test_scores_are_the_same_at_every_pair_of_remainders(name: str) -> None:
    """Pooling rounds up: what the far border does depends on the size's remainder by the stride."""
    for height in range(20, 36):
        for width in range(33, 49):
            assert_same(name, height, width)


def test_the_windows_are_those_of_the_derivation_by_hand() -> None:
    """As the prototype had them: at pool1 cells from 47 on, at pool2 from 22, at pool3 from 9; 7 pixels framed."""
    plan = Trunk(narrow().spec).plan(0)
    assert plan is not None
    starts = {top: plan.windows[top].start for top in ("data", "pool1", "pool2", "pool3", "pool4")}
    assert starts == {"data": -7, "pool1": 47, "pool2": 22, "pool3": 9, "pool4": 3}
    kinds = [type(x) for x in elided("voc-fcn8s").spec.layers if isinstance(x, Frame | EdgePad | Paste)]
    assert kinds.count(Frame) == 1 and kinds.count(Paste) == 2  # pool4, and score_pool3


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_which_nothing_can_go_passes_through(name: str) -> None:
    net = build(name, width=1 / 16)
    assert (elide(net) is net) == (name in WHOLE)


def test_an_imported_net_is_elided_where_it_is_worth_it() -> None:
    """SqueezeNet, whose Fire modules branch and join; padded by 10 as the recipe has it, and by 90 as FCNs are."""
    text = (ROOT / "reference" / "recipes" / "camvid-squeezenet.prototxt").read_text()
    small, large = (
        Net(net_from_text(text.replace("stride: 2 pad: 10", f"stride: 2 pad: {pad}"), "net", stages=("8s",)))
        for pad in (10, 90)
    )
    generator = torch.Generator().manual_seed(0)
    for net in (small, large):
        for blob in net.eval().requires_grad_(False).parameters():
            blob.normal_(0, 0.2, generator=generator)
    assert elide(small) is small
    for net, less in ((small, elide(small, least=0)), (large, elide(large))):
        assert less is not net
        for size in ((1, 1), (37, 53), (64, 90)):
            whole = net(image(*size))
            assert (less(image(*size)) - whole).abs().max() <= ELIDED * whole.abs().max()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from((0, 1, 8, 20, 37)),
    st.lists(st.tuples(st.booleans(), st.sampled_from((1, 2, 3, 5)), st.integers(1, 3)), min_size=1, max_size=5),
    st.integers(1, 70),
    st.integers(1, 70),
)
@example(0, [(True, 5, 1)], 40, 40)  # takes no image of one pixel
@example(37, [(True, 1, 3)], 1, 62)  # passes pixels over
def test_any_chain_of_windows_computes_the_same(
    padding: int, windows: list[tuple[bool, int, int]], height: int, width: int
) -> None:
    """Convolutions and poolings of any kernel and stride, the first padded: elided in part, or passed through."""
    layers: list[Layer] = [Input(name="data", tops=("data",), shape=(1, 3, 60, 60))]
    for i, (convolves, kernel, stride) in enumerate(windows):
        place = {"name": f"top{i}", "bottoms": layers[-1].tops, "tops": (f"top{i}",)}
        sizes = {"kernel_size": (kernel, kernel), "stride": (stride, stride)}
        if convolves or i == 0:
            pad = (padding, padding) if i == 0 else (kernel // 2, kernel // 2)
            layers.append(Convolution(**place, **sizes, pad=pad, num_output=4))
        else:
            sizes["stride"] = (min(stride, kernel),) * 2  # else Caffe refuses some sizes
            layers.append(Pooling(**place, **sizes))
    net = Net(NetSpec("chain", tuple(layers))).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for blob in net.parameters():
        blob.normal_(0, 1, generator=generator)
    less = elide(net, least=0)
    try:
        net.spec.shapes(data=(1, 3, height, width))
    except ValueError:  # the image is smaller than a kernel
        return
    whole = net(image(height, width))
    assert (less(image(height, width)) - whole).abs().max() <= ELIDED * whole.abs().max()


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


IN_PLACE = (ReLU, PReLU, ELU, Scale, Bias, BatchNorm)


@st.composite
def graphs(draw: st.DrawFn) -> NetSpec:
    """Branches, joins, skips, in-place layers before and after others have read, and windows that are not square."""
    layers: list[Layer] = [Input(name="data", tops=("data",), shape=(1, 3, 60, 60))]
    if draw(st.booleans()) and draw(st.booleans()):
        layers.append(Scale(name="mean", bottoms=("data",), tops=("data",), bias_term=True))
    first = {"kernel_size": draw(pairs(1, 5)), "stride": draw(pairs(1, 2)), "pad": draw(pairs(12, 30))}
    layers.append(Convolution(name="top0", bottoms=("data",), tops=("top0",), num_output=3, **first))
    for i in range(1, draw(st.integers(3, 9))):
        tops = list(dict.fromkeys(layer.tops[0] for layer in layers[1:] if layer.tops != ("data",)))
        below = draw(st.sampled_from(tops[-3:]))
        new = {"name": f"top{i}", "bottoms": (below,), "tops": (f"top{i}",)}
        kind = draw(st.sampled_from(("convolution", "pooling", "in place", "in place", "join", "image")))
        if kind == "in place":
            made: Layer = draw(st.sampled_from(IN_PLACE))(name=f"layer{i}", bottoms=(below,), tops=(below,))
        elif kind == "join":
            new["bottoms"] = (below, draw(st.sampled_from(tops)))
            made = draw(st.sampled_from((Concat, Eltwise)))(**new)
        elif kind == "pooling":
            kernel = draw(pairs(2, 3))
            stride = tuple(min(a, b) for a, b in zip(kernel, draw(pairs(1, 3)), strict=True))
            made = Pooling(**new, kernel_size=kernel, stride=stride, pad=draw(pairs(0, 1)))
        else:
            if kind == "image":
                new["bottoms"] = ("data",)
            sizes = {"kernel_size": draw(pairs(1, 3)), "stride": draw(pairs(1, 2)), "pad": draw(pairs(0, 2))}
            if kind == "image" and draw(st.booleans()):
                sizes = first
            made = Convolution(**new, **sizes, dilation=draw(pairs(1, 2)), num_output=3)
        try:
            NetSpec("graph", (*layers, made)).shapes()
        except ValueError:
            continue
        layers.append(made)
    return NetSpec("graph", tuple(layers))


def test_any_graph_computes_the_same() -> None:
    """Elided as far as it may be, or passed through: every output is the whole net's."""
    elided_ones = 0

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(graphs(), st.integers(1, 40), st.integers(1, 40))
    def check(spec: NetSpec, height: int, width: int) -> None:
        nonlocal elided_ones
        net = Net(spec).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for layer in spec.layers:
            for blob in net.layer(layer.name).parameters() if not isinstance(layer, Input) else ():
                blob.normal_(0, 1 / blob[0].numel() ** 0.5 if blob.ndim > 1 else 1, generator=generator)
                if isinstance(layer, BatchNorm):
                    blob.abs_().add_(0.1)  # variances, and what they are to be divided by
        less = elide(net, least=0)
        x = {"data": image(height, width)}
        try:
            whole = net.run(spec.outputs, x)
        except (ValueError, RuntimeError):  # the image is smaller than a kernel, or joins do not fit at its size
            return
        found = less.run(spec.outputs, x)
        elided_ones += less is not net
        for top in spec.outputs:
            assert (found[top] - whole[top]).abs().max() <= ELIDED * whole[top].abs().max(), (top, less.spec.layers)

    check()
    assert elided_ones > 60  # 1,345 of 3,000 were


def test_weights_are_shared_and_the_net_is_left_as_it_is() -> None:
    net, less = loud("voc-fcn8s"), elided("voc-fcn8s")
    assert less.get_parameter("fc6.weight").data_ptr() == net.get_parameter("fc6.weight").data_ptr()
    assert set(less.state_dict()) - set(net.state_dict()) == {"pool4/paste.table", "score_pool3/paste.table"}


@pytest.mark.parametrize("name", TRUNKS)
def test_the_graph_computes_the_same(name: str) -> None:
    model = to_model(elided(name))
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) - len(to_model(loud(name)).graph.node) < 90  # few shape operations
    opened = session(model)
    for size in ((1, 1), (37, 53), (97, 131)):
        x = image(*size, batch=2)
        whole = loud(name)(x).numpy()
        (found,) = compute(opened, data=x.numpy()).values()
        assert np.abs(found - whole).max() <= ELIDED * np.abs(whole).max()


def test_it_composes_with_pixels_and_float16(tmp_path: Path) -> None:
    """`export_onnx` compares both with the whole net in PyTorch before it writes them."""
    net = narrow()
    export_onnx(net, tmp_path / "image.onnx", about(net), "image", border="elide")
    export_onnx(net, tmp_path / "half.onnx", about(net), precision="fp16", border="elide")
    half = onnx.load(str(tmp_path / "half.onnx"))
    assert {t.data_type for t in half.graph.initializer if "table" in t.name} == {onnx.TensorProto.FLOAT16}


def test_lowered_tops_lower_their_tables() -> None:
    """Activations beyond float16: tables stand lower by the same power of two as what they are pasted around."""
    net = build("voc-fcn8s", width=1 / 16).eval().requires_grad_(False)
    net.load_state_dict(loud("voc-fcn8s").state_dict())
    with torch.no_grad():
        for name in ("conv1_1", "conv1_2"):
            for blob in net.layer(name).parameters():
                blob.mul_(300)
        for name in ("score_fr", "score_pool4", "score_pool3"):
            net.layer(name).get_parameter("weight").mul_(1e-5)
    x = image(64, 80)
    (found,) = compute(session(to_half(elide(net))), data=x.numpy()).values()
    whole = net(x).numpy()
    assert np.abs(found - whole).max() <= 5e-3 * np.abs(whole).max()


def test_whole_tops_are_those_outside_and_at_the_rim() -> None:
    tops = whole_tops(narrow().spec.deploy())
    assert "conv4_3" not in tops and "pool3" not in tops
    assert {"data", "pool4", "score_pool3", "conv5_1", "fc6", "score"} <= set(tops)
