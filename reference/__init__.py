"""Fully Convolutional Networks for Semantic Segmentation with Caffe's semantics, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reference import heads, surgery, trunks
from reference.caffe import (
    load_caffemodel,
    load_prototxt,
    load_solverstate,
    save_caffemodel,
    save_prototxt,
    save_solverstate,
)
from reference.loss import softmax_loss
from reference.net import Net, NetSpec
from reference.solver import CaffeSGD

NETS: dict[str, Callable[..., NetSpec]] = {"vgg16": trunks.vgg16_classifier, **heads.NETS}


def build(name: str, **options: Any) -> Net:
    """The net that the authors call `name`, as their solve.py has it before any weights are loaded.

    Weights and biases are zero, deconvolutions bilinear, Scale layers at their factor.
    options: classes, width and more (see `reference.heads`). Raises ValueError for an unknown name.
    """
    if name not in NETS:
        raise ValueError(f"no net {name!r}; there are {', '.join(NETS)}")
    net = Net(NETS[name](**options))
    surgery.interpolate(net)
    return net


__all__ = [
    "NETS",
    "CaffeSGD",
    "Net",
    "NetSpec",
    "build",
    "load_caffemodel",
    "load_prototxt",
    "load_solverstate",
    "save_caffemodel",
    "save_prototxt",
    "save_solverstate",
    "softmax_loss",
    "surgery",
]
