"""A run as train.py leaves it, of two iterations a stage and three validation images: real, and made in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy import First
from export.to_onnx import export_onnx, randomise
from reference import build, checkpoint
from reference.data.shapes import Shapes
from reference.engine import train_stage
from reference.recipes import stages
from reference.runs import start_from

STRIDES = ("32s", "16s", "8s")
WIDTH = {"classes": 12, "width": 1 / 16, "fc_width": 1 / 64}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of shapes-fcn32s, -16s, -8s; beside the last one's weights lies model.onnx."""
    folder = tmp_path_factory.mktemp("runs")
    before: Path | None = None
    for stride in STRIDES:
        recipe = replace(stages("shapes-fcn8s")[STRIDES.index(stride) - 3], iterations=2, evaluate_every=1)
        net = build(recipe.net, **WIDTH)
        randomise(net, 0)
        if before:
            start_from(net, before, recipe.start)
        place = folder / recipe.name
        data, val = First(Shapes("train"), 5), First(Shapes("val"), 3)
        device = torch.device("cpu")
        train_stage(recipe, net, data, val, place, seed=1337, device=device, workers=0, start=str(before))
        before = place / "weights.safetensors"
    assert before
    saved = checkpoint.load(before)
    export_onnx(saved.net, before.with_name("model.onnx"), saved.about)
    return folder


@pytest.fixture(scope="session")
def weights(runs: Path) -> Path:
    return runs / "shapes-fcn8s" / "weights.safetensors"


@pytest.fixture(scope="session")
def model(runs: Path) -> Path:
    return runs / "shapes-fcn8s" / "model.onnx"
