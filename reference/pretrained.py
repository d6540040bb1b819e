"""torchvision's VGG-16 in Caffe's terms: its normalisation of images folded into conv1_1, exactly.

torchvision computes w * ((x / 255 - m) / s) for RGB, its zero padding laid around the normalised image; Caffe's net
computes w' * (y - M) for BGR, its zero padding laid around what the mean was taken from. With M = 255 m and
w' = w / (255 s), the channels reversed, both are one number, and padding is zero in both: the border, and the 100
pixels around it, are the same too, and no bias changes. With another M (the data set's) a constant w' * (M - 255 m)
would have to go into the bias, and be wrong wherever a window reaches into the padding. So the mean belongs to the
weights: train.py subtracts MEAN where it starts from them.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fcn.cli import BadInput
from fcn.files import existing
from reference.trunks import VGG16_BLOCKS

# Of the images that torchvision's weights were trained on, RGB from 0 to 1 (VGG16_Weights.IMAGENET1K_V1.transforms).
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN = (255 * RGB_MEAN[2], 255 * RGB_MEAN[1], 255 * RGB_MEAN[0])  # BGR: 103.53, 116.28, 123.675
# CRC-32 of conv1_1's bias in VGG_ILSVRC_16_layers: what has it under torchvision's names was converted from Caffe.
CAFFES_BIAS = 0x5FADE653
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TORCH = (".pth", ".pt")
GIVE = "give torchvision's vgg16-397923af.pth (IMAGENET1K_V1)"


def read_torchvision(path: str | Path) -> dict[str, Tensor]:
    """Weights of VGG-16 by our keys, from torchvision's state dict in a .pth or .safetensors file.

    Raises BadInput where the file is no such one, is damaged, or holds weights that are not finite, as the classifier
    of torchvision's IMAGENET1K_FEATURES is. Nothing in a .pth is executed.
    """
    path = existing(path, hint=GIVE)
    if path.suffix not in (*TORCH, ".safetensors"):
        raise BadInput(f"{path}: neither a .pth nor a .safetensors file; {GIVE}")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # of a protocol that torch does not write
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of a pickle raises whatever the bytes lead it to
        raise BadInput(f"{path}: holds no weights, or more than weights; {GIVE}") from error
    try:
        return from_torchvision(state)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; {GIVE}") from error


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict of vgg16 by our keys, conv1_1 to take BGR images from 0 to 255 minus MEAN.

    fc6 and fc7 stay matrices (transplanting reshapes them); conv1_1 is rounded once. Raises ValueError for the state
    of anything else, for numbers that are not finite, and for Caffe's weights, which want what Caffe's net is given.
    """
    layers = layer_names()
    keys = {f"{theirs}.{blob}": f"{ours}.{blob}" for theirs, ours in layers.items() for blob in ("weight", "bias")}
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no state dict")
    for told, odd in (("lacks", keys.keys() - state.keys()), ("has", state.keys() - keys.keys())):
        if odd:
            raise ValueError(f"no VGG-16 without batch normalisation: it {told} {min(map(str, odd))}")
    for key, value in state.items():
        if value.dtype not in DTYPES or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"{key} is no array of floating-point numbers")
    weights = {keys[key]: value.detach() for key, value in state.items()}
    if zlib.crc32(weights["conv1_1.bias"].float().numpy().tobytes()) == CAFFES_BIAS:
        raise ValueError("these are VGG_ILSVRC_16_layers.caffemodel's weights, for BGR images of 0 to 255 as they are")
    for key, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} holds numbers that are not finite")
    first = weights["conv1_1.weight"]
    if first.ndim != 4 or first.shape[1] != len(RGB_STD):
        raise ValueError(f"features.0.weight is {tuple(first.shape)}, no convolution of three channels")
    scale = 255 * torch.tensor(RGB_STD, dtype=torch.float64)
    folded = first.double() / scale.reshape(1, -1, 1, 1)
    weights["conv1_1.weight"] = folded.flip(1).to(first.dtype)
    return weights


def layer_names() -> dict[str, str]:
    """Caffe's layer by torchvision's: features.0 is conv1_1, classifier.6 is fc8."""
    found, index = {}, 0
    for block, (convs, _) in enumerate(VGG16_BLOCKS, start=1):
        for i in range(1, convs + 1):
            found[f"features.{index}"] = f"conv{block}_{i}"
            index += 2  # a ReLU follows each convolution
        index += 1  # and a pooling each block
    return found | {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
