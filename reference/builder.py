"""Writes a net layer by layer, so that its definition reads like the paper's figure (as Caffe's NetSpec does)."""

from __future__ import annotations

from reference.coordinates import crop_offset
from reference.layers import (
    LRN,
    Concat,
    Convolution,
    Crop,
    Deconvolution,
    Dropout,
    Eltwise,
    Filler,
    InnerProduct,
    Input,
    Layer,
    Pair,
    Param,
    Pooling,
    ReLU,
    Scale,
    SoftmaxWithLoss,
)
from reference.net import NetSpec

# The authors' multipliers in their VGG nets (net.py): weights 1/1, biases learn at 2 and are not decayed.
LEARNED = (Param(1, 1), Param(2, 0))
FROZEN = (Param(0),)
# Sizes of the authors' deploy.prototxt; Caffe needs numbers, the nets take any.
DEPLOY_SIZE = (500, 500)


def square(size: int) -> Pair:
    """A side as (height, width)."""
    return size, size


class Builder:
    """Collects layers; every method adds one (or a layer with its in-place ReLU) and returns its top."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: list[Layer] = []

    def spec(self) -> NetSpec:
        """The finished net."""
        return NetSpec(self.name, tuple(self.layers))

    def add(self, layer: Layer) -> str:
        """Append any layer."""
        self.layers.append(layer)
        return layer.tops[0]

    def input(self, name: str, channels: int, size: Pair = DEPLOY_SIZE) -> str:
        """An image (or label) input of `channels` channels."""
        return self.add(Input(name=name, tops=(name,), shape=(1, channels, *size)))

    def conv(
        self,
        name: str,
        bottom: str,
        num_output: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        params: tuple[Param, ...] = LEARNED,
        filler: Filler | None = None,
    ) -> str:
        """A convolution with bias."""
        return self.add(
            Convolution(
                name=name,
                bottoms=(bottom,),
                tops=(name,),
                params=params,
                num_output=num_output,
                kernel_size=square(kernel),
                stride=square(stride),
                pad=square(pad),
                group=group,
                weight_filler=filler,
            )
        )

    def inner_product(
        self,
        name: str,
        bottom: str,
        num_output: int,
        *,
        params: tuple[Param, ...] = LEARNED,
        filler: Filler | None = None,
    ) -> str:
        """A fully connected layer with bias."""
        layer = InnerProduct(
            name=name,
            bottoms=(bottom,),
            tops=(name,),
            params=params,
            num_output=num_output,
            weight_filler=filler,
        )
        return self.add(layer)

    def relu(self, name: str, bottom: str) -> str:
        """An in-place ReLU."""
        return self.add(ReLU(name=name, bottoms=(bottom,), tops=(bottom,)))

    def dropout(self, name: str, bottom: str, ratio: float = 0.5) -> str:
        """An in-place dropout."""
        return self.add(Dropout(name=name, bottoms=(bottom,), tops=(bottom,), dropout_ratio=ratio))

    def max_pool(self, name: str, bottom: str, kernel: int = 2, stride: int = 2, pad: int = 0) -> str:
        """Max pooling."""
        return self.add(
            Pooling(
                name=name,
                bottoms=(bottom,),
                tops=(name,),
                kernel_size=square(kernel),
                stride=square(stride),
                pad=square(pad),
            )
        )

    def lrn(self, name: str, bottom: str) -> str:
        """Local response normalisation with the numbers that CaffeNet and GoogLeNet share (AlexNet, section 3.3)."""
        return self.add(LRN(name=name, bottoms=(bottom,), tops=(name,), local_size=5, alpha=1e-4, beta=0.75))

    def concat(self, name: str, *bottoms: str) -> str:
        """The channels of all bottoms, one after another."""
        return self.add(Concat(name=name, bottoms=bottoms, tops=(name,)))

    def upscore(self, name: str, bottom: str, classes: int, kernel: int, stride: int, learned: bool = False) -> str:
        """Bilinear upsampling as a deconvolution without bias; frozen unless `learned`."""
        return self.add(
            Deconvolution(
                name=name,
                bottoms=(bottom,),
                tops=(name,),
                params=(Param(1, 1),) if learned else FROZEN,
                num_output=classes,
                kernel_size=square(kernel),
                stride=square(stride),
                bias_term=False,
            )
        )

    def scale(self, name: str, bottom: str, factor: float) -> str:
        """A frozen factor."""
        layer = Scale(name=name, bottoms=(bottom,), tops=(name,), params=FROZEN, filler=Filler(value=factor))
        return self.add(layer)

    def crop(self, name: str, bottom: str, like: str) -> str:
        """`bottom` cut to the size and place of `like`; the offset follows from the coordinate maps."""
        offset = crop_offset(self.layers, bottom, like)
        return self.add(Crop(name=name, bottoms=(bottom, like), tops=(name,), axis=2, offset=(offset,)))

    def fuse(self, name: str, *bottoms: str, coeff: tuple[float, ...] = ()) -> str:
        """The sum of score maps, weighted by `coeff` if given."""
        return self.add(Eltwise(name=name, bottoms=bottoms, tops=(name,), coeff=coeff))

    def loss(self, name: str, score: str, label: str, normalization: str = "batch_size") -> str:
        """The softmax loss that ignores void (255); unnormalized, as the authors train nearly all nets."""
        return self.add(
            SoftmaxWithLoss(
                name=name,
                bottoms=(score, label),
                tops=(name,),
                ignore_label=255,
                normalization=normalization,
            )
        )
