"""export/precision.py: powers of two change nothing, and float16 then holds what float32 computed."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export.graph import to_model
from export.precision import GREATEST, exponents, halve, lowered, ranges, to_half
from export.to_onnx import main, randomise
from export.verify import HALF_TOLERANCE, images
from fcn.cli import BadInput
from fcn.images import preprocess, read_image
from reference import NETS
from reference.caffe import load_caffemodel
from reference.data.voc import MEAN
from reference.layers import LRN, Concat, Convolution, Input, Slice
from reference.net import Net, NetSpec
from runtime.segmenter import Segmenter
from tests.export.nets import NAMES, blobs, compute, computed, narrow, session, small

LOUD = 300.0
HEADROOM = 4  # of 64: how far photographs may pass what coloured blocks gave


def loud(name: str = "voc-fcn8s") -> Net:
    """A narrow net whose activations leave float16, as a trained VGG's may, and whose scores do not."""
    net = copy.deepcopy(narrow(name))
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.startswith("conv1_1."):
                value.mul_(LOUD)
            elif key.startswith("score_"):
                value.div_(LOUD)
    return net


def part(net: Net) -> NetSpec:
    return NetSpec(net.spec.name, net.spec.needed(net.spec.outputs))


@pytest.mark.parametrize("name", NAMES)
def test_powers_of_two_change_nothing(name: str) -> None:
    net, data = loud(name), images(narrow(name), 1, 97, 131)
    measured = ranges(net, part(net), data)
    lower = exponents(part(net), measured)
    made = lowered(net, part(net), lower)
    tops = computed(net)
    before, after = blobs(net, tops, **data), blobs(made, tops, **data)
    assert max(measured.values()) > 2e5 and lower["conv3_2"] > 5 and lower["score"] == lower["data"] == 0
    for top in tops:
        assert np.array_equal(before[top], after[top] * np.float32(2.0 ** lower[top])), top
        assert np.abs(after[top]).max() <= GREATEST
    assert not np.array_equal(before["conv3_2"], after["conv3_2"])


@pytest.mark.parametrize("name", NAMES)
def test_every_top_of_a_float16_file(name: str) -> None:
    net = loud(name)
    opened = session(to_half(net, expose=computed(net)))
    for size in ((1, 1), (37, 53)):
        data = images(net, 2, *size)
        found = compute(opened, **data)
        for top, value in blobs(net, tuple(found), **data).items():
            assert found[top].dtype == np.float32
            assert np.abs(found[top] - value).max() < HALF_TOLERANCE * np.abs(value).max(), top


def in_half(net: Net, data: dict[str, np.ndarray]) -> np.ndarray:
    """The scores, with weights and every top in float16. (ONNX Runtime's CPU keeps tops in float32 in between.)"""
    halved = copy.deepcopy(net).half().eval()
    with torch.inference_mode():
        found = halved.run(("score",), {name: torch.from_numpy(value).half() for name, value in data.items()})
    return found["score"].float().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_float16_holds_what_stands_lower_and_nothing_else(name: str) -> None:
    net, data = loud(name), images(narrow(name), 1, 97, 131)
    score = blobs(net, ["score"], **data)["score"]
    lower = exponents(part(net), ranges(net, part(net), data))
    assert np.abs(in_half(lowered(net, part(net), lower), data) - score).max() < HALF_TOLERANCE * np.abs(score).max()
    assert not np.isfinite(in_half(net, data)).all()


