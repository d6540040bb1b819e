"""torchvision's VGG-16, its normalisation folded into conv1_1: the same numbers, in the padding too."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcn.images import preprocess
from reference import build, convert
from reference.caffe import load_caffemodel, read_caffemodel
from reference.data.nyud import HHA_MEAN, Nyud
from reference.data.shapes import Shapes
from reference.data.voc import MEAN as VOC_MEAN
from reference.pretrained import MEAN, RGB_MEAN, RGB_STD, from_torchvision
from reference.runs import adopt
from reference.surgery import transplant
from reference.trunks import VGG16_BLOCKS
from tests.tolerances import BLOB, FOLDED

WIDTH, CLASSES, FC = 1 / 32, 10, 128
State = dict[str, Tensor]


def torchvision_vgg16() -> nn.Sequential:
    """A narrow copy, its parts as in torchvision's vgg.py and under their names, with random weights."""
    torch.manual_seed(0)
    features: list[nn.Module] = []
    channels = 3
    for convs, full in VGG16_BLOCKS:
        for _ in range(convs):
            features += [nn.Conv2d(channels, int(full * WIDTH), 3, padding=1), nn.ReLU(inplace=True)]
            channels = int(full * WIDTH)
        features.append(nn.MaxPool2d(2, 2))
    head: list[nn.Module] = []
    for inputs in (49 * channels, FC):
        head += [nn.Linear(inputs, FC), nn.ReLU(inplace=True), nn.Dropout()]
    parts = OrderedDict(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d((7, 7)),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(*head, nn.Linear(FC, CLASSES)),
    )
    model = nn.Sequential(parts).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


@cache
def state() -> State:
    """Its state dict. Never write into it."""
    return torchvision_vgg16().state_dict()


