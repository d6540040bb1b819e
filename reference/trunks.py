"""The classifiers that the paper turns into FCNs (CVPR 2015, section 4.1): VGG-16, CaffeNet, GoogLeNet.

Options of all: width, the factor of every layer's channels (a narrow copy of the same net for CPUs), and dropout (a
narrow copy has no units to spare for the original's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reference.builder import LEARNED, Builder
from reference.layers import Filler, Param
from reference.net import NetSpec

# The first convolution's padding: the score map of even a 1x1 image then covers the image after cropping.
PAD = 100
# VGG-16 (ILSVRC-2014 model D): convolutions and channels of each block; fc6 and fc7 have 4096, as CaffeNet's.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
FC = 4096
# GoogLeNet (Szegedy et al., CVPR 2015, table 1): channels of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Trunk:
    """The tops that a head builds on."""

    pool3: str
    pool4: str
    fc7: str


def _narrow(channels: int, width: float, group: int = 1) -> int:
    """`channels` times `width`, rounded to whole groups."""
    return max(1, round(channels * width / group)) * group


# --- VGG-16 -------------------------------------------------------------------------------------------------


def _vgg16_convs(
    n: Builder,
    data: str,
    width: float,
    pad: int,
    from_scratch: bool = False,
    first: str = "conv1_1",
    suffix: str = "",
) -> list[str]:
    """conv1_1 to pool5; returns the five pooled tops. from_scratch declares He's fillers."""
    top, pools = data, []
    # Images are 0-255 minus a mean: 1/64 brings activations to unit size, on which the rates below rely.
    first_filler = Filler("gaussian", std=round(math.sqrt(2 / (3 * 3 * 3)) / 64, 6))
    for block, (convs, channels) in enumerate(VGG16_BLOCKS, start=1):
        for i in range(1, convs + 1):
            is_first = block == i == 1
            filler = (first_filler if is_first else Filler("msra")) if from_scratch else None
            name = first if is_first else f"conv{block}_{i}"
            channels_out = _narrow(channels, width)
            top = n.conv(f"{name}{suffix}", top, channels_out, 3, pad=pad if is_first else 1, filler=filler)
            top = n.relu(f"relu{block}_{i}{suffix}", top)
        top = n.max_pool(f"pool{block}{suffix}", top)
        pools.append(top)
    return pools


def _fc6_fc7(
    n: Builder,
    pool5: str,
    kernel: int,
    channels: int,
    dropout: float,
    params: tuple[Param, ...] = LEARNED,
    suffix: str = "",
) -> str:
    """The fully connected layers as convolutions: fc6 as large as the classifier's pool5, fc7 1x1."""
    top = pool5
    for i, size in ((6, kernel), (7, 1)):
        top = n.conv(f"fc{i}{suffix}", top, channels, size, params=params)
        top = n.relu(f"relu{i}{suffix}", top)
        top = n.dropout(f"drop{i}{suffix}", top, dropout)
    return top


def vgg16(
    n: Builder,
    data: str,
    width: float = 1.0,
    fc_width: float | None = None,
    dropout: float = 0.5,
    *,
    first: str = "conv1_1",
    suffix: str = "",
) -> Trunk:
    """VGG-16 made fully convolutional: conv1_1 padded by 100, fc6 and fc7 as 7x7 and 1x1 convolutions.

    fc_width, the factor of fc6 and fc7, is width unless given. first: another name of conv1_1, whose weights then do
    not come from the classifier. suffix: of all names, where a net has two trunks.
    """
    *_, pool3, pool4, pool5 = _vgg16_convs(n, data, width, PAD, first=first, suffix=suffix)
    fc7 = _fc6_fc7(n, pool5, 7, _narrow(FC, fc_width or width), dropout, suffix=suffix)
    return Trunk(pool3, pool4, fc7)


