"""What reproductions of FCN do otherwise than its authors in Caffe, each as small as it is in other people's code.

A departure changes the net's layers, its weights before training, what it is given, the labels it learns from, the
order of the images, or the solver. Everything it does not name stays as the authors have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.causes import tf32
from fcn.images import VOID
from reference.data import INPUT, LABEL, AuthorsOrder, Mean
from reference.engine import Pass
from reference.layers import Convolution, Crop, Deconvolution, Dropout, Layer, Pooling, Shape, SoftmaxWithLoss
from reference.net import LayerModule, Net, NetSpec
from reference.pretrained import RGB_MEAN, RGB_STD
from reference.solver import CaffeSGD

T = TypeVar("T")
SIDE = 224  # what images are resized to


def as_is(x: T) -> T:
    return x


def as_due(batch: Pass, mean: Mean) -> Pass:
    return batch


def untouched(net: Net) -> None:
    pass


def authors_order(length: int, draws: int, seed: int) -> list[int]:
    """Image indices with replacement, as the authors' data layers draw them."""
    order = iter(AuthorsOrder(length, seed))
    return [next(order) for _ in range(draws)]


@dataclass(frozen=True)
class Departure:
    """One thing done otherwise; without arguments, nothing is.

    given: what the net is given, by input name, in training and in scoring, made of what it is due and the mean that
    was subtracted. taught: the labels (N x 1 x H x W) in training. weights: in place, before training and scoring.
    """

    spec: Callable[[NetSpec], NetSpec] = as_is
    weights: Callable[[Net], None] = untouched
    given: Callable[[Pass, Mean], Pass] = as_due
    taught: Callable[[Tensor], Tensor] = as_is
    order: Callable[[int, int, int], list[int]] = authors_order
    solver: type[CaffeSGD] = CaffeSGD


# --- what the net is given ------------------------------------------------------------------------------------


def rgb(batch: Pass, mean: Mean) -> Pass:
    """RGB, each channel minus its own mean."""
    return {**batch, INPUT: batch[INPUT].flip(1)}


def uncentred(batch: Pass, mean: Mean) -> Pass:
    """No mean subtracted."""
    return {**batch, INPUT: batch[INPUT] + _column(mean)}


def torchvision(batch: Pass, mean: Mean) -> Pass:
    """As torchvision's classifiers are given their images: RGB from 0 to 1, centred, divided by a deviation."""
    pixels = (batch[INPUT] + _column(mean)).flip(1)
    return {**batch, INPUT: (pixels / 255 - _column(RGB_MEAN)) / _column(RGB_STD)}


