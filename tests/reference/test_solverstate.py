"""Caffe's solver state: a run of genuine Caffe goes on here, and what is written here is what Caffe would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

import reference
from benchmarks import records as golden
from benchmarks import synthetic
from fcn.cli import BadInput
from reference.caffe import binary
from reference.caffe import caffe_pb2 as pb
from reference.net import Net
from reference.solver import CaffeSGD
from tests import tolerances
from tests.conftest import Figures

CAFFE = golden.FOLDER / "solverstate"
SNAPSHOT = CAFFE / "tiny_iter_6.solverstate"


@pytest.fixture
def net() -> Net:
    return reference.load_prototxt(CAFFE / "train.prototxt", phase="TRAIN")


@pytest.fixture
def solver(net: Net) -> CaffeSGD:
    return solver_of(net)


def solver_of(net: Net, **other: Any) -> CaffeSGD:
    """As Caffe's own solver.prototxt has it."""
    text = text_format.Parse((CAFFE / "solver.prototxt").read_text(), pb.SolverParameter())
    words = ("base_lr", "momentum", "weight_decay", "lr_policy", "iter_size", "gamma", "stepsize")
    return CaffeSGD(net, **{**{word: getattr(text, word) for word in words}, **other})


def train(net: Net, solver: CaffeSGD, stop: int) -> None:
    """On to iteration `stop`, on the images of tests/golden/README.md's recipe."""
    while solver.iteration < stop:
        random = synthetic.rng("state", solver.iteration)
        data = torch.from_numpy(random.uniform(-120, 130, (1, 3, 40, 48)).astype(np.float32))
        ids = random.randint(0, 5, (5, 6)).repeat(8, axis=0).repeat(8, axis=1)
        ids[random.uniform(size=(40, 48)) < 0.05] = synthetic.VOID
        solver.zero_grad()
        for _ in range(solver.iter_size):
            net.total_loss(data=data, label=torch.from_numpy(ids)[None, None]).backward()
        solver.step()


def caffes(what: str, iteration: int) -> dict[str, np.ndarray]:
    """Caffe's weights or history after `iteration` iterations, by our key."""
    with np.load(CAFFE / "tiny.npz", allow_pickle=False) as arrays:
        prefix, names = f"iter{iteration}/{what}/", {"0": "weight", "1": "bias"}
        found = {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}
    return {f"{key[:-2]}.{names[key[-1]]}": value for key, value in found.items()}


def compare(net: Net, solver: CaffeSGD, iteration: int) -> dict[str, float]:
    """That weights and history are Caffe's; the worst differences."""
    weights, history = caffes("weight", iteration), caffes("history", iteration)
    assert list(weights) and set(weights) == set(history) == set(solver.history)
    assert not history.pop("upscore.weight").any() and not solver.history["upscore.weight"].any()
    worst = {
        "weights": max(_error(net.state_dict()[key], value) for key, value in weights.items()),
        "history": max(_error(solver.history[key], value) for key, value in history.items()),
    }
    assert worst["weights"] <= tolerances.TRAINED_WEIGHT and worst["history"] <= tolerances.TRAINED_HISTORY, worst
    return worst


def _error(ours: Tensor, caffe: np.ndarray) -> float:
    return golden.relative_to_largest(ours.numpy(), caffe)


# --- Caffe's run goes on here -----------------------------------------------------------------------------------


def test_training_as_caffe_did_from_its_first_weights(net: Net, solver: CaffeSGD) -> None:
    reference.load_caffemodel(net, CAFFE / "tiny_iter_0.caffemodel")
    train(net, solver, 6)
    compare(net, solver, 6)
    train(net, solver, 12)
    compare(net, solver, 12)


def test_a_run_that_caffe_took_to_iteration_6_goes_on_here_to_12(net: Net, solver: CaffeSGD, figures: Figures) -> None:
    assert reference.load_solverstate(solver, SNAPSHOT) == "tiny_iter_6.caffemodel"
    reference.load_caffemodel(net, CAFFE / "tiny_iter_6.caffemodel")
    assert solver.iteration == 6
    for key, value in caffes("history", 6).items():
        np.testing.assert_array_equal(solver.history[key], value)
    train(net, solver, 12)
    figures["solverstate"] = compare(net, solver, 12)


