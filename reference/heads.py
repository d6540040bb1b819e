"""The paper's nets on VGG-16 (CVPR 2015, figure 3; the authors' net.py of each model folder).

Strides and offsets of the skips:

    net     deconvolutions (kernel/stride)          crops (derived, see reference.coordinates)
    32s     upscore 64/32                           score 19
    16s     upscore2 4/2, upscore16 32/16           score_pool4c 5, score 27
    8s      upscore2 4/2, upscore_pool4 4/2,        score_pool4c 5, score_pool3c 9, score 31
            upscore8 16/8

Options of every net: classes; learned (the deconvolutions inside the net learn, as in the CVPR version, and the last
stays bilinear); and the trunk's width, fc_width and dropout (see `reference.trunks.vgg16`).
"""

from __future__ import annotations

from typing import Any

from reference.builder import Builder
from reference.net import NetSpec
from reference.trunks import Trunk, vgg16


def _start(name: str, options: dict[str, Any]) -> tuple[Builder, Trunk, str, str]:
    n = Builder(name)
    data, label = n.input("data", 3), n.input("label", 1)
    return n, vgg16(n, data, **options), data, label


def voc_fcn32s(classes: int = 21, **options: Any) -> NetSpec:
    """FCN-32s: score fc7, upsample 32 times."""
    n, trunk, data, label = _start("voc-fcn32s", options)
    score_fr = n.conv("score_fr", trunk.fc7, classes, 1)
    upscore = n.upscore("upscore", score_fr, classes, kernel=64, stride=32)
    score = n.crop("score", upscore, like=data)
    n.loss("loss", score, label)
    return n.spec()


def voc_fcn16s(classes: int = 21, learned: bool = False, **options: Any) -> NetSpec:
    """FCN-16s: fc7's scores upsampled twice and added to pool4's, then upsampled 16 times."""
    n, trunk, data, label = _start("voc-fcn16s", options)
    score_fr = n.conv("score_fr", trunk.fc7, classes, 1)
    upscore2 = n.upscore("upscore2", score_fr, classes, kernel=4, stride=2, learned=learned)
    fuse_pool4 = _skip(n, "pool4", trunk.pool4, upscore2, classes)
    upscore16 = n.upscore("upscore16", fuse_pool4, classes, kernel=32, stride=16)
    score = n.crop("score", upscore16, like=data)
    n.loss("loss", score, label)
    return n.spec()


def voc_fcn8s(classes: int = 21, learned: bool = False, **options: Any) -> NetSpec:
    """FCN-8s: FCN-16s with pool3's scores added before the last upsampling, 8 times."""
    return _fcn8s("voc-fcn8s", classes, learned, options, at_once=False)


def voc_fcn8s_atonce(classes: int = 21, learned: bool = False, **options: Any) -> NetSpec:
    """FCN-8s trained in one stage (PAMI 2016): pool4 and pool3 are scaled by 0.01 and 0.0001 before scoring."""
    return _fcn8s("voc-fcn8s-atonce", classes, learned, options, at_once=True)


def _fcn8s(name: str, classes: int, learned: bool, options: dict[str, Any], at_once: bool) -> NetSpec:
    n, trunk, data, label = _start(name, options)
    score_fr = n.conv("score_fr", trunk.fc7, classes, 1)
    upscore2 = n.upscore("upscore2", score_fr, classes, kernel=4, stride=2, learned=learned)
    pool4 = n.scale("scale_pool4", trunk.pool4, 0.01) if at_once else trunk.pool4
    fuse_pool4 = _skip(n, "pool4", pool4, upscore2, classes)
    upscore_pool4 = n.upscore("upscore_pool4", fuse_pool4, classes, kernel=4, stride=2, learned=learned)
    pool3 = n.scale("scale_pool3", trunk.pool3, 0.0001) if at_once else trunk.pool3
    fuse_pool3 = _skip(n, "pool3", pool3, upscore_pool4, classes)
    upscore8 = n.upscore("upscore8", fuse_pool3, classes, kernel=16, stride=8)
    score = n.crop("score", upscore8, like=data)
    n.loss("loss", score, label)
    return n.spec()


def _skip(n: Builder, pool: str, bottom: str, upscore: str, classes: int) -> str:
    """Score a finer pooled map, cut it to the coarser scores, and add the two."""
    score = n.conv(f"score_{pool}", bottom, classes, 1)
    return n.fuse(f"fuse_{pool}", upscore, n.crop(f"score_{pool}c", score, like=upscore))
