"""Self-describing weights: one safetensors file holds a net's graph, its weights, and what they were trained for."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fcn.classes import BGR, ORDERS, check
from fcn.cli import BadInput
from fcn.files import atomic, existing
from reference.caffe import net_from_text, net_to_text
from reference.net import Net

FORMAT = 1
KEY = "fcn"
HISTORY = "history:"
DTYPES = {f"{HISTORY}iteration": torch.int64}  # of the tensors that are not float32


@dataclass(frozen=True)
class About:
    """What a deployed model must know of its training: it travels from the checkpoint into the ONNX file."""

    recipe: str
    iteration: int
    dataset: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]  # RGB, one a class
    mean: tuple[float, float, float]  # subtracted from 0-255 values, in channel_order
    void: int = 255
    provenance: dict[str, Any] = field(default_factory=dict)
    channel_order: str = BGR  # of fcn.classes.ORDERS


@dataclass(frozen=True)
class Checkpoint:
    """A net with its weights and what it was trained for; of a run under way, the solver's history and its progress."""

    net: Net
    about: About
    history: dict[str, Tensor]
    progress: dict[str, Any]


def save(
    path: str | Path,
    net: Net,
    about: About,
    history: Mapping[str, Tensor] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint (temporary file, then rename). To resume from: the solver's history, the run's progress."""
    tensors = {key: blob.detach().cpu().contiguous() for key, blob in net.state_dict().items()}
    for key, value in (history or {}).items():
        tensors[HISTORY + key] = value.detach().cpu().contiguous()
    # Under one key: safetensors writes several in random order, and equal runs should give equal files.
    description = {"format": FORMAT, "prototxt": net_to_text(net.spec), "about": asdict(about)}
    if progress:
        description["progress"] = dict(progress)
    metadata = {KEY: json.dumps({**description, "crc32": _checksum(description, tensors)})}
    with atomic(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(str(error)) from error


def load(path: str | Path, mend: str = "fetch or train it again") -> Checkpoint:
    """Read a checkpoint. Raises BadInput, one line that ends in `mend`, for a file that is missing, damaged or none
    of ours.
    """
    path = existing(path, hint="train first, or give a .safetensors file that train.py wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a readable safetensors file ({error}); {mend}") from error
    if KEY not in metadata:
        raise BadInput(f"{path}: not a checkpoint that train.py wrote; to start from weights alone, use a caffemodel")
    if wrong := [key for key, value in tensors.items() if value.dtype != DTYPES.get(key, torch.float32)]:
        raise BadInput(f"{path}: {wrong[0]} is {tensors[wrong[0]].dtype}, which train.py does not write; {mend}")
    try:
        description = json.loads(metadata[KEY])
        if description["format"] != FORMAT:
            raise BadInput(f"{path}: written by another version of train.py; train again")
        # The first files had none.
        if (checksum := description.pop("crc32", None)) not in (None, _checksum(description, tensors)):
            raise BadInput(f"{path}: damaged (its CRC-32 is not {checksum}); {mend}")
        about = _about(description["about"])
        if not isinstance(description["prototxt"], str):
            raise ValueError("its prototxt is no text")
        weights = {key: value for key, value in tensors.items() if not key.startswith(HISTORY)}
        # A small file shall not ask for much memory.
        most = sum(value.numel() for value in weights.values())
        net = Net(net_from_text(description["prototxt"], str(path), most_weights=most))
        net.load_state_dict(weights)
        scores, classes = net.spec.shapes()[net.spec.outputs[0]][1], len(about.classes)
        if scores != classes:
            raise ValueError(f"{scores} scores for {classes} classes")
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"{path}: its description and its weights do not fit ({error}); {mend}") from error
    history = {key.removeprefix(HISTORY): value for key, value in tensors.items() if key.startswith(HISTORY)}
    return Checkpoint(net, about, history, description.get("progress", {}))


def _checksum(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Of all that a file says and holds: safetensors would pass on a weight with a flipped bit, a run's settings too.

    It is there against accidents, and costs 0.4 s a GB.
    """
    checksum = zlib.crc32(json.dumps(description).encode())
    for key in sorted(tensors):
        checksum = zlib.crc32(tensors[key].numpy().data, checksum)
    return checksum


def _about(values: dict[str, Any]) -> About:
    """Raises ValueError or TypeError for values that are not what the fields say."""
    known = {f.name for f in fields(About)}
    if not known - {"channel_order"} <= set(values) <= known:  # the first files had none
        raise ValueError(f"description has the fields {sorted(values)}")
    check(values["classes"], values["palette"], values["mean"])
    if values.get("channel_order", BGR) not in ORDERS:
        raise ValueError(f"channel_order is {values['channel_order']!r}")
    kinds = {"recipe": str, "iteration": int, "dataset": str, "void": int, "provenance": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(values[name], kind)]:
        raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r}")
    values["classes"] = tuple(values["classes"])
    values["palette"] = tuple(tuple(colour) for colour in values["palette"])
    values["mean"] = tuple(values["mean"])
    return About(**values)