# --- what is written --------------------------------------------------------------------------------------------


def test_caffes_snapshot_read_and_written_again_is_the_same_file(net: Net, solver: CaffeSGD, tmp_path: Path) -> None:
    learned_net = reference.load_solverstate(solver, SNAPSHOT)
    reference.save_solverstate(solver, tmp_path / "again.solverstate", learned_net)
    assert (tmp_path / "again.solverstate").read_bytes() == SNAPSHOT.read_bytes()


def test_our_snapshot_at_6_resumes_bit_for_bit(net: Net, solver: CaffeSGD, tmp_path: Path) -> None:
    reference.load_caffemodel(net, CAFFE / "tiny_iter_0.caffemodel")
    train(net, solver, 6)
    reference.save_caffemodel(net, tmp_path / "our_iter_6.caffemodel")
    reference.save_solverstate(solver, tmp_path / "our_iter_6.solverstate", "our_iter_6.caffemodel")
    train(net, solver, 12)

    other = reference.load_prototxt(CAFFE / "train.prototxt", phase="TRAIN")
    resumed = solver_of(other)
    learned_net = reference.load_solverstate(resumed, tmp_path / "our_iter_6.solverstate")
    assert learned_net is not None
    reference.load_caffemodel(other, tmp_path / learned_net)
    train(other, resumed, 12)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(value, resumed.history[key]) for key, value in solver.history.items())


