"""Caffe's layers: what each computes, the blobs it owns, and how its output lies over its input.

A layer is plain data (a frozen dataclass whose fields bear Caffe's names) with three pure functions:
`blob_shapes`, `top_shapes` and `forward` (but that BatchNorm's sums grow in training). Nothing here holds a tensor;
`reference.net.Net` does.
Sources are files of BVLC Caffe 1.0, src/caffe/layers/ unless another folder is named.
"""

from __future__ import annotations

from reference.layers.across import LRN, InnerProduct, Softmax, SoftmaxWithLoss
from reference.layers.base import FILLERS, Filler, Input, Layer, Pair, Param, Shape, bilinear_kernel
from reference.layers.joins import Concat, Crop, Eltwise, Slice
from reference.layers.pointwise import ELU, AbsVal, BatchNorm, Bias, Dropout, Power, PReLU, ReLU, Scale, Sigmoid, TanH
from reference.layers.windows import Convolution, Deconvolution, Pooling, Window

TYPES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Input,
        Convolution,
        Deconvolution,
        Pooling,
        ReLU,
        PReLU,
        ELU,
        Sigmoid,
        TanH,
        AbsVal,
        Power,
        Dropout,
        LRN,
        BatchNorm,
        Scale,
        Bias,
        Eltwise,
        Concat,
        Slice,
        Crop,
        InnerProduct,
        Softmax,
        SoftmaxWithLoss,
    )
}

__all__ = [
    "ELU",
    "FILLERS",
    "LRN",
    "TYPES",
    "AbsVal",
    "BatchNorm",
    "Bias",
    "Concat",
    "Convolution",
    "Crop",
    "Deconvolution",
    "Dropout",
    "Eltwise",
    "Filler",
    "InnerProduct",
    "Input",
    "Layer",
    "PReLU",
    "Pair",
    "Param",
    "Pooling",
    "Power",
    "ReLU",
    "Scale",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "SoftmaxWithLoss",
    "TanH",
    "Window",
    "bilinear_kernel",
]
