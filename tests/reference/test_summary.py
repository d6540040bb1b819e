"""The table of a net: against the paper's table 1, the nets as they run, and torch's own count of operations."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import reference
from reference.builder import Builder
from reference.caffe import net_from_text
from reference.layers import Convolution, Deconvolution, Input, Pair
from reference.net import Net
from reference.summary import Row, summarise

SMALL = {"classes": 3, "width": 1 / 32}


def row(name: str, top: str) -> Row:
    return next(row for row in summarise(reference.NETS[name]()).rows if row.name == top)


def images(net: Net, size: Pair) -> dict[str, Tensor]:
    """Black images for every input."""
    shapes = net.spec.shapes()
    return {top: torch.zeros(1, shapes[top][1], *size) for top in net.spec.inputs}


@pytest.mark.parametrize(
    ("name", "millions", "kernel", "field"),
    [("voc-fcn-alexnet", 57, 63, 355), ("voc-fcn32s", 134, 64, 404), ("voc-fcn-googlenet", 6, 63, 715)],
)
def test_table_1_of_the_paper(name: str, millions: int, kernel: int, field: int) -> None:
    """CVPR 2015, table 1: parameters (without the deconvolution), receptive field, max stride 32. Of GoogLeNet it
    says 907: that counts the classifier's 7x7 average pooling, which the FCN does not have.
    """
    summary = summarise(reference.NETS[name]())
    assert round(summary.without_deconvolution / 1e6) == millions
    assert summary.parameters - summary.without_deconvolution == 21 * 21 * kernel**2
    assert summary.coarsest is not None and summary.coarsest.name == "score_fr"
    assert summary.coarsest.total_stride == (32, 32) and summary.coarsest.receptive_field == (field, field)
    assert name != "voc-fcn-googlenet" or field + 6 * 32 == 907


def test_vgg16_has_the_published_costs() -> None:
    """138 million parameters (Simonyan and Zisserman, table 2), 15.5 billion multiply-adds at 224x224."""
    summary = summarise(reference.NETS["vgg16"]())
    assert summary.size == (224, 224)
    assert summary.parameters == summary.without_deconvolution == 138_357_544
    assert round(summary.multiply_adds / 1e9, 1) == 15.5


@pytest.mark.parametrize(
    ("name", "crops"),
    [
        ("voc-fcn32s", {"score": 19}),
        ("voc-fcn16s", {"score_pool4c": 5, "score": 27}),
        ("voc-fcn8s", {"score_pool4c": 5, "score_pool3c": 9, "score": 31}),
    ],
)
def test_crops_and_offsets(name: str, crops: dict[str, int]) -> None:
    rows = {row.name: row for row in summarise(reference.NETS[name]()).rows}
    assert {top: row.crop for top, row in rows.items() if row.crop} == {k: (v, v) for k, v in crops.items()}
    assert rows["score"].offset == (0, 0) and rows["score"].output == (1, 21, 375, 500)
    assert rows["conv1_1"].offset == (-99, -99) and rows["fc7"].offset == (12.5, 12.5)
    cropped = next(layer.bottoms[0] for layer in reference.NETS[name]().layers if layer.name == "score")
    assert rows[cropped].offset == (-crops["score"], -crops["score"])


@pytest.mark.parametrize("name", list(reference.NETS))
def test_rows_are_what_the_net_does(name: str) -> None:
    """Shapes of the blobs, parameters of the module, frozen ones without gradient, every layer in one row."""
    net = reference.build(name, **SMALL)
    size = (224, 224) if name == "vgg16" else (40, 52)
    summary = net.summary(size)
    blobs = net.eval().blobs(**images(net, size))
    rows = {row.name: row for row in summary.rows}
    for top, blob in blobs.items():
        assert rows[top].output == tuple(blob.shape), top
    assert summary.parameters == sum(p.numel() for p in net.parameters())
    assert sum(r.frozen for r in summary.rows) == sum(p.numel() for p in net.parameters() if not p.requires_grad)
    for key, parameter in net.named_parameters():
        owner = next(r for r in summary.rows if key.rpartition(".")[0] in r.layers)
        assert owner.parameters >= parameter.numel()
    assert [n for r in summary.rows for n in r.layers] == [layer.name for layer in net.spec.layers]


@pytest.mark.parametrize("name", list(reference.NETS))
def test_multiply_adds_are_torchs(name: str) -> None:
    """Two floating-point operations each. Torch does not count the frozen Scale layers of the at-once net."""
    net = reference.build(name, **SMALL).eval()
    size = (224, 224) if name == "vgg16" else (33, 47)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(**images(net, size))
    counted = sum(r.multiply_adds for r in net.summary(size).rows if "Scale" not in r.types)
    assert 2 * counted == counter.get_total_flops()


def test_windows_that_are_not_square_and_groups() -> None:
    n = Builder("odd")
    data = n.input("data", 4)
    n.add(
        Convolution(name="c", bottoms=(data,), tops=("c",), num_output=6, group=2, kernel_size=(3, 5), stride=(1, 2),
                    pad=(1, 0))
    )  # fmt: skip
    n.add(Deconvolution(name="d", bottoms=("c",), tops=("d",), num_output=2, kernel_size=(2, 2), stride=(2, 2)))
    summary = Net(n.spec()).summary((11, 21))
    c, d = summary.rows[1:]
    assert (c.output, c.parameters, c.multiply_adds) == ((1, 6, 11, 9), 6 * 2 * 15 + 6, 6 * 2 * 15 * 11 * 9)
    assert (c.total_stride, c.receptive_field, c.offset) == ((1, 2), (3, 5), (0, 2))
    assert (d.output, d.multiply_adds) == ((1, 2, 22, 18), 6 * 2 * 4 * 11 * 9)
    assert "3x5/1x2/1x0" in str(summary) and "0x2" in str(summary)


def test_strides_of_no_sense_take_no_time() -> None:
    n = Builder("steep")
    top = n.input("data", 1)
    for i in range(4):
        top = n.upscore(f"up{i}", top, 1, kernel=1, stride=1000)
        top = n.conv(f"down{i}", top, 1, 1, stride=1000)
    rows = summarise(n.spec(), (3, 3)).rows
    assert [row.receptive_field for row in rows] == [(1, 1), *[None] * 8]
    assert rows[-1].output == (1, 1, 3, 3)


def test_it_prints_as_a_table_and_as_json() -> None:
    summary = summarise(reference.NETS["voc-fcn8s"](), (97, 131))
    lines = str(summary).splitlines()
    assert lines[0].split() == [
        *("top", "layers", "kernel/stride/pad", "output", "parameters", "multiply-adds"),
        *("stride", "receptive", "field", "offset", "crop"),
    ]
    assert next(line for line in lines if line.startswith("conv1_1 ")).split() == [
        *("conv1_1", "Convolution,", "ReLU", "3/1/100", "64", "x", "295", "x", "329"),
        *("1,792", "167.7", "M", "1", "3", "-99"),
    ]
    assert next(line for line in lines if line.startswith("score_pool3c ")).split()[-4:] == ["8", "44", "-23.5", "9"]
    assert "parameters      134,489,759 (127,008 frozen; 134,362,751 without deconvolutions)" in lines
    written = json.loads(json.dumps(summary.to_json()))
    assert written["parameters"] == 134_489_759 and written["size"] == [97, 131]
    assert written["layers"][-2]["crop"] == [31, 31]


def test_a_classifier_takes_its_own_size_only() -> None:
    with pytest.raises(ValueError, match="fc6 is fully connected: vgg16 takes images of 224x224 only"):
        summarise(reference.NETS["vgg16"](), (375, 500))
    n = Builder("flat")
    n.add(Input(name="data", tops=("data",), shape=(1, 3)))
    with pytest.raises(ValueError, match="flat takes no images"):
        summarise(n.spec())
    assert row("vgg16", "fc6").receptive_field is None and row("vgg16", "pool5").receptive_field == (212, 212)


def test_every_input_has_its_place() -> None:
    """Two images that meet: the first input is the one that places are told over, a loss has none."""
    text = """
    layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "p" type: "Pooling" bottom: "b" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "q" type: "Pooling" bottom: "a" top: "q" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "sum" type: "Eltwise" bottom: "p" bottom: "q" top: "sum" }
    """
    rows = {row.name: row for row in summarise(net_from_text(text, "two")).rows}
    assert all(rows[name].total_stride == (2, 2) for name in ("p", "q", "sum"))
    assert row("voc-fcn32s", "loss").total_stride is None and row("voc-fcn32s", "label").offset is None
