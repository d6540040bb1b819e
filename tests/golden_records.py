"""Records of genuine Caffe (tests/golden), and the recipe by which their weights, images and labels are made.

A record holds only what Caffe computed; what went in follows from NumPy's legacy RandomState, whose stream is
frozen, so it is the same everywhere.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference.layers import Convolution, Deconvolution
from reference.net import Net, module_name

FOLDER = Path(__file__).parent / "golden"
SAMPLES = 256
VOID = 255


def rng(*key: object) -> np.random.RandomState:
    """The random state of a key, such as rng("a", "conv1_1")."""
    return np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()) & 0x7FFFFFFF)


@functools.cache
def convolution(seed: str, layer: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a Convolution. Kept for the session (fc6 takes seconds): never write into them."""
    random = rng(seed, layer)
    weight = random.standard_normal(shape)
    weight *= 0.01 if layer.startswith("score") else math.sqrt(2)
    weight /= math.sqrt(math.prod(shape[1:]))
    bias = random.standard_normal(shape[0]) * 0.1
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def weights(net: Net, seed: str) -> dict[str, Tensor]:
    """The recipe's weights of every Convolution of `net` (not Deconvolution), by state dict key. Do not write."""
    state = {}
    for layer in net.spec.layers:
        if isinstance(layer, Convolution) and not isinstance(layer, Deconvolution):
            key = module_name(layer.name)
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


def sample(name: str, values: Tensor) -> np.ndarray:
    """The 256 entries of a blob or gradient that a record keeps under `name`, as float32."""
    flat = values.detach().reshape(-1)
    return flat[torch.from_numpy(rng("sample", name).randint(0, flat.numel(), SAMPLES))].numpy()


def norm(values: Tensor) -> float:
    """The L2 norm, summed in float64."""
    return float(torch.linalg.vector_norm(values.detach(), dtype=torch.float64))


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Meta data and arrays of a record."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as record:
        arrays = {key: record[key] for key in record.files if key != "meta"}
        return json.loads(str(record["meta"])), arrays


def relative_to_largest(ours: np.ndarray, caffe: np.ndarray) -> float:
    """The largest difference, relative to the largest entry: how blobs are compared."""
    return float(np.abs(ours - caffe).max() / np.abs(caffe).max())


def relative_l2(ours: np.ndarray, caffe: np.ndarray) -> float:
    """The L2 norm of the difference, relative to Caffe's: how gradients are compared."""
    difference = np.linalg.norm(ours.astype(np.float64) - caffe)
    return float(difference / np.linalg.norm(caffe.astype(np.float64)))


def message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protobuf message by number: integers, and bytes for whatever is longer.

    So small a reader needs none of the project's own code to read what Caffe wrote.
    """
    fields: dict[int, list[Any]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        match key & 7:
            case 0:
                value: Any = varint()
            case 1 | 2 | 5 as wire:
                length = {1: lambda: 8, 2: varint, 5: lambda: 4}[wire]()
                value = data[position : position + length]
                position += length
            case wire:
                raise ValueError(f"wire type {wire}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def blob(data: bytes) -> np.ndarray:
    """A BlobProto's float32 values (field 5, packed), flattened."""
    return np.frombuffer(b"".join(message(data)[5]), np.float32)


def caffemodel(path: Path) -> dict[str, list[np.ndarray]]:
    """The flattened blobs of every layer of a caffemodel (NetParameter.layer = 100; its name = 1, blobs = 7)."""
    layers = [message(layer) for layer in message(path.read_bytes())[100]]
    return {layer[1][0].decode(): [blob(each) for each in layer.get(7, [])] for layer in layers}
