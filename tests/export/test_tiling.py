"""Tiles give what one pass gives: the context that is derived against brute force, and exported nets through both."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from export.tiling import tiling
from export.to_onnx import plain_about, write_model
from reference import build
from reference.data.voc import MEAN
from reference.layers import Concat, Convolution, Deconvolution, InnerProduct, Pooling, ReLU
from reference.net import Net
from runtime.metadata import Tiling
from runtime.segmenter import Segmenter
from tests.export.nets import small
from tests.export.test_border import TRUNKS, image, loud
from tests.runtime.models import image as picture
from tests.tolerances import ELIDED

PIXEL = 64.0  # an image's deviation: biases as many times as loud stand to it as loud ones do to their images


@functools.cache
def louder(name: str) -> Net:
    net = build(name, width=1 / 16)
    net.load_state_dict({k: v * PIXEL if k.endswith("bias") else v for k, v in loud(name).state_dict().items()})
    return net.eval().requires_grad_(False)


def exported(name: str, folder: Path, border: str = "keep", io: str = "scores") -> Path:
    net = louder(name)
    write_model(net, folder / "model.onnx", plain_about(net, "loud", MEAN), io, border=border)
    return folder / "model.onnx"


def test_the_contexts() -> None:
    """Of FCN-32s: a pixel is made of two cells of score_fr, 32 pixels apart, which see 404 each: 436, less where in
    between it lies. 217 and 223 of FCN-8s were found by brute force too (below)."""
    assert tiling(build("voc-fcn32s", width=1 / 16).spec) == 2 * (Tiling(32, 205, 211),)
    assert tiling(build("voc-fcn8s", width=1 / 16).spec) == 2 * (Tiling(32, 217, 223),)


@pytest.mark.parametrize("name", TRUNKS)
def test_the_context_is_what_brute_force_finds(name: str) -> None:
    """A part of an image alone, in float64: all that the context leaves is the whole's, and no pixel more."""
    net = copy.deepcopy(loud(name)).double()
    # Through GoogLeNet's stacked poolings the farthest cell may win nowhere.
    slack = 32 if name == "voc-fcn-googlenet" else 0
    for axis, (stride, low, high) in enumerate(tiling(net.spec) or ()):
        size = (-(-(low + high) // stride) + 1) * stride
        lengths = (size + 2 * stride, 40)
        whole = image(*(lengths if axis == 0 else lengths[::-1])).double()
        part = whole.narrow(2 + axis, stride, size)
        scores = net(whole).narrow(2 + axis, stride, size)
        differs = ((net(part) - scores).abs() > 1e-13 * scores.abs().max()).any(1)[0].any(1 - axis)
        assert not differs[low : size - high].any()
        assert differs[low - 1 - slack : low].any() and differs[size - high : size - high + slack + 1].any()


def assert_same(path: Path, sizes: list[tuple[int, int]], tile: int) -> None:
    with Segmenter.open(path, "cpu", 1) as one, Segmenter.open(path, "cpu", 1, tile=tile) as tiled:
        for height, width in sizes:
            pixels, parts = picture(height, width), []
            whole = one.scores(pixels)
            found = tiled.scores(pixels, lambda tiles, parts=parts: parts.extend(tiles) or tiles)
            assert len(parts) > 1
            worst = np.abs(whole).max()
            assert np.abs(found - whole).max() <= ELIDED * worst, (height, width)
            best = np.sort(whole, axis=0)
            same = tiled(pixels) == one(pixels)
            assert (same | (best[-1] - best[-2] <= 2 * ELIDED * worst)).all()


@pytest.mark.parametrize("name", TRUNKS)
def test_tiles_give_the_scores_of_one_pass(name: str, tmp_path: Path) -> None:
    """Corners, edges, thin images; the last tile at several remainders by the stride; tiles that are no multiple."""
    path = exported(name, tmp_path)
    least = max(axis.least for axis in tiling(loud(name).spec) or ())
    assert_same(path, [(least + 1, least + 37), (1, least + 230), (least + 95, 3)], least)
    assert_same(path, [(7, least + 100 + more) for more in range(4)] + [(least + 340, 90)], least + 99)


def test_so_do_those_of_an_elided_net(tmp_path: Path) -> None:
    assert_same(exported("voc-fcn8s", tmp_path, border="elide"), [(517, 650), (5, 699), (1000, 33)], 480)


@pytest.mark.parametrize(
    "layers",
    [
        (InnerProduct(name="ip", bottoms=("data",), tops=("ip",), num_output=3),),
        (Pooling(name="p", bottoms=("data",), tops=("p",), kernel_size=(8, 8), global_pooling=True),),
        (Pooling(name="p", bottoms=("data",), tops=("p",), kernel_size=(2, 2), stride=(2, 2)),),
        (
            ReLU(name="r", bottoms=("data",), tops=("r",)),
            Concat(name="c", bottoms=("data", "r"), tops=("c",), axis=2),
        ),
    ],
)
def test_nets_that_have_to_see_all(layers: tuple) -> None:
    assert tiling(small(*layers).spec) is None


def test_axes_apart_and_no_padding_at_all() -> None:
    """A kernel of 4 x 1 at stride 2, and its transpose: one axis has a context, the other has none."""
    down = Convolution(
        name="c", bottoms=("data",), tops=("c",), num_output=2, kernel_size=(4, 1), stride=(2, 1), pad=(1, 0)
    )
    up = Deconvolution(
        name="d", bottoms=("c",), tops=("d",), num_output=2, kernel_size=(4, 1), stride=(2, 1), pad=(1, 0)
    )
    net = small(down, up)
    assert tiling(net.spec) == (Tiling(2, 3, 3), Tiling(1, 0, 0))
    x = torch.randn(1, 4, 40, 9)
    whole, part = net(x), net(x[:, :, 8:24, 2:7])
    same = torch.isclose(whole[:, :, 8:24, 2:7], part, atol=1e-6).all(1)[0].all(1)
    assert same.tolist() == [False] * 3 + [True] * 10 + [False] * 3


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from runtime.segmenter import Segmenter
def peak():  # not getrusage's: that begins with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
height, width, tile = map(int, sys.argv[2:])
pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
with Segmenter.open(sys.argv[1], "cpu", 1, tile=tile) as seg:
    opened = peak()
    seg(pixels[:tile, :tile])
    one = peak()
    seg(pixels)
print(one - opened, peak() - one)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_memory_is_a_tiles(tmp_path: Path) -> None:
    """An image of four tiles takes hardly more than one as large as a tile. (With ONNX Runtime's memory patterns the
    second tile took two thirds as much again.)"""
    path = exported("voc-fcn8s", tmp_path, io="image")
    command = [sys.executable, "-c", MEASURE, str(path), "1500", "736", "736"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    one, more = map(int, done.stdout.split())
    assert more < one / 5
