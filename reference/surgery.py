"""Net surgery: a classifier's weights into an FCN, a coarser FCN's into a finer one (the authors' surgery.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reference.layers import Deconvolution, Shape, bilinear_kernel
from reference.net import Net, layer_name, module_name


@dataclass
class Report:
    """What a transplant did, by state dict key; it prints as a line of each kind.

    reshaped: of another shape but equal size, theirs and ours. dropped: the net has no such blob. missing: the weights
    have none, and the net keeps its own.
    """

    copied: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def coerced(self) -> list[str]:
        """The authors' word for what was reshaped."""
        return list(self.reshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.copied)} blobs copied"]
        if self.reshaped:
            told = [
                f"{'.'.join(_split(key))} from {_shown(theirs)} to {_shown(ours)}"
                for key, (theirs, ours) in self.reshaped.items()
            ]
            lines.append(f"reshaped: {', '.join(told)}")
        if self.dropped:
            lines.append(f"dropped, the net has none: {_by_layer(self.dropped)}")
        if self.missing:
            lines.append(f"missing, the net keeps its own: {_by_layer(self.missing)}")
        return "\n  ".join(lines)


def _by_layer(keys: Iterable[str]) -> str:
    """fc8 (weight, bias), upscore (weight)"""
    layers: dict[str, list[str]] = {}
    for layer, blob in map(_split, keys):
        layers.setdefault(layer, []).append(blob)
    return ", ".join(f"{layer} ({', '.join(blobs)})" for layer, blobs in layers.items())


def _split(key: str) -> tuple[str, str]:
    """Caffe's name of the layer, and its blob's."""
    module, _, blob = key.rpartition(".")
    return layer_name(module), blob


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def transplant(net: Net, weights: Mapping[str, Tensor] | Net, suffix: str = "") -> Report:
    """Copy weights by layer name into `net`, in place, as the authors' surgery.transplant does.

    A blob of another shape but equal size is coerced: fc6's 4096 x 25088 becomes 4096 x 512 x 7 x 7. What the
    net does not have is dropped; what the weights do not have is left as it is and reported as missing.
    suffix: what the net's names have at their end beyond the weights' (conv1_1color of nyud-fcn32s-color-hha).
    Nothing is written before everything fits. Raises ValueError for a blob of another size.
    """
    source = weights.state_dict() if isinstance(weights, Net) else weights
    if suffix:
        named = ((*_split(key), value) for key, value in source.items())
        source = {f"{module_name(layer + suffix)}.{blob}": value for layer, blob, value in named}
    target = net.state_dict()
    report = Report(missing=[key for key in target if key not in source])
    for key, blob in source.items():
        if key not in target:
            report.dropped.append(key)
        elif target[key].shape == blob.shape:
            report.copied.append(key)
        elif target[key].numel() == blob.numel():
            report.reshaped[key] = tuple(blob.shape), tuple(target[key].shape)
        else:
            ours, theirs = tuple(target[key].shape), tuple(blob.shape)
            raise ValueError(f"{key} is {theirs} in the weights but {ours} in {net.spec.name}")
    for key in (*report.copied, *report.reshaped):
        target[key].copy_(source[key].reshape(target[key].shape))
    return report


def interpolate(net: Net) -> None:
    """Set every deconvolution to bilinear interpolation (surgery.interp): the kernel on the channel diagonal.

    Raises ValueError for a kernel that is not square or maps to another number of channels.
    """
    for layer in net.spec.layers:
        if isinstance(layer, Deconvolution):
            weight = net.layer(layer.name).weight
            assert isinstance(weight, Tensor)
            inputs, outputs, height, width = weight.shape
            if height != width or (inputs != outputs and outputs != 1):
                shape = tuple(weight.shape)
                raise ValueError(f"{layer.name}: a deconvolution of {shape} cannot interpolate channel by channel")
            diagonal = torch.arange(inputs)
            with torch.no_grad():
                weight[diagonal, diagonal if outputs > 1 else 0] = bilinear_kernel(height).to(weight)


def expand_score(net: Net, layer: str, weights: Mapping[str, Tensor]) -> None:
    """Give the first classes of `layer` the scores of a net with fewer classes (surgery.expand_score).

    Nothing is written before both blobs fit. Raises ValueError where one does not.
    """
    pairs = [(weights[f"{layer}.{name}"], net.get_parameter(f"{layer}.{name}")) for name in ("weight", "bias")]
    for old, new in pairs:
        if len(old) > len(new) or old.shape[1:] != new.shape[1:]:
            ours, theirs = tuple(new.shape), tuple(old.shape)
            raise ValueError(f"{layer}: scores of {theirs} do not fit into the {ours} of {net.spec.name}")
    with torch.no_grad():
        for old, new in pairs:
            new[: len(old)] = old


def widen(net: Net, layer: str, weights: Mapping[str, Tensor], source: str) -> None:
    """Give `layer` the weights of `source`, a convolution of fewer channels: further ones get the mean of its channels.

    The authors' solve.py of nyud-fcn32s-color-d starts depth so: layer conv1_1_bgrd, source conv1_1 of VGG-16.
    Nothing is written before both blobs fit. Raises ValueError where one does not.
    """
    weight, bias = (weights[f"{source}.{name}"] for name in ("weight", "bias"))
    wider, shift = (net.get_parameter(f"{layer}.{name}") for name in ("weight", "bias"))
    channels = weight.shape[1]
    if (
        weight.shape != (len(wider), channels, *wider.shape[2:])
        or channels > wider.shape[1]
        or bias.shape != shift.shape
    ):
        ours, theirs = _shown(wider.shape), _shown(weight.shape)
        raise ValueError(f"{layer}: {source}'s weights of {theirs} cannot be widened to the {ours} of {net.spec.name}")
    with torch.no_grad():
        wider[:, :channels] = weight
        wider[:, channels:] = weight.mean(1, keepdim=True)
        shift.copy_(bias)
