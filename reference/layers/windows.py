"""Layers that slide a window over height and width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from reference.layers.base import Filler, Layer, Pair, Shape


@dataclass(frozen=True, kw_only=True)
class Window(Layer):
    """A layer that slides a kernel; pairs are (height, width) in pixels."""

    kernel_size: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)

    pointwise: ClassVar[bool] = False

    def extent(self, axis: int) -> int:
        """Input pixels that the dilated kernel spans on an axis (0 height, 1 width)."""
        return (self.kernel_size[axis] - 1) * self.dilation[axis] + 1


@dataclass(frozen=True, kw_only=True)
class Convolution(Window):
    """Correlation with O x I/group x kh x kw weights (conv_layer.cpp); output sizes round down."""

    num_output: int
    group: int = 1
    bias_term: bool = True
    weight_filler: Filler | None = None
    bias_filler: Filler | None = None

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        channels = self._divided(bottoms[0])
        return self._blobs((self.num_output, channels // self.group, *self.kernel_size))

    def _divided(self, bottom: Shape) -> int:
        channels = bottom[1]
        if channels % self.group or self.num_output % self.group:
            raise ValueError(
                f"{self.name}: {channels} -> {self.num_output} channels do not divide into {self.group} groups"
            )
        return channels

    def _blobs(self, weight: Shape) -> dict[str, Shape]:
        return {"weight": weight, "bias": (self.num_output,)} if self.bias_term else {"weight": weight}

    def fillers(self) -> dict[str, Filler]:
        pairs = {"weight": self.weight_filler, "bias": self.bias_filler}
        return {name: filler for name, filler in pairs.items() if filler}

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ((bottoms[0][0], self.num_output, *(self._size(bottoms[0][2 + axis], axis) for axis in (0, 1))),)

    def _size(self, size: int, axis: int) -> int:
        out = (size + 2 * self.pad[axis] - self.extent(axis)) // self.stride[axis] + 1
        if out < 1:
            raise ValueError(f"{self.name}: an input of {size} pixels is smaller than its kernel")
        return out

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        weight, bias = blobs["weight"], blobs.get("bias")
        return F.conv2d(bottoms[0], weight, bias, self.stride, self.pad, self.dilation, self.group)


@dataclass(frozen=True, kw_only=True)
class Deconvolution(Convolution):
    """The transpose of a convolution, I x O/group x kh x kw weights (deconv_layer.cpp).

    Output size: stride * (size - 1) + kernel - 2 * pad.
    """

    def blob_shapes(self, *bottoms: Shape) -> dict[str, Shape]:
        return self._blobs((self._divided(bottoms[0]), self.num_output // self.group, *self.kernel_size))

    def _size(self, size: int, axis: int) -> int:
        out = self.stride[axis] * (size - 1) + self.extent(axis) - 2 * self.pad[axis]
        if out < 1:
            raise ValueError(f"{self.name}: its padding leaves nothing of an input of {size} pixels")
        return out

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        weight, bias = blobs["weight"], blobs.get("bias")
        return F.conv_transpose2d(bottoms[0], weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@dataclass(frozen=True, kw_only=True)
class Pooling(Window):
    """Max or average over windows; output sizes round *up*, and with padding a last window that would start
    in the padding is dropped (pooling_layer.cpp). Averages count the padding, clipped at size + pad.

    Raises ValueError for padding over half the kernel, which torch cannot do. Without padding, a stride above
    the kernel can leave Caffe a last window without a pixel, which it fills with nonsense: refused too.
    """

    pool: str = "MAX"
    global_pooling: bool = False
    round_mode: str = "CEIL"

    def __post_init__(self) -> None:
        if self.pool not in ("MAX", "AVE"):
            raise ValueError(f"{self.name}: {self.pool} pooling is not supported")
        if any(2 * pad > kernel for pad, kernel in zip(self.pad, self.kernel_size, strict=True)):
            raise ValueError(f"{self.name}: pads {self.pad} are over half the kernel {self.kernel_size}")

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        n, c, *sizes = bottoms[0]
        if self.global_pooling:
            return ((n, c, 1, 1),)
        return ((n, c, *(self._size(size, axis) for axis, size in enumerate(sizes))),)

    def _size(self, size: int, axis: int) -> int:
        kernel, stride, pad = self.kernel_size[axis], self.stride[axis], self.pad[axis]
        span = size + 2 * pad - kernel
        out = (-(-span // stride) if self.round_mode == "CEIL" else span // stride) + 1
        if (out - 1) * stride >= size + pad:
            # Caffe drops it where either axis has padding, and no window is left empty then.
            if not any(self.pad):
                raise ValueError(f"{self.name}: the last window over {size} pixels would hold no pixel")
            out -= 1
        if out < 1:
            raise ValueError(f"{self.name}: an input of {size} pixels is too small to pool")
        return out

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        x = bottoms[0]
        if self.global_pooling:
            return x.amax((2, 3), keepdim=True) if self.pool == "MAX" else x.mean((2, 3), keepdim=True)
        if any(kernel < stride for kernel, stride in zip(self.kernel_size, self.stride, strict=True)):
            self.top_shapes(tuple(x.shape))  # torch would drop an empty last window
        ceil = self.round_mode == "CEIL"
        pool = F.max_pool2d if self.pool == "MAX" else F.avg_pool2d
        return pool(x, self.kernel_size, self.stride, self.pad, ceil_mode=ceil)
