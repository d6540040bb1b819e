"""Caffe's SoftmaxWithLoss: a sum over pixels that the paper leaves unnormalized."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Probabilities are clamped at FLT_MIN before the logarithm (softmax_loss_layer.cpp), which bounds a pixel's loss.
MAX_PIXEL_LOSS = -math.log(torch.finfo(torch.float32).tiny)
NORMALIZATIONS = ("batch_size", "valid", "full", "none")


def softmax_loss(
    score: Tensor, label: Tensor, ignore_label: int | None = 255, normalization: str = "batch_size"
) -> Tensor:
    """Softmax cross-entropy summed over pixels and divided by a normalizer (softmax_loss_layer.cpp).

    score: N x K x H x W (or N x K) float; label: N x H x W, N x 1 x H x W (or N) class ids of any dtype.
    normalization: "batch_size" divides by N (Caffe's `normalize: false`, as the authors train), "valid" by
    the number of pixels that are not ignored (`normalize: true`, Caffe's default), "full" by all pixels,
    "none" by 1. The normalizer is at least 1. The sum is taken in float64: Caffe's own sequential float32
    sum is off by up to 5e-4.

    Returns a scalar of score's dtype. Raises ValueError for shapes that do not fit, an unknown
    normalization, and (on the CPU, where looking is free) a class id out of range.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization {normalization!r} is none of {', '.join(NORMALIZATIONS)}")
    pixels = score.shape[:1] + score.shape[2:]
    if label.numel() != pixels.numel():
        raise ValueError(f"label {tuple(label.shape)} does not fit score {tuple(score.shape)}")
    target = label.reshape(pixels).long()
    valid = torch.ones_like(target, dtype=torch.bool) if ignore_label is None else target != ignore_label
    if target.device.type == "cpu" and bool(((target < 0) | (target >= score.shape[1]))[valid].any()):
        bad = int(target[valid & ((target < 0) | (target >= score.shape[1]))][0])
        raise ValueError(f"label holds class {bad}, but score has {score.shape[1]} channels")

    loss = F.cross_entropy(score, target.masked_fill(~valid, -100), reduction="none", ignore_index=-100)
    # The clamp changes the value alone: Caffe's gradient is always probability minus truth. The sum is exact:
    # its second term is 0.
    loss = loss.clamp(max=MAX_PIXEL_LOSS).detach() + (loss - loss.detach())
    total = loss.sum(dtype=torch.float32 if loss.device.type == "mps" else torch.float64).to(score.dtype)
    if normalization == "valid":
        return total / valid.sum().clamp(min=1)
    return total / {"batch_size": score.shape[0], "full": target.numel(), "none": 1}[normalization]
