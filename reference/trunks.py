"""The classifiers that the paper turns into FCNs (CVPR 2015, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reference.builder import Builder
from reference.layers import Filler
from reference.net import NetSpec

# conv1_1's padding: the score map of even a 1x1 image then covers the image after cropping.
PAD = 100
# VGG-16 (ILSVRC-2014 model D): convolutions and channels of each block; fc6 and fc7 have 4096.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
VGG16_FC = 4096


@dataclass(frozen=True)
class Trunk:
    """The tops that a head builds on."""

    pool3: str
    pool4: str
    fc7: str


def _narrow(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _vgg16_convs(n: Builder, data: str, width: float, pad: int, from_scratch: bool = False) -> list[str]:
    """conv1_1 to pool5; returns the five pooled tops. from_scratch declares He's fillers."""
    top, pools = data, []
    # Images are 0-255 minus a mean: 1/64 brings activations to unit size, on which the rates below rely.
    first_filler = Filler("gaussian", std=round(math.sqrt(2 / (3 * 3 * 3)) / 64, 6))
    for block, (convs, channels) in enumerate(VGG16_BLOCKS, start=1):
        for i in range(1, convs + 1):
            first = block == i == 1
            filler = (first_filler if first else Filler("msra")) if from_scratch else None
            channels_out = _narrow(channels, width)
            top = n.conv(f"conv{block}_{i}", top, channels_out, 3, pad=pad if first else 1, filler=filler)
            top = n.relu(f"relu{block}_{i}", top)
        top = n.max_pool(f"pool{block}", top)
        pools.append(top)
    return pools


def vgg16(n: Builder, data: str, width: float = 1.0, fc_width: float | None = None, dropout: float = 0.5) -> Trunk:
    """VGG-16 made fully convolutional: conv1_1 padded by 100, fc6 and fc7 as 7x7 and 1x1 convolutions.

    width multiplies every layer's channels: a narrow copy of the same net for CPUs. fc_width, the factor of
    fc6 and fc7, is the same unless given. A narrow copy has no units to spare for the original's dropout of 0.5.
    """
    *_, pool3, pool4, pool5 = _vgg16_convs(n, data, width, PAD)
    top, channels = pool5, _narrow(VGG16_FC, fc_width or width)
    for i, kernel in ((6, 7), (7, 1)):
        top = n.conv(f"fc{i}", top, channels, kernel)
        top = n.relu(f"relu{i}", top)
        top = n.dropout(f"drop{i}", top, dropout)
    return Trunk(pool3, pool4, top)


def vgg16_classifier(
    classes: int = 1000, width: float = 1.0, fc_width: float | None = None, size: int = 224, dropout: float = 0.5
) -> NetSpec:
    """VGG-16 as a classifier of size x size images (VGG_ILSVRC_16_layers), to be trained from scratch.

    He's fillers stand where VGG's authors began from a shallower, pretrained net. A narrow copy has no units
    to spare for the original's dropout.
    """
    n = Builder("vgg16")
    data, label = n.input("data", 3, (size, size)), n.input("label", 1, (1, 1))
    top = _vgg16_convs(n, data, width, pad=1, from_scratch=True)[-1]
    for i in (6, 7):
        top = n.inner_product(f"fc{i}", top, _narrow(VGG16_FC, fc_width or width), filler=Filler("msra"))
        top = n.relu(f"relu{i}", top)
        top = n.dropout(f"drop{i}", top, dropout)
    score = n.inner_product("fc8", top, classes, filler=Filler("gaussian", std=0.01))
    n.loss("loss", score, label, normalization="valid")
    return n.spec()
