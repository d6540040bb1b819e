"""Caffe's layers: what each computes, the blobs it owns, and how its output lies over its input.

A layer is plain data (a frozen dataclass whose fields bear Caffe's names) with three pure functions:
`blob_shapes`, `top_shapes` and `forward`. Nothing here holds a tensor; `reference.net.Net` does.
Sources are files of BVLC Caffe 1.0, src/caffe/layers/ unless another folder is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.loss import softmax_loss

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
        fan_in = blob.numel() // max(blob.shape[0], 1)
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

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        """The top, from the bottoms (tensors shaped as in Caffe) and the layer's blobs."""
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
class Scale(Layer):
    """Each channel times a learned or frozen factor, plus a bias if asked (scale_layer.cpp, axis 1)."""

    filler: Filler = Filler(value=1.0)
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


TYPES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Input,
        Convolution,
        Deconvolution,
        Pooling,
        ReLU,
        Dropout,
        LRN,
        Scale,
        Eltwise,
        Concat,
        Crop,
        InnerProduct,
        Softmax,
        SoftmaxWithLoss,
    )
}
