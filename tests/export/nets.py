"""Narrow nets with lively weights, and ONNX Runtime on models in memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import torch

from export.to_onnx import randomise
from fcn.images import voc_palette
from reference import build
from reference.checkpoint import About
from reference.data.voc import CLASSES, MEAN
from reference.layers import BatchNorm, Deconvolution, Input, Layer
from reference.net import Net, NetSpec

NAMES = ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce")
WIDTH = 1 / 16


@functools.cache
def narrow(name: str = "voc-fcn8s", seed: int = 0, width: float = WIDTH) -> Net:
    """A narrow net whose deconvolutions mix channels, as learned ones do: a wrong layout would show."""
    net = build(name, width=width)
    randomise(net, seed)
    mix(net, seed)
    return net.eval()


def mix(net: Net, seed: int) -> None:
    """Fill deconvolutions at random, off the diagonal too, and Scale layers around the value they have."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for layer in net.spec.layers:
            for parameter in net.layer(layer.name).parameters() if not isinstance(layer, Input) else ():
                if isinstance(layer, Deconvolution):
                    parameter.normal_(0, 0.1, generator=generator)
                elif parameter.ndim == 1 and layer.type == "Scale":
                    parameter.mul_(torch.rand(len(parameter), generator=generator) + 0.5)


def about(net: Net, **changes: object) -> About:
    """A description as train.py writes it."""
    values = {
        "recipe": net.spec.name,
        "iteration": 100000,
        "dataset": "voc",
        "classes": CLASSES,
        "palette": tuple(tuple(colour) for colour in voc_palette()[: len(CLASSES)].tolist()),
        "mean": MEAN,
        "provenance": {"command": "python reference/train.py voc-fcn8s", "note": "äöü"},
    }
    return About(**{**values, **changes})  # type: ignore[arg-type]


def small(*layers: Layer, channels: int = 4, size: int = 8) -> Net:
    """A net of a few layers behind an input `data`, with random blobs."""
    data = Input(name="data", tops=("data",), shape=(1, channels, size, size))
    net = Net(NetSpec("small", (data, *layers)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 1, generator=generator)
        for layer in layers:
            if isinstance(layer, BatchNorm):
                for blob in net.layer(layer.name).parameters():
                    blob.abs_()
    return net.eval()


def image(*shape: int, seed: int = 0) -> np.ndarray:
    """A float32 array of a zero-mean image's range; max pooling sees negative maxima too."""
    return np.random.RandomState(seed).uniform(-120, 130, shape).astype(np.float32)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compute(opened: onnxruntime.InferenceSession, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of the model by its name."""
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, inputs), strict=True))


def blobs(net: Net, tops: Sequence[str], **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """`tops` as PyTorch computes them."""
    with torch.inference_mode():
        found = net.run(tuple(tops), {name: torch.from_numpy(value) for name, value in inputs.items()})
    return {top: value.numpy() for top, value in found.items()}


def computed(net: Net) -> tuple[str, ...]:
    """Every top that the deployed net computes, in order."""
    spec = net.spec.deploy()
    return tuple(dict.fromkeys(layer.tops[0] for layer in spec.layers if not isinstance(layer, Input)))
