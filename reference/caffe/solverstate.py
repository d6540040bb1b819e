"""Caffe's solver state (.solverstate): where a training run stands, beside the weights in its caffemodel.

It holds the number of iterations done, the name of the caffemodel that was snapshotted with it, and the history V of
every parameter in the order of the layers, weight before bias (SGDSolver::SnapshotSolverStateToBinaryProto in
src/caffe/solvers/sgd_solver.cpp). Frozen parameters have theirs too; it is zero.
"""

from __future__ import annotations

from pathlib import Path

import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from fcn.cli import BadInput
from reference.caffe import binary, wire
from reference.caffe import caffe_pb2 as pb
from reference.solver import CaffeSGD

LEARNED_NET, HISTORY = pb.SolverState.LEARNED_NET_FIELD_NUMBER, pb.SolverState.HISTORY_FIELD_NUMBER


def load_solverstate(solver: CaffeSGD, path: str | Path) -> str | None:
    """Continue from Caffe's snapshot: history and iteration go into `solver`, the weights are yours to load.

    Returns the caffemodel that belongs to it under the path that Caffe wrote it to, or None where the file names
    none. Raises BadInput, and leaves the solver as it was, for a broken file, a history that does not fit the
    solver's net, and a place in a multistep schedule that is not the solver's.
    """
    data = binary.map_file(path)
    try:
        rest, fields = wire.split(data, LEARNED_NET, HISTORY, pb.NetParameter.LAYER_FIELD_NUMBER)
        state = pb.SolverState.FromString(rest)
        if not state.HasField("iter") or state.iter < 0:
            raise ValueError("it counts no iterations")
        names = [bytes(value).decode() for number, value in fields if number == LEARNED_NET]
        history = [binary.read_blob(value, "a history") for number, value in fields if number == HISTORY]
    except (ValueError, DecodeError) as error:
        raise BadInput(f"{path}: {binary.diagnosis(data, 'solverstate')} ({error})") from error
    found = _by_key(solver, history, path)
    if solver.lr_policy == "multistep" and state.HasField("current_step"):
        expected = _current_step(solver, state.iter)
        if state.current_step != expected:
            raise BadInput(
                f"{path}: {state.current_step} values of stepvalue lie behind it, but by this solver's {expected}; "
                "give the stepvalue that it was trained with"
            )
    solver.load_state_dict({**found, "iteration": torch.tensor(state.iter)})
    return names[-1] if names else None


def save_solverstate(solver: CaffeSGD, path: str | Path, learned_net: str | Path | None = None) -> None:
    """Write a snapshot of `solver` that Caffe resumes from.

    learned_net: the caffemodel that holds the weights (see `save_caffemodel`), as Caffe will find it from the
    folder that it is started in; without one, Caffe keeps the weights that it has. Raises BadInput where `path`
    cannot be written and for more than 2 GiB.
    """
    head = pb.SolverState(iter=solver.iteration, learned_net=None if learned_net is None else str(learned_net))
    tail = pb.SolverState(current_step=_current_step(solver, solver.iteration))
    parts: list[bytes | Tensor] = [head.SerializeToString()]
    for history in solver.history.values():
        parts += binary.field(HISTORY, binary.blob_parts(history))
    binary.write(path, [*parts, tail.SerializeToString()])


def _by_key(solver: CaffeSGD, history: list[Tensor], path: str | Path) -> dict[str, Tensor]:
    """The history by parameter key. Raises BadInput where count or shapes are not the net's."""
    name = solver.net.spec.name
    if len(history) != len(solver.history):
        raise BadInput(
            f"{path}: holds {len(history)} blobs of history, SGD of {name} has {len(solver.history)}; "
            "give a whole state that SGD wrote for this net"
        )
    found = {}
    for (key, own), blob in zip(solver.history.items(), history, strict=True):
        found[key] = binary.without_leading_ones(blob, own.shape)
        if found[key].shape != own.shape:
            theirs, ours = tuple(blob.shape), tuple(own.shape)
            raise BadInput(f"{path}: its history of {key} is {theirs}, in {name} {ours}; give the state of this net")
    return found


def _current_step(solver: CaffeSGD, iteration: int) -> int:
    """How often the rate had been lowered at the last of `iteration` iterations (SGDSolver::GetLearningRate).

    Caffe reads it back under "multistep" alone: "step" counts anew from the iteration.
    """
    last = iteration - 1
    if last < 0:
        return 0
    if solver.lr_policy == "step":
        return last // solver.stepsize
    return sum(last >= value for value in solver.stepvalue) if solver.lr_policy == "multistep" else 0
