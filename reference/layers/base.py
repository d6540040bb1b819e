"""What all layers share: blobs and how they are filled, multipliers, and the three functions of a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Shape = tuple[int, ...]
Pair = tuple[int, int]
FLOAT32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Param:
    """Multipliers of the solver's rate and weight decay for one blob (caffe.proto: ParamSpec)."""

    lr_mult: float = 1.0
    decay_mult: float = 1.0


FILLERS = ("constant", "uniform", "gaussian", "xavier", "msra", "bilinear")


@dataclass(frozen=True)
class Filler:
    """How a blob is initialised (include/caffe/filler.hpp). Caffe's default is the constant 0.

    Raises ValueError for an unknown type and an impossible range or deviation.
    """

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.type not in FILLERS:
            raise ValueError(f"unknown filler {self.type!r}; there are {', '.join(FILLERS)}")
        if not 0 <= self.max - self.min <= FLOAT32_MAX:
            raise ValueError(f"a filler's min {self.min:g} is not below its max {self.max:g}; mend one")
        if not self.std >= 0:
            raise ValueError(f"a filler's std {self.std:g} is below 0; mend it")

    def fill_(self, blob: Tensor) -> None:
        """Fill `blob` in place from torch's global random state. Raises ValueError for a shape it cannot fill."""
        fan_in = blob.numel() // max(blob.shape[0], 1) if blob.ndim else 1
        with torch.no_grad():
            if self.type == "constant":
                blob.fill_(self.value)
            elif self.type == "uniform":
                blob.uniform_(self.min, self.max)
            elif self.type == "gaussian":
                blob.normal_(self.mean, self.std)
            elif self.type == "xavier":
                bound = math.sqrt(3.0 / fan_in)
                blob.uniform_(-bound, bound)
            elif self.type == "msra":
                blob.normal_(0.0, math.sqrt(2.0 / fan_in))
            else:
                if blob.ndim != 4 or blob.shape[2] != blob.shape[3]:
                    raise ValueError(f"a bilinear filler fills square kernels, not {tuple(blob.shape)}")
                # Caffe's BilinearFiller gives every channel pair the kernel; it is meant for group == channels.
                blob.copy_(bilinear_kernel(blob.shape[-1]).expand_as(blob))


def bilinear_kernel(size: int) -> Tensor:
    """The size x size float64 kernel of bilinear upsampling (the authors' surgery.py: upsample_filt).

    Its factor is (size + 1) // 2; an even kernel is centred between two pixels.
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / factor
    return torch.outer(ramp, ramp)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Base of all layers; by default one bottom, one top of the same shape, no blobs, pointwise in space."""

    name: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()

    # Whether output pixel i lies over input pixel i, so that coordinates pass through (coord_map.py).
    pointwise: ClassVar[bool] = True

    @property
    def type(self) -> str:
        """Caffe's name of the layer's type."""
        return type(self).__name__

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        """Shapes of the blobs that the layer owns, in Caffe's order, by their name in the state dict."""
        return {}

    def fillers(self) -> dict[str, Filler]:
        """Declared fillers by blob name; a blob without one is zero, as in Caffe."""
        return {}

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """Shapes of the tops. Raises ValueError where the bottoms do not fit."""
        return (bottoms[0],)

    def forward(
        self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """The top (or tops), from the bottoms (tensors shaped as in Caffe) and the layer's blobs."""
        raise NotImplementedError(f"{self.type} computes nothing")

    @property
    def in_place(self) -> bool:
        """Whether the layer writes over its bottom. `reference.net.Net` never lets it write over an input."""
        return self.tops == self.bottoms != ()

    def param(self, index: int) -> Param:
        """The multipliers of blob `index`; 1 and 1 where none are declared, as in Caffe."""
        return self.params[index] if index < len(self.params) else Param()


@dataclass(frozen=True, kw_only=True)
class Input(Layer):
    """A tensor given from outside. Of `shape` only the channels bind: the nets take any height and width."""

    shape: Shape = ()

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return (self.shape,)
