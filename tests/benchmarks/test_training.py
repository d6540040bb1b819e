"""The training benchmark: its rivals compute the same, its shares add up, and it refuses what it cannot time."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.rivals import PlainSGD, Stopwatch, TorchSGD, disagreement
from benchmarks.subject import voc_like
from export.to_onnx import randomise
from fcn.cli import BadInput
from reference import build
from reference.engine import place, train_step
from reference.net import Net
from reference.recipes import RECIPES, Recipe
from reference.solver import CaffeSGD
from tests.tolerances import SOLVER

CPU = torch.device("cpu")
FAST = ["--steps", "2", "--rounds", "1", "--repeat", "2", "--workers", "1"]


def narrow() -> Net:
    net = build("voc-fcn16s", classes=3, width=1 / 32)
    randomise(net, 0)
    return place(net, CPU)


def narrow_voc() -> Net:
    net = build("voc-fcn8s", width=1 / 32)
    randomise(net, 0)
    return place(net, CPU)


def tiny(**solver: Any) -> Recipe:
    recipe = RECIPES["voc-fcn8s"]
    return replace(recipe, options={"width": 1 / 32}, solver=replace(recipe.solver, **solver))


def fill(net: Net, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        if weight.requires_grad:
            values = torch.randn(weight.shape, generator=generator)
            weight.grad = torch.empty_like(weight).copy_(values)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_policy": "step", "stepsize": 2, "gamma": 0.3},
        {"iter_size": 3},
        {"clip_gradients": 5.0},
        {"clip_gradients": 5.0, "iter_size": 2, "weight_decay": 0.0},
    ],
)
def test_the_plain_rival_follows_caffes_rule(settings: dict[str, Any]) -> None:
    nets = [narrow() for _ in range(2)]
    options = {"base_lr": 0.01, "momentum": 0.9, "weight_decay": 0.05} | settings
    solvers = [CaffeSGD(nets[0], **options), PlainSGD(nets[1], **options)]
    for t in range(5):
        for net, solver in zip(nets, solvers, strict=True):
            fill(net, t)
            solver.step()
    assert disagreement(solvers[0].history, solvers[1].history) <= SOLVER
    assert disagreement(nets[0].state_dict(), nets[1].state_dict()) <= SOLVER


@pytest.mark.parametrize("settings", [{}, {"iter_size": 3}, {"clip_gradients": 5.0}])
def test_torchs_rival_agrees_at_a_constant_rate(settings: dict[str, Any]) -> None:
    ours, its = narrow(), narrow()
    options = {"base_lr": 0.01, "momentum": 0.9, "weight_decay": 0.05} | settings
    fill(ours, 0)
    fill(its, 0)
    solver, rival = CaffeSGD(ours, **options), TorchSGD(CaffeSGD(its, **options))
    for _ in range(4):
        solver.step()
        rival.step()
    assert disagreement(solver.history, rival.history) <= SOLVER
    assert disagreement(ours.state_dict(), its.state_dict()) <= SOLVER


def test_disagreement_is_that_of_the_worst_parameter() -> None:
    ours = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([-4.0]), "frozen": torch.zeros(2)}
    other = copy.deepcopy(ours)
    assert disagreement(ours, other) == 0
    other["b"] -= 1
    assert disagreement(ours, other) == 0.2


def test_another_rule_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Undecayed(PlainSGD):
        def step(self) -> None:
            self.weight_decay = 0.0
            super().step()

    data = voc_like(tmp_path, 40, 56, count=1)
    settings = tiny(weight_decay=0.5).solver
    monkeypatch.setattr(training, "PlainSGD", Undecayed)
    net = narrow_voc()
    with pytest.raises(BadInput, match=r"plain loop and engine disagree by \d.* after three updates: not timed"):
        training.time_updates(settings, net, data, 1, CPU, repeat=1)


def test_a_clock_gives_each_part_its_time() -> None:
    watch = Stopwatch(CPU)
    began = time.perf_counter()
    for part, seconds in (("data", 0.02), ("forward", 0.01), ("data", 0.03)):
        time.sleep(seconds)
        watch.lap(part)
    total, parts = time.perf_counter() - began, watch.seconds()
    assert list(parts) == ["data", "forward"]
    assert parts["data"] >= 0.05 and 0.01 <= parts["forward"] <= total - parts["data"] + 1e-3


def test_the_parts_are_those_of_the_engines_step(tmp_path: Path) -> None:
    """Every pass of iter_size is timed, and the solver moves once."""
    net = narrow_voc()
    solver = CaffeSGD(net, 1e-10, iter_size=2)
    sample = voc_like(tmp_path, 40, 56, count=1)[0]
    image = torch.from_numpy(sample.image.transpose(2, 0, 1).astype(np.float32))[None]
    label = torch.from_numpy(sample.label)[None, None]
    laps: list[str] = []
    batch = {"data": image, "label": label}
    seen = train_step(net, solver, iter([batch] * 3), laps.append)
    assert laps == ["data", "forward", "backward"] * 2 + ["update"]
    assert solver.iteration == 1 and len(seen) == 2 and not seen[0][0].requires_grad and seen[1][1] is batch


def test_steps_of_the_engine_and_of_the_plain_loop(tmp_path: Path) -> None:
    """Through the engine's loader, from JPEG files: a worker process for the one, none for the other."""
    data = voc_like(tmp_path, 40, 56)
    figures = training.time_steps(tiny(iter_size=2), narrow_voc(), data, CPU, workers=1, rounds=2, steps=3)
    assert (figures["rounds"], figures["steps"]) == (2, 3)
    engine, plain = figures["rows"]
    assert (engine["name"], engine["workers"], plain["name"], plain["workers"]) == ("engine", 1, "plain loop", 0)
    for row in (engine, plain):
        assert list(row["share"]) == ["data", "forward", "backward", "update"]
        assert sum(row["share"].values()) == pytest.approx(1, abs=1e-4)
        assert 1e3 / sum(row["ms_per_image"].values()) == pytest.approx(row["images_per_s"], rel=0.01)
        assert row["slowest_turn"] <= row["images_per_s"] <= row["fastest_turn"]
    assert figures["speed_up"] == pytest.approx(engine["images_per_s"] / plain["images_per_s"], rel=0.01)


