"""One training stage and one evaluation; everything else around them is a command's business."""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fcn.cli import BadInput
from fcn.files import sync, write_json, writing
from fcn.record import record
from reference import checkpoint
from reference.checkpoint import About
from reference.data import AuthorsOrder, Dataset
from reference.layers import SoftmaxWithLoss
from reference.net import Net
from reference.progress import (
    LOG,
    RESULT,
    RUN,
    SCORES,
    SNAPSHOT,
    Table,
    exclusive,
    resume,
    same_run,
    settings_of,
)
from reference.recipes import Recipe
from reference.runs import WEIGHTS
from reference.score import confusion, metrics
from reference.solver import CaffeSGD
from reference.stopping import Stopped, follow_the_parent

DISPLAY = 20  # iterations between two lines of the log, as in the authors' solver.prototxt
# Processes that load ahead of the step: one decodes and prepares some hundred VOC images a second.
WORKERS = max(1, min(4, (os.cpu_count() or 2) - 1))
METRICS = ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")
WATCHED = (*METRICS, "live_fc7")


Pass = dict[str, Tensor]


class Passes(TorchDataset[Pass | BadInput]):
    """What the net sees in pass i, by name, in the authors' order: inputs N x C x H x W float32, labels N x 1 x H x W.

    Inputs lie channels last, as `place` has the weights. A function of the pass alone, so that a resumed run
    sees what the uninterrupted one saw.
    """

    def __init__(self, data: Dataset, batch: int, passes: int, seed: int) -> None:
        self.data, self.batch = data, batch
        order = iter(AuthorsOrder(len(data), seed))
        self.order = [next(order) for _ in range(passes * batch)]

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __getitem__(self, index: int) -> Pass | BadInput:
        try:
            samples = [self.data[i] for i in self.order[index * self.batch : (index + 1) * self.batch]]
        except BadInput as problem:  # returned, not raised: a worker process would wrap it into a traceback
            return problem
        return tensors(self.data.batch(samples))


def tensors(batch: Mapping[str, np.ndarray]) -> Pass:
    """The arrays of `Dataset.batch` as tensors, channels last."""
    return {
        name: torch.from_numpy(array).contiguous(memory_format=torch.channels_last) for name, array in batch.items()
    }


