"""Weights, images and labels that follow from a key: the recipe by which the records of genuine Caffe were made.

NumPy's legacy RandomState is frozen, so a key gives the same numbers everywhere, and a record (tests/golden) holds
only what Caffe computed from them.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from reference.layers import Convolution, Deconvolution
from reference.net import Net, module_name

VOID = 255


def rng(*key: object) -> np.random.RandomState:
    """The random state of a key, such as rng("a", "conv1_1")."""
    return np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()) & 0x7FFFFFFF)


@functools.cache
def convolution(seed: str, layer: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a Convolution. Kept while the process lives (fc6 takes seconds): never write into them."""
    random = rng(seed, layer)
    weight = random.standard_normal(shape)
    weight *= 0.01 if layer.startswith("score") else math.sqrt(2)
    weight /= math.sqrt(math.prod(shape[1:]))
    bias = random.standard_normal(shape[0]) * 0.1
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def weights(net: Net, seed: str, besides: Collection[str] = ()) -> dict[str, Tensor]:
    """Weight and bias of every Convolution of `net` (not Deconvolution), by state dict key. Do not write into them.

    besides: keys that come from elsewhere, such as a coarser net's: those layers are left out.
    """
    state = {}
    for layer in net.spec.layers:
        key = module_name(layer.name)
        if isinstance(layer, Convolution) and not isinstance(layer, Deconvolution) and f"{key}.weight" not in besides:
            shape = tuple(net.get_parameter(f"{key}.weight").shape)
            state[f"{key}.weight"], state[f"{key}.bias"] = convolution(seed, layer.name, shape)
    return state


def image(seed: str, top: str, height: int, width: int, channels: int = 3) -> Tensor:
    """The 1 x channels x height x width float32 image: coarse blocks of 8 pixels and some noise."""
    random = rng(f"{seed}/{top}", "data")
    coarse = random.uniform(-110, 140, (channels, math.ceil(height / 8), math.ceil(width / 8)))
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noisy = blocks + random.uniform(-10, 10, (channels, height, width))
    return torch.from_numpy(noisy.astype(np.float32))[None]


def label(seed: str, top: str, classes: int, height: int, width: int) -> Tensor:
    """The 1 x 1 x height x width float32 label: blocks of 16 pixels, one pixel in twenty void."""
    random = rng(seed, top)
    coarse = random.randint(0, classes, (math.ceil(height / 16), math.ceil(width / 16)))
    ids = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    ids[random.uniform(size=(height, width)) < 0.05] = VOID
    return torch.from_numpy(ids.astype(np.float32))[None, None]
