"""Where runs lie, and how their data and starting weights are found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fcn.cli import BadInput
from fcn.record import ROOT
from reference import build, checkpoint
from reference.caffe import load_caffemodel, load_prototxt
from reference.caffe.weights import read_caffemodel
from reference.data import Dataset, Mean, open_dataset, places
from reference.data.nyud import Nyud
from reference.net import Net
from reference.pretrained import MEAN, TORCH, read_torchvision
from reference.recipes import Recipe
from reference.surgery import Report, transplant, widen

RUNS = Path("out/runs")
WEIGHTS = "weights.safetensors"


def latest(runs: Path = RUNS) -> Path | None:
    """The finished weights of the last stage that ran, or None."""
    found = list(runs.glob(f"*/{WEIGHTS}"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def open_data(name: str, root: Path | None, split: str) -> Dataset:
    """The data set `name`, found below `root`. Raises BadInput, naming where it was looked for."""
    folder, second = places.find(name, root, split)
    return open_dataset(name, folder, split, second)


def net_of(recipe: Recipe) -> Net:
    """The net that a recipe trains, before any weights are loaded."""
    if recipe.net.endswith(".prototxt"):
        return load_prototxt(ROOT / "reference" / "recipes" / recipe.net, phase="TRAIN", **recipe.options)
    return build(recipe.net, **recipe.options)


def start_from(
    net: Net, path: Path, wanted: str, suffix: str = "", widened: Mapping[str, str] | None = None
) -> tuple[Report, Mean | None]:
    """Transplant the weights of a checkpoint of ours, a caffemodel, or torchvision's VGG-16 into `net` by layer name.

    suffix: what the net's names have at their end beyond a checkpoint's. widened: see `Recipe`; a layer that the
    weights have themselves is taken as it is. Also returns the mean that the weights know their images by; a caffemodel
    does not tell. Raises BadInput where they do not fit, or share no layer with the net; `wanted` says which to give.
    """
    mean: Mean | None = None
    widened = widened or {}
    weights: Mapping[str, Tensor]
    try:
        if path.suffix == ".caffemodel":
            report = load_caffemodel(net, path)
            blobs = read_caffemodel(path) if widened else {}
            weights = {
                f"{layer}.{name}": blob.flatten() if name == "bias" else blob
                for layer in widened.values()
                for name, blob in zip(("weight", "bias"), blobs.get(layer, ()), strict=False)
            }
        elif path.suffix in TORCH:
            weights, mean = read_torchvision(path), MEAN
            report = transplant(net, weights)
        else:
            saved = checkpoint.load(path)
            weights, mean = saved.net.state_dict(), saved.about.mean
            report = transplant(net, weights, suffix)
        for layer, source in widened.items():
            if f"{layer}.weight" in report.missing:
                widen(net, layer, weights, source)
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path}: {error}; give the weights of {wanted}") from error
    if not report.copied and not report.coerced:
        raise BadInput(f"{path}: holds no layer of {net.spec.name}; give the weights of {wanted}")
    return report, mean


def adopt(mean: Mean, *sets: Dataset) -> None:
    """Subtract `mean`, which the weights know their images by, from the images of these data sets instead of theirs.

    NYUDv2 keeps its own, as HHA's channels are no colours.
    """
    for data in sets:
        if not isinstance(data, Nyud):
            data.mean = mean


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one. Raises BadInput for a device that is not there.

    On a GPU, float32 is from then on computed as such: torch's convolutions take TF32 (10 bits) unless told.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device {name}: not available here ({str(error).splitlines()[0]}); use cpu") from error
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return device