def vgg16_classifier(
    classes: int = 1000, width: float = 1.0, fc_width: float | None = None, size: int = 224, dropout: float = 0.5
) -> NetSpec:
    """VGG-16 as a classifier of size x size images (VGG_ILSVRC_16_layers), to be trained from scratch.

    He's fillers stand where VGG's authors began from a shallower, pretrained net.
    """
    n = Builder("vgg16")
    data, label = n.input("data", 3, (size, size)), n.input("label", 1, (1, 1))
    top = _vgg16_convs(n, data, width, pad=1, from_scratch=True)[-1]
    for i in (6, 7):
        top = n.inner_product(f"fc{i}", top, _narrow(FC, fc_width or width), filler=Filler("msra"))
        top = n.relu(f"relu{i}", top)
        top = n.dropout(f"drop{i}", top, dropout)
    score = n.inner_product("fc8", top, classes, filler=Filler("gaussian", std=0.01))
    n.loss("loss", score, label, normalization="valid")
    return n.spec()


# --- CaffeNet -----------------------------------------------------------------------------------------------


def alexnet(n: Builder, data: str, width: float = 1.0, fc_width: float | None = None, dropout: float = 0.5) -> str:
    """CaffeNet (AlexNet that pools before it normalises) made fully convolutional; returns fc7.

    The authors declare no multipliers here: biases learn at 1 and are decayed (voc-fcn-alexnet/net.py).
    """

    def conv(i: int, bottom: str, channels: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1) -> str:
        # Even, since most tops feed two groups.
        channels = _narrow(channels, width, 2)
        top = n.conv(f"conv{i}", bottom, channels, kernel, stride=stride, pad=pad, group=group, params=())
        return n.relu(f"relu{i}", top)

    conv1 = conv(1, data, 96, 11, stride=4, pad=PAD)
    norm1 = n.lrn("norm1", n.max_pool("pool1", conv1, 3))
    conv2 = conv(2, norm1, 256, 5, pad=2, group=2)
    norm2 = n.lrn("norm2", n.max_pool("pool2", conv2, 3))
    conv3 = conv(3, norm2, 384, 3, pad=1)
    conv4 = conv(4, conv3, 384, 3, pad=1, group=2)
    conv5 = conv(5, conv4, 256, 3, pad=1, group=2)
    return _fc6_fc7(n, n.max_pool("pool5", conv5, 3), 6, _narrow(FC, fc_width or width), dropout, params=())


# --- GoogLeNet ----------------------------------------------------------------------------------------------


def googlenet(n: Builder, data: str, width: float = 1.0, dropout: float = 0.4) -> str:
    """GoogLeNet without its auxiliary classifiers and its average pooling; returns inception_5b/output.

    Names and multipliers are BVLC's (models/bvlc_googlenet).
    """

    def conv(block: str, part: str, bottom: str, channels: int, stride: int = 1, pad: int = 0) -> str:
        kernel = 1 if part.endswith(("_reduce", "_proj")) else int(part[0])
        top = n.conv(f"{block}/{part}", bottom, _narrow(channels, width), kernel, stride=stride, pad=pad)
        return n.relu(f"{block}/relu_{part.removesuffix('_s2')}", top)

    def inception(block: str, bottom: str) -> str:
        c1, reduce3, c3, reduce5, c5, proj = INCEPTION[block]
        name = f"inception_{block}"
        one = conv(name, "1x1", bottom, c1)
        three = conv(name, "3x3", conv(name, "3x3_reduce", bottom, reduce3), c3, pad=1)
        five = conv(name, "5x5", conv(name, "5x5_reduce", bottom, reduce5), c5, pad=2)
        pooled = conv(name, "pool_proj", n.max_pool(f"{name}/pool", bottom, 3, stride=1, pad=1), proj)
        return n.concat(f"{name}/output", one, three, five, pooled)

    top = n.max_pool("pool1/3x3_s2", conv("conv1", "7x7_s2", data, 64, stride=2, pad=PAD), 3)
    top = conv("conv2", "3x3_reduce", n.lrn("pool1/norm1", top), 64)
    top = n.lrn("conv2/norm2", conv("conv2", "3x3", top, 192, pad=1))
    for stage, blocks in ((2, ("3a", "3b")), (3, ("4a", "4b", "4c", "4d", "4e")), (4, ("5a", "5b"))):
        top = n.max_pool(f"pool{stage}/3x3_s2", top, 3)
        for block in blocks:
            top = inception(block, top)
    return n.dropout("pool5/drop_7x7_s1", top, dropout)