def squeezed(batch: Pass, mean: Mean) -> Pass:
    """Images (bilinear) and labels (nearest) resized to SIDE x SIDE."""
    image = F.interpolate(batch[INPUT], (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return {**batch, INPUT: image, LABEL: F.interpolate(batch[LABEL], (SIDE, SIDE), mode="nearest-exact")}


def void_as_background(label: Tensor) -> Tensor:
    return label.masked_fill(label == VOID, 0)


def shuffled(length: int, draws: int, seed: int) -> list[int]:
    """Image indices without replacement: every epoch a permutation, as DataLoader(shuffle=True)."""
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(length, generator=generator) for _ in range(math.ceil(draws / length))]
    return torch.cat(epochs)[:draws].tolist()


# --- layers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Resize(Layer):
    """The first bottom resized to the second's height and width, where Caffe has a deconvolution."""

    align_corners: bool = False

    def top_shapes(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ((*bottoms[0][:2], *bottoms[1][2:]),)

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.interpolate(bottoms[0], bottoms[1].shape[2:], mode="bilinear", align_corners=self.align_corners)


@dataclass(frozen=True, kw_only=True)
class CentralCrop(Crop):
    """Half of what is left over is cut off at either end."""

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        (height, width), (tall, wide) = bottoms[1].shape[2:], bottoms[0].shape[2:]
        top, left = (tall - height) // 2, (wide - width) // 2
        return bottoms[0][:, :, top : top + height, left : left + width]


@dataclass(frozen=True, kw_only=True)
class ChannelDropout(Dropout):
    """nn.Dropout2d: a channel is dropped at all pixels at once."""

    def forward(self, blobs: Mapping[str, Tensor], *bottoms: Tensor, training: bool = False) -> Tensor:
        return F.dropout2d(bottoms[0], self.dropout_ratio, training)


def each(change: Callable[[Layer], Layer]) -> Callable[[NetSpec], NetSpec]:
    """A change of single layers."""
    return lambda spec: replace(spec, layers=tuple(map(change, spec.layers)))


def dropping(kind: type[Dropout], ratio: float) -> Callable[[NetSpec], NetSpec]:
    """Dropout of `kind` after fc6 and fc7."""

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, Dropout):
            return layer
        return kind(name=layer.name, bottoms=layer.bottoms, tops=layer.tops, dropout_ratio=ratio)

    return each(change)


def resizing(pads: Mapping[str, int], align_corners: bool = False) -> Callable[[NetSpec], NetSpec]:
    """Scores resized to the next skip and to the image, without an offset; pads: of convolutions, in pixels."""
    like = {"upscore2": "pool4", "upscore_pool4": "pool3"}

    def change(layer: Layer) -> Layer:
        match layer:
            case Deconvolution():
                bottoms = (*layer.bottoms, like.get(layer.name, INPUT))
                return Resize(name=layer.name, bottoms=bottoms, tops=layer.tops, align_corners=align_corners)
            case Crop():
                return replace(layer, offset=(0, 0))
            case Convolution() if layer.name in pads:
                return replace(layer, pad=(pads[layer.name], pads[layer.name]))
        return layer

    return each(change)


def _central(layer: Layer) -> Layer:
    if not isinstance(layer, Crop):
        return layer
    return CentralCrop(name=layer.name, bottoms=layer.bottoms, tops=layer.tops, offset=layer.offset)


def _floor(layer: Layer) -> Layer:
    return replace(layer, round_mode="FLOOR") if isinstance(layer, Pooling) else layer


def _undeclared(layer: Layer) -> Layer:
    """Without multipliers, a net's biases learn at the rate of its weights and are decayed; so torch.optim has it."""
    learned = isinstance(layer, Convolution) and not isinstance(layer, Deconvolution)
    return replace(layer, params=()) if learned else layer


def _mean_loss(layer: Layer) -> Layer:
    return replace(layer, normalization="valid") if isinstance(layer, SoftmaxWithLoss) else layer


def _learned(layer: Layer) -> Layer:
    return replace(layer, params=()) if isinstance(layer, Deconvolution) else layer


central_crop, floor_pooling, undeclared = each(_central), each(_floor), each(_undeclared)
mean_loss, learned_deconvolutions = each(_mean_loss), each(_learned)


# --- weights and solver ---------------------------------------------------------------------------------------


def fresh_fc(net: Net) -> None:
    """fc6 and fc7 as nn.Conv2d begins, where the classifier's were not reshaped into them."""
    torch.manual_seed(0)
    for layer in (net.layer("fc6"), net.layer("fc7")):
        _fresh(layer)


def fresh_deconvolutions(net: Net) -> None:
    """As nn.ConvTranspose2d begins."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, LayerModule) and isinstance(module.layer, Deconvolution):
            _fresh(module)


def _fresh(layer: LayerModule) -> None:
    """torch's own beginning of a convolution, transposed or not: uniform up to 1 / sqrt(fan-in)."""
    bound = 1 / math.sqrt(layer.get_parameter("weight")[0].numel())
    for blob in layer.parameters():
        nn.init.uniform_(blob, -bound, bound)


def in_tf32(net: Net) -> None:
    """Factors of every convolution rounded to 10 bits, as NVIDIA's tensor cores take them. Gradients pass through the
    rounding, but their own factors are not rounded.
    """

    def rounded(module: nn.Module, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x + (tf32(x) - x).detach() for x in bottoms)

    for module in net.modules():
        if isinstance(module, LayerModule) and isinstance(module.layer, Convolution):
            module.register_forward_pre_hook(rounded)
            with torch.no_grad():
                for weight in (blob for name, blob in module.named_parameters() if name == "weight"):
                    weight.copy_(tf32(weight))


class TorchSGD(CaffeSGD):
    """torch.optim.SGD under the same policy and multipliers: the rate stands outside its momentum."""

    def __init__(self, net: Net, base_lr: float, **settings: object) -> None:
        super().__init__(net, base_lr, **settings)  # type: ignore[arg-type]
        multipliers = net.multipliers()
        groups = [
            {"params": [w], "mult": multipliers[key].lr_mult, "weight_decay": decay}
            for key, w in net.named_parameters()
            if w.requires_grad
            for decay in [self.weight_decay * multipliers[key].decay_mult]
        ]
        self.sgd = torch.optim.SGD(groups, lr=base_lr, momentum=self.momentum)

    def step(self) -> None:
        if self.clip_gradients >= 0:
            self._clip()
        for group in self.sgd.param_groups:
            group["lr"] = self.rate() * group["mult"]
        self.sgd.step()
        self.iteration += 1


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