def test_protobuf_reads_what_is_written(net: Net, tmp_path: Path) -> None:
    """From channels last too, as training has it; and without a caffemodel's name Caffe keeps the weights it has."""
    solver = solver_of(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    wanted = {key: torch.randn(value.shape) for key, value in net.named_parameters()}
    solver.load_state_dict({**wanted, "iteration": torch.tensor(5)})
    assert not solver.history["conv2.weight"].is_contiguous()
    path = tmp_path / "our.solverstate"
    reference.save_solverstate(solver, path)
    state = pb.SolverState.FromString(path.read_bytes())
    assert state.iter == 5 and not state.HasField("learned_net")
    for blob, value in zip(state.history, wanted.values(), strict=True):
        assert tuple(blob.shape.dim) == value.shape
        np.testing.assert_array_equal(np.array(blob.data, np.float32), value.ravel())


# --- the place in the schedule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "options", "steps"), [
    ("fixed", {}, [0, 0, 0, 0, 0, 0]),
    ("step", {"stepsize": 2}, [0, 0, 0, 1, 1, 2]),
    ("multistep", {"stepvalue": (1, 3)}, [0, 0, 1, 1, 2, 2]),
    ("poly", {"max_iter": 9}, [0, 0, 0, 0, 0, 0]),
])  # fmt: skip
def test_current_step_is_what_caffe_last_computed(
    net: Net, policy: str, options: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    """GetLearningRate sets it, with the iteration that then ends: a snapshot after n iterations knows n - 1."""
    solver = solver_of(net, lr_policy=policy, **options)
    for iteration, expected in enumerate(steps):
        solver.iteration = iteration
        reference.save_solverstate(solver, tmp_path / "a.solverstate")
        assert pb.SolverState.FromString((tmp_path / "a.solverstate").read_bytes()).current_step == expected
        reference.load_solverstate(solver, tmp_path / "a.solverstate")
        assert solver.iteration == iteration


def test_another_schedule_is_refused_where_caffe_would_use_the_old_one(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate"
    solver = solver_of(net, lr_policy="multistep", stepvalue=(2, 4, 100))
    solver.iteration = 50
    reference.save_solverstate(solver, path)
    other = solver_of(net, lr_policy="multistep", stepvalue=(60, 100))
    with pytest.raises(BadInput, match=r"a\.solverstate: 2 values of stepvalue lie behind it, but by .* 0"):
        reference.load_solverstate(other, path)
    assert other.iteration == 0
    # Caffe counts "step" anew from the iteration, whatever the file says.
    stepping = solver_of(net, stepsize=25)
    reference.load_solverstate(stepping, path)
    assert stepping.rate() == pytest.approx(1e-8 / 4, rel=tolerances.RATE)


# --- files that are none ----------------------------------------------------------------------------------------


def test_old_and_double_histories(solver: CaffeSGD, tmp_path: Path) -> None:
    """Four axes a blob, as until 2014; no current_step, as before multistep; and Caffe compiled for doubles."""
    old = pb.SolverState.FromString(SNAPSHOT.read_bytes())
    old.ClearField("current_step")
    for blob in old.history:
        shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
        blob.num, blob.channels, blob.height, blob.width = shape
        blob.ClearField("shape")
        blob.double_data.extend(blob.data)
        blob.ClearField("data")
    path = tmp_path / "old.solverstate"
    path.write_bytes(old.SerializeToString())
    reference.load_solverstate(solver, path)
    for key, value in caffes("history", 6).items():
        np.testing.assert_array_equal(solver.history[key], value)


def test_a_state_of_another_net_or_solver_changes_nothing(net: Net, solver: CaffeSGD, tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate"
    state = pb.SolverState.FromString(SNAPSHOT.read_bytes())
    twice = pb.SolverState.FromString(SNAPSHOT.read_bytes())
    twice.history.extend(state.history)  # as Adam has it
    transposed = pb.SolverState.FromString(SNAPSHOT.read_bytes())
    transposed.history[0].shape.dim[:2] = [3, 8]
    backwards = pb.SolverState.FromString(SNAPSHOT.read_bytes())
    backwards.iter = -1
    for wrong, words in (
        (twice, "14 blobs of history, SGD of tiny-fcn has 7"),
        (transposed, r"conv1.weight is \(3, 8, 3, 3\), in tiny-fcn \(8, 3, 3, 3\)"),
        (backwards, "counts no iterations"),
    ):
        path.write_bytes(wrong.SerializeToString())
        with pytest.raises(BadInput, match=rf"a\.solverstate.*{words}"):
            reference.load_solverstate(solver, path)
        assert solver.iteration == 0 and not any(value.any() for value in solver.history.values())


def test_files_that_are_no_solverstate(solver: CaffeSGD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.solverstate"
    for content, words in (
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 snapshot; save with snapshot_format: BINARYPROTO"),
        ((CAFFE / "solver.prototxt").read_bytes(), "a text file, not a solverstate"),
        ((CAFFE / "tiny_iter_6.caffemodel").read_bytes(), "not a whole solverstate.*counts no iterations"),
        ((golden.FOLDER / "v1-small.caffemodel").read_bytes(), "not a whole solverstate"),
        (b"\x08\x06", "0 blobs of history"),
        (b"\x12\x01\xff\x08\x06", "not a whole solverstate.*decode"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=rf"a\.solverstate.*{words}") as problem:
            reference.load_solverstate(solver, path)
        assert "\n" not in str(problem.value)
    with pytest.raises(BadInput, match="no such file"):
        reference.load_solverstate(solver, tmp_path / "missing")
    with pytest.raises(BadInput, match="cannot be written"):
        reference.save_solverstate(solver, path / "a.solverstate")
    monkeypatch.setattr(binary, "FILE_LIMIT", 100)
    with pytest.raises(BadInput, match="more than Caffe can read"):
        reference.save_solverstate(solver, tmp_path / "new.solverstate")
    assert not (tmp_path / "new.solverstate").exists()


def test_a_truncated_state_is_refused(solver: CaffeSGD, tmp_path: Path) -> None:
    """At every length; but where only the last field is missing, current_step, the state is whole."""
    whole, path = SNAPSHOT.read_bytes(), tmp_path / "cut.solverstate"
    for length in {*range(1, len(whole), 29), *range(len(whole) - 20, len(whole))} - {len(whole) - 2}:
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="cut"):
            reference.load_solverstate(solver, path)
    assert solver.iteration == 0 and not any(value.any() for value in solver.history.values())
