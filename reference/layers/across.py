"""Layers across channels, or across everything: normalisation, fully connected layers, probabilities, the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from reference.layers.base import Filler, Layer, Shape
from reference.layers.windows import Convolution
from reference.loss import softmax_loss


@dataclass(frozen=True, kw_only=True)
class LRN(Layer):
    """x / (k + alpha / n * sum of squares over n channels) ** beta (lrn_layer.cpp, ACROSS_CHANNELS)."""

    local_size: int = 5
    alpha: float = 1.0
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        if self.local_size % 2 == 0:
            raise ValueError(f"{self.name}: local_size {self.local_size} is not odd")

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.local_response_norm(bottoms[0], self.local_size, self.alpha, self.beta, self.k)


@dataclass(frozen=True, kw_only=True)
class InnerProduct(Layer):
    """O x I weights on the flattened bottom (inner_product_layer.cpp): N x I -> N x O."""

    num_output: int
    bias_term: bool = True
    weight_filler: Filler | None = None
    bias_filler: Filler | None = None

    pointwise: ClassVar[bool] = False

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        weight = (self.num_output, math.prod(bottoms[0][1:]))
        return {"weight": weight, "bias": (self.num_output,)} if self.bias_term else {"weight": weight}

    fillers = Convolution.fillers

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ((bottoms[0][0], self.num_output),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.linear(bottoms[0].flatten(1), blobs["weight"], blobs.get("bias"))


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """Probabilities over the channels (softmax_layer.cpp)."""

    axis: int = 1

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.softmax(bottoms[0], self.axis)


@dataclass(frozen=True, kw_only=True)
class SoftmaxWithLoss(Layer):
    """The loss over all pixels: see `reference.loss.softmax_loss`. Bottoms: scores, labels."""

    ignore_label: int | None = None
    normalization: str = "valid"
    loss_weight: float = 1.0

    pointwise: ClassVar[bool] = False

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ((),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        score, label = bottoms
        return softmax_loss(score, label, ignore_label=self.ignore_label, normalization=self.normalization)