def padded(model: nn.Sequential) -> nn.Sequential:
    """The same weights as an FCN's trunk: conv1_1 padded by 100, pooling as Caffe's, fc6 and fc7 as convolutions."""
    model.features[0].padding = (100, 100)
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    tops: list[nn.Module] = list(model.features)
    for index, kernel in ((0, 7), (3, 1)):
        full = model.classifier[index]
        conv = nn.Conv2d(full.in_features // kernel**2, FC, kernel, dtype=full.weight.dtype)
        conv.weight.data, conv.bias.data = full.weight.data.view_as(conv.weight), full.bias.data
        tops += [conv, nn.ReLU()]
    return nn.Sequential(*tops)


def pixels(height: int, width: int) -> np.ndarray:
    """H x W x 3 uint8 RGB, the channels unlike one another."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return (noise * (1.0, 0.7, 0.4)).astype(np.uint8)


def normalised(image: np.ndarray) -> Tensor:
    """As torchvision's transforms make it, in float64."""
    return (torch.from_numpy(image / 255).permute(2, 0, 1)[None] - spread(RGB_MEAN)) / spread(RGB_STD)


def spread(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


def caffes(image: np.ndarray) -> Tensor:
    """BGR from 0 to 255 minus MEAN, in float64."""
    return torch.from_numpy(image[:, :, ::-1].astype(np.float64)).permute(2, 0, 1)[None] - spread(MEAN)


def apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def test_the_classifier_scores_as_torchvisions() -> None:
    model, image = torchvision_vgg16().double(), pixels(224, 224)
    net = build("vgg16", width=WIDTH, classes=CLASSES).double().eval()
    report = transplant(net, from_torchvision(model.state_dict()))
    assert len(report.copied) == 32 and not (report.coerced or report.dropped or report.missing)
    assert apart(net(caffes(image)), model(normalised(image))) < FOLDED


@pytest.mark.parametrize(
    ("dtype", "tolerance", "size"),
    [(torch.float64, FOLDED, (1, 1)), (torch.float64, FOLDED, (45, 62)), (torch.float32, BLOB, (45, 62))],
)
@torch.inference_mode()
def test_the_padded_trunk_computes_as_torchvisions(dtype: torch.dtype, tolerance: float, size: tuple[int, int]) -> None:
    """Of one pixel everything but the middle of conv1_1 is padding."""
    model, image = torchvision_vgg16().to(dtype), pixels(*size)
    net = build("voc-fcn32s", width=WIDTH).to(dtype).eval()
    report = transplant(net, from_torchvision(model.state_dict()))
    assert report.coerced == ["fc6.weight", "fc7.weight"] and report.dropped == ["fc8.weight", "fc8.bias"]
    data = torch.from_numpy(preprocess([image], MEAN)) if dtype == torch.float32 else caffes(image)
    ours = net.run(("conv1_1", "fc7"), {"data": data})
    theirs = padded(model)
    x = normalised(image).to(dtype)
    assert apart(ours["conv1_1"], theirs[:2](x)) < tolerance
    assert apart(ours["fc7"], theirs(x)) < tolerance


@torch.inference_mode()
def test_another_mean_folded_into_the_bias_is_wrong_in_the_padding() -> None:
    """What the conversion does not do, and why: a constant in the bias is right where no window sees padding only."""
    weight, bias = (from_torchvision(state())[f"conv1_1.{name}"].double() for name in ("weight", "bias"))
    shift = spread(VOC_MEAN) - spread(MEAN)
    image = caffes(pixels(20, 30))
    right = F.conv2d(image, weight, bias, padding=3)
    folded = F.conv2d(image - shift, weight, bias + (weight * shift).sum((1, 2, 3)), padding=3)
    assert apart(folded[..., 3:-3, 3:-3], right[..., 3:-3, 3:-3]) < FOLDED
    assert apart(folded[..., :2, :], right[..., :2, :]) > 1e-4


def test_caffes_weights_under_torchvisions_names_are_refused(shared: Path) -> None:
    """Ports of VGG_ILSVRC_16_layers look like torchvision's file; folded, they would be read as other weights."""
    _, bias = read_caffemodel(shared / "weights/vgg16-conv1-3.caffemodel")["conv1_1"]
    with pytest.raises(ValueError, match=r"VGG_ILSVRC_16_layers\.caffemodel's weights, for BGR"):
        from_torchvision({**state(), "features.0.bias": bias})


def test_nyudv2_keeps_its_means() -> None:
    """What it subtracts is not one mean of colours, and a checkpoint shall not say so."""
    nyud, shapes = Nyud.__new__(Nyud), Shapes("val")
    nyud.mean = HHA_MEAN
    adopt(MEAN, nyud, shapes)
    assert (nyud.mean, shapes.mean) == (HHA_MEAN, MEAN) and Shapes("val").mean != MEAN


# --- files ------------------------------------------------------------------------------------------------------


def save_zip(state: State, path: Path) -> None:
    torch.save(state, path)


def save_old(state: State, path: Path) -> None:
    """As torch did until 2020, and as torchvision's file of 2017 is."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"), [("a.pth", save_zip), ("b.pth", save_old), ("c.safetensors", safetensors.torch.save_file)]
)
def test_the_command_writes_a_caffemodel(
    name: str, save: Callable[[State, Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(state(), tmp_path / name)
    out = tmp_path / "vgg16.caffemodel"
    assert convert.main([str(tmp_path / name), "-o", str(out)]) == 0
    assert "mean B 103.53 G 116.28 R 123.675" in capsys.readouterr().out
    net = build("vgg16", width=WIDTH, classes=CLASSES)
    load_caffemodel(net, out)
    expected = from_torchvision(state())
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())


def without(state: State, key: str) -> State:
    return {name: value for name, value in state.items() if name != key}


REFUSED: list[tuple[Callable[[State], object], str]] = [
    (lambda state: without(state, "features.2.weight"), "it lacks features.2.weight"),
    (lambda state: {**state, "features.1.running_mean": torch.zeros(4)}, "it has features.1.running_mean"),
    (lambda state: {**state, "classifier.0.bias": torch.full((FC,), torch.nan)}, "classifier.0.bias .* not finite"),
    (lambda state: {**state, "classifier.0.bias": torch.zeros(FC, dtype=torch.int64)}, "classifier.0.bias is no array"),
    (lambda state: {**state, "features.0.bias": torch.zeros(4).to_sparse()}, "features.0.bias is no array"),
    (lambda state: {**state, "features.0.bias": torch.zeros(4, device="meta")}, "features.0.bias is no array"),
    (lambda state: {**state, "features.0.weight": torch.zeros(4, 4, 3, 3)}, "no convolution of three channels"),
    (lambda state: {**state, "classifier.3.weight": torch.zeros(3, 5)}, "not VGG-16's shapes"),
    (lambda state: {**state, "classifier.0.bias": torch.tensor(1.0)}, "not VGG-16's shapes"),
    (lambda state: {"state_dict": state}, "holds no state dict"),
    (lambda state: [1, 2], "holds no state dict"),
    (lambda state: torch.zeros(3), "holds no state dict"),
]


@pytest.mark.parametrize(("change", "complaint"), REFUSED, ids=range(len(REFUSED)))
def test_other_states_are_refused(
    change: Callable[[State], object], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(change(state()), tmp_path / "x.pth")
    refused(tmp_path / "x.pth", complaint, capsys)


PICKLE = b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.bin"])
@pytest.mark.parametrize("content", [b"", PICKLE, b"not found, said the server", bytes(range(256)), None])
def test_files_that_are_none(
    name: str,
    content: bytes | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / name, "", capsys)
    assert not (tmp_path / "pwned").exists()


def refused(path: Path, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: one line, and nothing written."""
    before = {*path.parent.iterdir()}
    assert convert.main([str(path), "-o", str(path.with_name("new.caffemodel"))]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"error: {path}: ") and "vgg16-397923af.pth" in line and "\n" not in line, line
    assert re.search(complaint, line), line
    assert {*path.parent.iterdir()} == before


def test_the_outputs_name_is_checked_before_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main([str(tmp_path / "none.pth"), "-o", str(tmp_path / "vgg16.onnx")]) == 2
    assert "ends in .caffemodel" in capsys.readouterr().err