def test_generated_pictures_are_a_voc_data_set(tmp_path: Path) -> None:
    data, source = training.open_pictures(RECIPES["voc-fcn8s"], None, tmp_path)
    assert len(data) == 16 and source == "generated JPEG files of 375x500"
    for sample in (data[0], data[15]):
        assert sample.image.shape == (375, 500, 3) and sample.label.shape == (375, 500)
        assert len(np.unique(sample.label)) > 2 and sample.image.std() > 10


def test_the_command_writes_figures_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["shapes-fcn8s", *FAST, "--device", "cpu", "--out", str(tmp_path)]) == 0
    said, figures = capsys.readouterr().out, json.loads((tmp_path / "training.json").read_text())
    assert (tmp_path / "training.png").stat().st_size > 10_000
    (found,) = figures["recipes"]
    assert found["recipe"] == "shapes-fcn8s" and found["clipped"] and found["data"] == "shapes"
    names = [row["name"] for row in found["update_ms"]]
    assert names == ["engine", "plain loop", "torch.optim.SGD(fused=True)"] and found["update_ms"][0]["runs"] == 2
    ratio = found["update_ms"][0]["median"] / found["update_ms"][2]["median"]
    assert found["update_ratio"] == pytest.approx(ratio, rel=0.01)
    assert f"{found['speed_up']:.3f} times the plain loop" in said and "torch.optim.SGD(fused=True)" in said


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
def test_a_gpu_is_timed_by_its_own_clock(tmp_path: Path) -> None:
    """All three updates must agree there too, or the command would refuse."""
    assert training.main(["shapes-fcn8s", *FAST, "--device", "cuda", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "training.json").read_text())
    assert "cpu" not in figures["device"]
    for row in figures["recipes"][0]["rows"]:
        assert min(row["ms_per_image"].values()) > 0 and sum(row["share"].values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["voc-fcn7s"], "no recipe 'voc-fcn7s'"),
        (["camvid-fcn32s"], "camvid is not embedded"),
        (["voc-fcn8s", "--data", "nowhere"], "nowhere: no such folder"),
        (["--steps", "0"], "--steps 0: give 1 or more"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_bad_input(words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
