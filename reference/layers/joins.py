"""Layers that bring bottoms together, take one apart, or cut one like another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reference.layers.base import Layer, Pair, Shape


@dataclass(frozen=True, kw_only=True)
class Eltwise(Layer):
    """SUM (with coefficients), PROD or MAX of equally shaped bottoms (eltwise_layer.cpp)."""

    operation: str = "SUM"
    coeff: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.operation not in ("SUM", "PROD", "MAX"):
            raise ValueError(f"{self.name}: no operation {self.operation!r}; there are SUM, PROD, MAX")
        if self.coeff and self.operation != "SUM":
            raise ValueError(f"{self.name}: only a SUM takes coefficients")
        if self.coeff and self.bottoms and len(self.coeff) != len(self.bottoms):
            raise ValueError(f"{self.name}: {len(self.coeff)} coefficients for {len(self.bottoms)} bottoms")

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        if len(set(bottoms)) != 1:
            shapes = ", ".join(map(str, bottoms))
            raise ValueError(f"{self.name}: its bottoms differ in shape ({shapes}); is a Crop missing?")
        return (bottoms[0],)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        terms = [b if c == 1 else b * c for b, c in zip(bottoms, self.coeff or (1,) * len(bottoms), strict=True)]
        result = terms[0]
        for index, term in enumerate(terms[1:]):
            if self.operation == "SUM":
                result = result + term
            elif self.operation == "PROD":
                result = result * term
            else:  # a tie goes to the second bottom, and later to the earlier one; it decides the gradient
                result = torch.where(term > result if index else term >= result, term, result)
        return result


@dataclass(frozen=True, kw_only=True)
class Concat(Layer):
    """Bottoms joined along an axis (concat_layer.cpp)."""

    axis: int = 1

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        joined = list(bottoms[0])
        joined[self.axis] = sum(bottom[self.axis] for bottom in bottoms)
        return (tuple(joined),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return torch.cat(bottoms, self.axis)


@dataclass(frozen=True, kw_only=True)
class Slice(Layer):
    """The channels of the bottom, shared out among several tops (slice_layer.cpp): each ends where the next one's
    slice_point is, or all get the same number. Raises ValueError for points that do not suit the tops.
    """

    axis: int = 1
    slice_point: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.slice_point and len(self.slice_point) != len(self.tops) - 1:
            raise ValueError(f"{self.name}: {len(self.tops)} tops need {len(self.tops) - 1} slice_point")

    def sizes(self, channels: int) -> tuple[int, ...]:
        """How many of the channels each top gets."""
        count = len(self.tops)
        ends = self.slice_point or tuple(channels * i // count for i in range(1, count))
        found = tuple(end - start for start, end in zip((0, *ends), (*ends, channels), strict=True))
        if min(found) < 1 or (not self.slice_point and channels % count):
            raise ValueError(f"{self.name}: {channels} channels do not divide so into {count} tops")
        return found

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        images, channels, *rest = bottoms[0]
        return tuple((images, size, *rest) for size in self.sizes(channels))

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> tuple[Tensor, ...]:
        return torch.split(bottoms[0], list(self.sizes(bottoms[0].shape[1])), self.axis)


@dataclass(frozen=True, kw_only=True)
class Crop(Layer):
    """The first bottom cut to the second's size from `axis` on, beginning at `offset` (crop_layer.cpp).

    One offset holds for all the axes; otherwise there is one for each.
    """

    axis: int = 2
    offset: tuple[int, ...] = ()

    pointwise: ClassVar[bool] = False

    def offsets(self) -> Pair:
        """Offset in height and width. Raises ValueError for a crop that reaches into other axes."""
        if self.axis != 2 or len(self.offset) > 2:
            raise ValueError(f"{self.name}: only crops of height and width (axis 2) are supported")
        first, *rest = self.offset or (0,)
        return first, rest[0] if rest else first

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        source, reference = bottoms
        for size, target, offset in zip(source[2:], reference[2:], self.offsets(), strict=True):
            if offset + target > size:
                raise ValueError(f"{self.name}: {target} pixels from {offset} on do not fit into {size}")
        return ((*source[:2], *reference[2:]),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        if not torch.compiler.is_compiling():  # no guard on every size; a slice would come out short in silence
            self.top_shapes(*(tuple(bottom.shape) for bottom in bottoms))
        (top, left), (height, width) = self.offsets(), bottoms[1].shape[2:]
        return bottoms[0][:, :, top : top + height, left : left + width]
