"""Layers that work on each entry, or each channel, alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from reference.layers.base import Filler, Layer, Shape

ONES = Filler(value=1.0)


@dataclass(frozen=True, kw_only=True)
class ReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0) (relu_layer.cpp)."""

    negative_slope: float = 0.0

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        if self.negative_slope:
            return F.leaky_relu(bottoms[0], self.negative_slope, self.in_place)
        return F.relu(bottoms[0], self.in_place)


@dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Zeroes *elements* with `dropout_ratio` and scales the rest up, in training only (dropout_layer.cpp)."""

    dropout_ratio: float = 0.5

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.dropout(bottoms[0], self.dropout_ratio, training)


@dataclass(frozen=True, kw_only=True)
class Scale(Layer):
    """Each channel times a learned or frozen factor, plus a bias if asked (scale_layer.cpp, axis 1)."""

    filler: Filler = ONES
    bias_term: bool = False
    bias_filler: Filler | None = None

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        channels = (bottoms[0][1],)
        return {"weight": channels, "bias": channels} if self.bias_term else {"weight": channels}

    def fillers(self) -> dict[str, Filler]:
        return {"weight": self.filler} | ({"bias": self.bias_filler} if self.bias_filler else {})

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        scaled = bottoms[0] * blobs["weight"].view(1, -1, 1, 1)
        return scaled + blobs["bias"].view(1, -1, 1, 1) if self.bias_term else scaled