def train_stage(
    recipe: Recipe,
    net: Net,
    data: Dataset,
    val: Dataset,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    workers: int,
    start: str,
    begin: Callable[[CaffeSGD], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train `net` by `recipe` in `folder`, or go on where an interrupted run stopped; returns result.json.

    Writes weights.safetensors, log.csv (iteration, loss, loss per labelled pixel, rate), scores.csv (the four
    metrics on val), TensorBoard events, result.json; snapshot.safetensors holds the way so far until the end.
    seed decides the order of the images and the dropout. begin brings the solver to where a run without a snapshot
    begins, if that is not iteration 0. stop is asked after every iteration and image scored.
    Raises BadInput where the folder holds another run, another process trains there, or the loss is no longer a
    number; Stopped, after a snapshot, once `stop` says yes.
    """
    settings = settings_of(recipe, seed, start=start)
    with exclusive(folder):
        same_run(folder, settings)
        solver = CaffeSGD(place(net, device), **asdict(recipe.solver))
        progress = resume(folder, net, solver, settings)
        if begin and not (folder / SNAPSHOT).exists():
            begin(solver)
        write_json(folder / RUN, settings)
        with writing(folder):
            # Events up to the snapshot were on the disk before it was; those beyond it come again.
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=solver.iteration + 1)
        log = Table(folder / LOG, progress.log, writer, "train")
        scores = Table(folder / SCORES, progress.scores, writer, "val")
        began = time.monotonic() - progress.seconds

        def about() -> About:
            return describe(recipe, data, solver.iteration, {"seed": seed, "start": start})

        def snapshot() -> None:
            with writing(folder):
                writer.flush()
            progress.seconds = time.monotonic() - began
            checkpoint.save(folder / SNAPSHOT, net, about(), solver.state_dict(), progress.plain())

        def halt_if(asked: bool) -> None:
            if asked:
                where = f"iteration {solver.iteration} of {recipe.iterations}"
                raise Stopped(f"{recipe.name}: stopped at {where}; the same command goes on from there")

        def milestone() -> bool:
            return solver.iteration % recipe.evaluate_every == 0 or solver.iteration == recipe.iterations

        per_step = recipe.solver.iter_size
        task = next(iter(data.tasks))  # whose labelled pixels the loss is also divided by, where it is their sum
        losses = [layer for layer in net.spec.layers if isinstance(layer, SoftmaxWithLoss)]
        summed = all(layer.normalization in ("batch_size", "none") for layer in losses)
        passes = Passes(data, recipe.batch, recipe.iterations * per_step, seed)
        bar = tqdm(total=recipe.iterations, initial=solver.iteration, desc=recipe.name, disable=None, unit="it")
        with bar, closing(load(passes, solver.iteration * per_step, workers, device)) as batches:
            while True:
                if milestone() and progress.scored < solver.iteration:
                    found = evaluate(net, val, device, lambda *_: halt_if(stop()))
                    scores.add(solver.iteration, **watched(found))
                    snapshot()
                if solver.iteration == recipe.iterations:
                    break
                # Dropout depends on seed and iteration alone, not on how often the run was interrupted.
                torch.manual_seed(zlib.crc32(f"{seed}/{solver.iteration}".encode()))
                rate = solver.rate()
                seen = train_step(net, solver, batches)
                progress.window += [(loss, (labels[task] != data.void).sum()) for loss, labels in seen]
                bar.update()
                if solver.iteration % DISPLAY == 0 or milestone():
                    mean, per_pixel = _mean_losses(progress.window, recipe, solver.iteration, summed)
                    progress.window.clear()
                    log.add(solver.iteration, loss=mean, loss_per_pixel=per_pixel, rate=rate)
                    bar.set_postfix(loss=f"{per_pixel:.3f}/px")
                asked = stop()
                if asked or milestone():
                    snapshot()
                halt_if(asked)
        with writing(folder):
            writer.close()
        result = record(
            recipe=recipe.name,
            net=net.spec.name,
            iterations=solver.iteration,
            seed=seed,
            start=start,
            val=f"{val.name} {recipe.val_split}",
            classes=list(val.classes),
            # live_fc7 of a net without fc7; JSON has no NaN.
            metrics={
                key: None if math.isnan(value) else value
                for key, value in progress.scores[-1].items()
                if key != "iteration"
            },
            seconds=round(time.monotonic() - began, 1),
        )
        log.write()
        scores.write()
        write_json(folder / RESULT, result)
        checkpoint.save(folder / WEIGHTS, net, about())
        with writing(folder):
            sync(folder)  # or a power cut could undo the rename of the weights, but not what follows
            (folder / SNAPSHOT).unlink()
        return result


def train_step(
    net: Net, solver: CaffeSGD, batches: Iterator[Pass], lap: Callable[[str], None] = lambda part: None
) -> list[tuple[Tensor, Pass]]:
    """One iteration: iter_size passes forward and backward, then the update; returns each pass with its loss before.

    lap is told whenever a part of the work has been given out: "data", "forward", "backward" or "update".
    """
    net.train()
    seen = []
    for _ in range(solver.iter_size):
        batch = next(batches)
        lap("data")
        loss = net.total_loss(**batch)
        lap("forward")
        loss.backward()
        lap("backward")
        seen.append((loss.detach(), batch))
    solver.step()
    solver.zero_grad()
    lap("update")
    return seen


def load(passes: Passes, first: int, workers: int, device: torch.device) -> Generator[Pass]:
    """Passes from `first` on, loaded ahead by worker processes, on `device`."""
    loader: Iterable[Pass | BadInput] = DataLoader(
        passes,
        batch_size=None,
        sampler=range(first, len(passes)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own: a draw from the global one would move the dropout of the first pass
        worker_init_fn=follow_the_parent,
    )
    for item in loader:
        if isinstance(item, BadInput):
            raise item
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in item.items()}


@torch.no_grad()
def evaluate(
    net: Net, data: Dataset, device: torch.device, observe: Callable[[int, np.ndarray], None] | None = None
) -> dict[str, Any]:
    """The four metrics over `data` in file order (the authors' score.py), plus `iu` and `accuracy` by class.

    They are of the first label; `tasks` holds those of every label by its name. `live_fc7` is the share of fc7's
    channels above zero anywhere: a too high rate kills them, and the net then looks like one that has only learned
    the background. `observe` is given each index and label map (of the first label).
    """
    place(net, device).eval()
    scores = scored(net, data)
    watched = ("fc7",) if any("fc7" in layer.tops for layer in net.spec.layers) else ()
    hists = {task: np.zeros((len(classes),) * 2, np.int64) for task, classes in data.tasks.items() if task in scores}
    live = torch.zeros((), device=device)
    for index in tqdm(range(len(data)), desc="evaluating", disable=None, leave=False):
        sample = data[index]
        batch = tensors(data.batch([sample]))
        tops = net.run((*scores.values(), *watched), {name: batch[name].to(device) for name in sample.inputs})
        predictions = {task: tops[top][0].argmax(0).to(torch.uint8).cpu().numpy() for task, top in scores.items()}
        for task, hist in hists.items():
            label = sample.labels[task]
            hist += confusion(label, predictions[task].reshape(label.shape), len(hist))
        if watched:
            fc7 = tops["fc7"]  # 1 x C (x H x W)
            live = torch.logical_or(live, (fc7.reshape(fc7.shape[1], -1) > 0).any(1))
        if observe:
            observe(index, next(iter(predictions.values())))
    tasks = {task: metrics(hist, data.labelled_only) for task, hist in hists.items()}
    return {
        **next(iter(tasks.values())),
        "tasks": tasks,
        "live_fc7": float(live.float().mean()) if watched else math.nan,
    }


def watched(found: Mapping[str, Any]) -> dict[str, float]:
    """What a run keeps of an evaluation; the figures of further labels bear their names (`geo_mean_iu`)."""
    _, *further = found["tasks"].items()
    return {key: found[key] for key in WATCHED} | {
        f"{task}_{key}": figures[key] for task, figures in further for key in METRICS
    }


def scored(net: Net, data: Dataset) -> dict[str, str]:
    """The score top of each label of `data`, by the label's name: the one that the net's loss compares with it.

    Of a net whose losses name none of them, the first label has the first score.
    """
    compared = {x.bottoms[1]: x.bottoms[0] for x in reversed(net.spec.layers) if isinstance(x, SoftmaxWithLoss)}
    return {task: compared[task] for task in data.tasks if task in compared} or {
        next(iter(data.tasks)): net.spec.outputs[0]
    }


def place(net: Net, device: torch.device) -> Net:
    """Move `net`, weights channels last: on CPUs and GPUs alike the narrow convolutions run up to twice as fast."""
    return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def describe(recipe: Recipe, data: Dataset, iteration: int, provenance: dict[str, Any]) -> About:
    """What the checkpoint says of itself."""
    return About(
        recipe=recipe.name,
        iteration=iteration,
        dataset=data.name,
        classes=tuple(data.classes),
        palette=tuple((int(r), int(g), int(b)) for r, g, b in data.palette),
        mean=data.mean,
        void=data.void,
        provenance=provenance,
        channel_order=data.channel_order,
    )


def _mean_losses(
    window: Sequence[tuple[Any, Any]], recipe: Recipe, iteration: int, summed: bool
) -> tuple[float, float]:
    """Mean loss of a pass, and loss per labelled pixel, over the passes since the last line of the log.

    summed: whether the loss is a sum over pixels, and no mean already.
    """
    total = sum(float(loss) for loss, _ in window)
    if not math.isfinite(total):
        raise BadInput(f"{recipe.name}: the loss is no longer a number at iteration {iteration}; lower base_lr")
    mean = total / len(window)
    pixels = sum(int(valid) for _, valid in window) / len(window)
    return mean, mean / max(pixels, 1) if summed else mean


def with_iterations(recipe: Recipe, iterations: int | None) -> Recipe:
    """The recipe, cut or stretched; the steps of its rate, or the end of a polynomial one, move along."""
    if not iterations:
        return recipe
    solver = recipe.solver
    solver = replace(
        solver,
        max_iter=solver.max_iter * iterations // recipe.iterations,
        stepvalue=tuple(value * iterations // recipe.iterations for value in solver.stepvalue),
    )
    return replace(recipe, iterations=iterations, solver=solver)
