"""Layers that work on each entry, or each channel, alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.layers.base import Filler, Layer, Param, Shape

ONES, QUARTERS = Filler(value=1.0), Filler(value=0.25)


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
class Sigmoid(Layer):
    """1 / (1 + exp(-x)) (sigmoid_layer.cpp)."""

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return torch.sigmoid(bottoms[0])


@dataclass(frozen=True, kw_only=True)
class TanH(Layer):
    """The hyperbolic tangent (tanh_layer.cpp)."""

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return torch.tanh(bottoms[0])


@dataclass(frozen=True, kw_only=True)
class AbsVal(Layer):
    """|x| (absval_layer.cpp). Raises ValueError for one in place, as Caffe does."""

    def __post_init__(self) -> None:
        if self.in_place:
            raise ValueError(f"{self.name}: it cannot work in place; give its top a name of its own")

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return bottoms[0].abs()


@dataclass(frozen=True, kw_only=True)
class Power(Layer):
    """(shift + scale * x) ** power (power_layer.cpp)."""

    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return (bottoms[0] * self.scale + self.shift) ** self.power


@dataclass(frozen=True, kw_only=True)
class ELU(Layer):
    """x above zero, alpha * (exp(x) - 1) below (elu_layer.cpp)."""

    alpha: float = 1.0

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.elu(bottoms[0], self.alpha)


@dataclass(frozen=True, kw_only=True)
class PReLU(Layer):
    """max(x, 0) + weight * min(x, 0), with a learned weight for each channel, or one for all (prelu_layer.cpp)."""

    filler: Filler = QUARTERS
    channel_shared: bool = False

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        return {"weight": () if self.channel_shared else (bottoms[0][1],)}

    def fillers(self) -> dict[str, Filler]:
        return {"weight": self.filler}

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.prelu(bottoms[0], blobs["weight"].view(-1))


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


@dataclass(frozen=True, kw_only=True)
class Bias(Layer):
    """Each channel plus a learned number (bias_layer.cpp, axis 1)."""

    filler: Filler | None = None

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        return {"bias": (bottoms[0][1],)}

    def fillers(self) -> dict[str, Filler]:
        return {"bias": self.filler} if self.filler else {}

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return bottoms[0] + blobs["bias"].view(1, -1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
    """Each channel minus its mean, over its deviation (batch_norm_layer.cpp); what learns is in a Scale layer after it.

    Blobs: running sums of the means ("weight") and of the variances ("bias"), and what both are to be divided by
    ("factor"). None of them learns. use_global_stats: these are used, and stay as they are; not given: outside of
    training. Else the batch's own are used and added to the sums, which `moving_average_fraction` lets fade.
    Raises ValueError for a rate above 0, as Caffe does.
    """

    use_global_stats: bool | None = None
    moving_average_fraction: float = 0.999
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if any(param.lr_mult for param in self.params):
            raise ValueError(f"{self.name}: its statistics do not learn; set lr_mult: 0")

    def param(self, index: int) -> Param:
        return Param(0)

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        channels = (bottoms[0][1],)
        return {"weight": channels, "bias": channels, "factor": (1,)}

    def statistics(self, blobs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, from the running sums."""
        factor = blobs["factor"]
        share = torch.where(factor == 0, 0, 1 / factor)
        return blobs["weight"] * share, blobs["bias"] * share

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        x = bottoms[0]
        if training if self.use_global_stats is None else not self.use_global_stats:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            self._remember(blobs, mean.detach(), variance.detach(), x.numel() // x.shape[1])
        else:
            mean, variance = self.statistics(blobs)
        return (x - mean.view(1, -1, 1, 1)) / torch.sqrt(variance + self.eps).view(1, -1, 1, 1)

    @torch.no_grad()
    def _remember(self, blobs: Mapping[str, Tensor], mean: Tensor, variance: Tensor, count: int) -> None:
        """Add a batch of `count` entries a channel; its variance counts as that of a sample (count - 1)."""
        unbiased = variance * (count / (count - 1) if count > 1 else 1)
        for name, value in (("weight", mean), ("bias", unbiased), ("factor", torch.ones_like(blobs["factor"]))):
            blobs[name].mul_(self.moving_average_fraction).add_(value)