@pytest.mark.parametrize("io", ["scores", "image"])
def test_all_between_the_ends_is_float16(io: str) -> None:
    model = onnx.shape_inference.infer_shapes(to_half(narrow(), io, mean=MEAN), strict_mode=True)
    wide = {value.name for value in model.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    wide |= {value.name for value in model.graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    ends = {f"data/{name}" for name in ("float", "rgb", "bgr", "near")} | {"data", "label/float"}
    assert wide == (ends if io == "image" else {"score"})
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    assert {name for name, kind in kinds.items() if kind == TensorProto.FLOAT} == (
        {"data/high", "data/low"} if io == "image" else set()
    )
    assert sum(kind == TensorProto.FLOAT16 for kind in kinds.values()) == len(narrow().state_dict())


def test_lrn_squares_in_float32() -> None:
    """ONNX Runtime's CPU squares in float32 whatever the file says: so look at the types too."""
    first = Convolution(name="one", bottoms=("data",), tops=("one",), num_output=6, kernel_size=(1, 1))
    net = small(first, LRN(name="norm", bottoms=("one",), tops=("norm",), alpha=1e-4))
    model = onnx.shape_inference.infer_shapes(to_half(net), strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    (lrn,) = (node for node in model.graph.node if node.op_type == "LRN")
    assert kinds[lrn.input[0]] == kinds[lrn.output[0]] == TensorProto.FLOAT
    assert [name for name, kind in kinds.items() if kind == TensorProto.FLOAT] == [lrn.input[0], lrn.output[0]]
    data = images(net, 1, 5, 6)
    expected = blobs(net, ["norm"], **data)["norm"]
    assert np.abs(compute(session(model), **data)["norm"] - expected).max() < HALF_TOLERANCE * np.abs(expected).max()


def test_the_tops_of_a_slice_stand_alike() -> None:
    first = Convolution(name="one", bottoms=("data",), tops=("one",), num_output=4, kernel_size=(1, 1))
    cut = Slice(name="cut", bottoms=("one",), tops=("a", "b"))
    both = Concat(name="both", bottoms=("b", "a"), tops=("both",))
    last = Convolution(name="score", bottoms=("both",), tops=("score",), num_output=2, kernel_size=(1, 1))
    net = small(first, cut, both, last)
    with torch.no_grad():
        net.get_parameter("one.weight").mul_(1e4)
        net.get_parameter("score.weight").mul_(1e-4)
    lower = exponents(net.spec, ranges(net, net.spec, data := images(net, 1, 9, 8)))
    assert lower["one"] == lower["a"] == lower["b"] == lower["both"] > 5
    expected = blobs(net, ["score"], **data)["score"]
    difference = compute(session(to_half(net)), **data)["score"] - expected
    assert np.abs(difference).max() < HALF_TOLERANCE * np.abs(expected).max()


def test_what_float16_does_not_hold_is_refused() -> None:
    net = small(Convolution(name="one", bottoms=("data",), tops=("one",), num_output=2, kernel_size=(1, 1)))
    with torch.no_grad():
        net.get_parameter("one.bias")[0] = 4e4
    with pytest.raises(BadInput, match=r"small: one reaches 4\d+ and float16 ends at 65504: export it as fp32"):
        to_half(net)
    with torch.no_grad():
        net.get_parameter("one.bias")[0] = 0
        net.get_parameter("one.weight").mul_(0)[0, 0] = 7e4
        net.get_parameter("one.weight")[0, 1] = -7e4
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(BadInput, match=r"small: one is not finite: these weights have diverged"):
            exponents(net.spec, {"one": wrong})
    model = to_model(net)
    with pytest.raises(BadInput, match=r"small: one.weight reaches 70000: export it as fp32"):
        halve(model, {"data": 0, "one": 0}, ["data"])


def test_the_command_and_the_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, found = np.random.RandomState(1).randint(0, 256, (2, 45, 62, 3)).astype(np.uint8), {}
    for precision, io in (("fp32", "image"), ("fp16", "image"), ("fp16", "scores")):
        out = tmp_path / f"{precision}-{io}.onnx"
        assert main(["--width", "0.0625", "--precision", precision, "--io", io, "-o", str(out)]) == 0
        with Segmenter.open(out, "cpu", threads=1) as segmenter:
            assert segmenter.metadata.provenance["precision"] == precision
            found[precision, io] = segmenter.batch(pictures)
    assert capsys.readouterr().out.count("agrees with PyTorch at 1x1") == 3
    assert (tmp_path / "fp16-image.onnx").stat().st_size < 0.6 * (tmp_path / "fp32-image.onnx").stat().st_size
    for labels in found.values():
        assert np.mean(labels == found["fp32", "image"]) > 0.98


def test_the_trunk_of_the_real_vgg_on_real_photographs(shared: Path) -> None:
    """VGG-16 as trained, up to conv3_3, under random scores: its activations are those that float16 must hold.

    Scales come from coloured blocks, and photographs must not leave what they allow for.
    """
    head = Convolution(name="score", bottoms=("pool3",), tops=("score",), num_output=21, kernel_size=(1, 1))
    first, *rest = (layer for layer in NETS["voc-fcn8s"]().needed(["pool3"]) if not isinstance(layer, Input))
    data_layer = Input(name="data", tops=("data",), shape=(1, 3, 72, 72))
    # Without FCN's padding of 100: nothing but time is lost.
    net = Net(NetSpec("trunk", (data_layer, replace(first, pad=(1, 1)), *rest, head))).eval()  # type: ignore[call-arg]
    randomise(net, 0)
    load_caffemodel(net, shared / "weights" / "vgg16-conv1-3.caffemodel")
    lower = exponents(net.spec, ranges(net, net.spec, images(net, 1, 97, 131)))
    made = lowered(net, net.spec, lower)
    greatest: dict[str, float] = {}
    for path in sorted((shared / "data" / "voc").rglob("*.jpg"))[:2]:
        data = {"data": preprocess([read_image(path)[100:172, 100:172]], MEAN)}
        for top, value in ranges(net, net.spec, data).items():
            greatest[top] = max(value, greatest.get(top, 0.0))
        expected, found = blobs(net, ["score"], **data)["score"], in_half(made, data)
        assert np.abs(found - expected).max() < HALF_TOLERANCE * np.abs(expected).max()
        assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.99
    assert greatest["conv3_2"] > 5000
    assert all(value < HEADROOM * GREATEST * 2.0 ** lower[top] for top, value in greatest.items() if top != "score")
