"""Records of genuine Caffe (tests/golden): only what it computed. What went in is made by `benchmarks.synthetic`."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.synthetic import rng
from fcn.record import ROOT

FOLDER = ROOT / "tests" / "golden"
SAMPLES = 256


def sample(name: str, values: Tensor) -> np.ndarray:
    """The 256 entries of a blob or gradient that a record keeps under `name`, as float32."""
    flat = values.detach().reshape(-1)
    return flat[torch.from_numpy(rng("sample", name).randint(0, flat.numel(), SAMPLES))].numpy()


def norm(values: Tensor) -> float:
    """The L2 norm, summed in float64; in parts, since torch would make a float64 copy of the whole."""
    parts = values.detach().reshape(-1).split(2**20)
    return math.hypot(*(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts))


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
