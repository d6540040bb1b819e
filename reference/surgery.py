"""Net surgery: a classifier's weights into an FCN, a coarser FCN's into a finer one (the authors' surgery.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reference.layers import Deconvolution, bilinear_kernel
from reference.net import Net


@dataclass
class Report:
    """What a transplant did, by state dict key."""

    copied: list[str] = field(default_factory=list)
    coerced: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.copied)} blobs copied"]
        for word in ("coerced", "dropped", "missing"):
            keys = getattr(self, word)
            if keys:
                parts.append(f"{word}: {', '.join(keys)}")
        return "; ".join(parts)


def transplant(net: Net, weights: Mapping[str, Tensor] | Net) -> Report:
    """Copy weights by layer name into `net`, in place, as the authors' surgery.transplant does.

    A blob of another shape but equal size is coerced: fc6's 4096 x 25088 becomes 4096 x 512 x 7 x 7. What the
    net does not have is dropped; what the weights do not have is left as it is and reported as missing.
    Nothing is written before everything fits. Raises ValueError for a blob of another size.
    """
    source = weights.state_dict() if isinstance(weights, Net) else weights
    target = net.state_dict()
    report = Report(missing=[key for key in target if key not in source])
    for key, blob in source.items():
        if key not in target:
            report.dropped.append(key)
        elif target[key].shape == blob.shape:
            report.copied.append(key)
        elif target[key].numel() == blob.numel():
            report.coerced.append(key)
        else:
            ours, theirs = tuple(target[key].shape), tuple(blob.shape)
            raise ValueError(f"{key} is {theirs} in the weights but {ours} in {net.spec.name}")
    for key in (*report.copied, *report.coerced):
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
