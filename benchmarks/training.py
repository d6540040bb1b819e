"""Time the training step against a plain loop, in turn in one process, part by part; then the update alone.

Both run the engine's own step on the same net. Ours has worker processes that load ahead, and updates all weights in
one fused pass; the plain loop loads an image when it needs it, and updates parameter by parameter. The update alone
is timed against torch.optim.SGD(fused=True) too. Writes OUT/training.json and OUT/training.png.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import charts
from benchmarks.interleave import Times, interleave
from benchmarks.rivals import PlainSGD, Stopwatch, TorchSGD, disagreement
from benchmarks.subject import voc_like
from export.to_onnx import randomise
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, write_json
from fcn.record import record
from reference.data import Dataset
from reference.engine import WORKERS, Passes, load, place, train_step
from reference.net import Net
from reference.recipes import RECIPES, Recipe, find
from reference.recipes.recipe import Solver
from reference.runs import net_of, open_data, pick_device
from reference.solver import CaffeSGD

ENGINE, PLAIN, TORCH = "engine", "plain loop", "torch.optim.SGD(fused=True)"
PARTS = ("data", "forward", "backward", "update")
DEFAULT = ("shapes-fcn8s", "voc-fcn8s")
SIZE = (375, 500)  # height and width of the generated pictures: VOC's commonest
PASSES = 100_000  # that the order of the images is drawn for: an authors' stage
ROUNDS = 5
SECONDS, STEPS = 10.0, 40  # a turn is so many seconds long, but of 2 to STEPS steps
# Of the three updates' V, after three steps along one gradient, relative to the largest entry of each parameter.
AGREEMENT = 1e-5
TARGETS = {"data": 0.05, "update": 1.1}  # share of the step; times torch's


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("training.py", __doc__ or "", "python benchmarks/training.py voc-fcn8s --device cuda --workers 8")
    args.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; default: {', '.join(DEFAULT)}"
    )
    args.add_argument("--data", type=Path, help="folder of the data sets; not given: voc's load generated JPEG files")
    args.add_argument("--workers", type=int, default=WORKERS, help="processes that load ahead")
    args.add_argument("--threads", type=int, help="CPU threads; not given: PyTorch's default")
    args.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each")
    args.add_argument("--steps", type=int, help=f"steps a turn; not given: {SECONDS:g} s of them, 2 to {STEPS}")
    args.add_argument("--repeat", type=int, help="updates of each; not given: 30 to 300, till each has run for 3 s")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args.add_argument("--out", type=Path, default=Path("out/training"), metavar="DIR", help="folder for JSON and plot")
    options = args.parse_args(argv)
    for name in ("workers", "threads", "rounds", "steps", "repeat"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"--{name} {value}: give 1 or more")
    recipes = [find(name) for name in options.recipes or DEFAULT]
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)

    load_average = os.getloadavg()[0]
    measured = []
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            data, source = open_pictures(recipe, options.data, Path(folder))
            net = net_of(recipe)
            randomise(net, 0)
            place(net, device)
            steps = time_steps(recipe, net, data, device, options.workers, options.rounds, options.steps)
            updates = time_updates(recipe.solver, net, data, recipe.batch, device, options.repeat)
        about = {"recipe": recipe.name, "net": net.spec.name, "data": source, "batch": recipe.batch}
        weights = sum(parameter.numel() for parameter in net.parameters())
        measured.append({**about, "weights": weights, **steps, **updates, "peak_gib": round(peak_gib(device), 2)})
    figures = record(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        tf32=device.type == "cuda" and torch.backends.cudnn.allow_tf32,
        threads=torch.get_num_threads(),
        load_average_before=round(load_average, 2),  # processes that wanted a core, in the minute before
        targets=TARGETS,
        recipes=measured,
    )
    print(table(figures))
    write_json(options.out / "training.json", figures)
    with atomic(options.out / "training.png") as temporary:
        charts.training(figures).savefig(temporary, dpi=150)
    print(f"\n{options.out / 'training.json'}, {options.out / 'training.png'}")
    return 0


def open_pictures(recipe: Recipe, root: Path | None, folder: Path) -> tuple[Dataset, str]:
    """The recipe's training split, and its name. Without `root`, SBD's is replaced by pictures made in `folder`.

    Raises BadInput for another data set that is not there.
    """
    if root is None and recipe.data == "sbd":
        height, width = SIZE
        return voc_like(folder, height, width), f"generated JPEG files of {height}x{width}"
    return open_data(recipe.data, root, recipe.train_split), recipe.data


def time_steps(
    recipe: Recipe, net: Net, data: Dataset, device: torch.device, workers: int, rounds: int, steps: int | None
) -> dict[str, Any]:
    """Take turns of `steps` training steps each, `rounds` times."""
    settings = asdict(recipe.solver)
    solvers = {ENGINE: CaffeSGD(net, **settings), PLAIN: PlainSGD(net, **settings)}
    processes = {ENGINE: workers, PLAIN: 0}
    passes = Passes(data, recipe.batch, PASSES, seed=1337)

    def turn(name: str, count: int) -> dict[str, float]:
        print(f"{recipe.name}: {count} steps of {name} ...", flush=True)
        return take_steps(net, solvers[name], passes, count, processes[name], device)

    slowest = max(sum(turn(name, 1).values()) for name in solvers)
    count = steps or max(2, min(STEPS, round(SECONDS / slowest)))
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in solvers}
    for number in range(rounds):
        for name in (ENGINE, PLAIN) if number % 2 == 0 else (PLAIN, ENGINE):
            turns[name].append(turn(name, count))
    images = count * recipe.solver.iter_size * recipe.batch
    rows = [step_row(name, processes[name], turns[name], images) for name in solvers]
    speed_up = rows[0]["images_per_s"] / rows[1]["images_per_s"]
    return {"rounds": rounds, "steps": count, "rows": rows, "speed_up": round(speed_up, 3)}


def take_steps(
    net: Net, solver: CaffeSGD, passes: Passes, count: int, workers: int, device: torch.device
) -> dict[str, float]:
    """Seconds of each part of `count` training steps. An untimed one before lets the workers start, as a run does
    once; they stop at the end, so that they neither work nor get ahead in the other's turn.
    """
    with closing(load(passes, solver.iteration * solver.iter_size, workers, device)) as batches:
        train_step(net, solver, batches)
        watch = Stopwatch(device)
        for _ in range(count):
            train_step(net, solver, batches, watch.lap)
        return watch.seconds()


def step_row(name: str, workers: int, turns: Sequence[dict[str, float]], images: int) -> dict[str, Any]:
    """Throughput over all turns (and of the slowest and fastest), milliseconds an image and share of each part."""
    total = sum(sum(turn.values()) for turn in turns)
    parts = {part: sum(turn[part] for turn in turns) for part in PARTS}
    speeds = [images / sum(turn.values()) for turn in turns]
    return {
        "name": name,
        "workers": workers,
        "images_per_s": round(len(turns) * images / total, 4),
        "slowest_turn": round(min(speeds), 4),
        "fastest_turn": round(max(speeds), 4),
        "ms_per_image": {part: round(1e3 * seconds / len(turns) / images, 3) for part, seconds in parts.items()},
        "share": {part: round(seconds / total, 5) for part, seconds in parts.items()},
    }


def time_updates(
    settings: Solver, net: Net, data: Dataset, batch: int, device: torch.device, repeat: int | None
) -> dict[str, Any]:
    """Time three updates along one gradient, at a constant rate: torch's rule and Caffe's are the same then.

    Raises BadInput where they do not agree: the time would be another rule's.
    """
    options = asdict(replace(settings, lr_policy="fixed"))
    with closing(load(Passes(data, batch, 1, seed=1337), 0, 0, device)) as batches:
        net.total_loss(**next(batches)).backward()
    ours = CaffeSGD(net, **options)
    rivals: dict[str, CaffeSGD | TorchSGD] = {ENGINE: ours, PLAIN: PlainSGD(net, **options), TORCH: TorchSGD(ours)}
    for solver in rivals.values():
        for _ in range(3):
            solver.step()
    for name, solver in rivals.items():
        if not (apart := disagreement(ours.history, solver.history)) <= AGREEMENT:
            raise BadInput(f"{name} and {ENGINE} disagree by {apart:.1e} after three updates: not timed")
    calls = {name: synchronised(solver.step, device) for name, solver in rivals.items()}
    seconds = interleave(calls, repeat, title="updates")
    times = {name: Times.of(runs) for name, runs in seconds.items()}
    ratio = times[ENGINE].median / times[TORCH].median
    rows = [{"name": name, **{key: round(value, 4) for key, value in asdict(t).items()}} for name, t in times.items()]
    return {"clipped": settings.clip_gradients >= 0, "update_ms": rows, "update_ratio": round(ratio, 3)}


def synchronised(call: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The call, returning when the GPU has done its work."""

    def run() -> None:
        call()
        torch.cuda.synchronize(device)

    return run if device.type == "cuda" else call


def peak_gib(device: torch.device) -> float:
    """Most memory held so far: of the GPU by tensors, or of this process without its workers."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    busy = f"{figures['load_average_before']:.1f} processes busy in the minute before"
    lines = [f"\n{figures['device']}, CPU threads {figures['threads']}; {busy}"]
    for at in figures["recipes"]:
        lines.append(
            f"\n{at['recipe']}: {at['weights']:,} weights, batch {at['batch']}, {at['data']}; "
            f"{at['rounds']} turns of {at['steps']} steps each\n"
            f"{'':<12}{'images/s':>9} {'(turns)':>19} {'workers':>8}   ms an image (share): {', '.join(PARTS)}"
        )
        for row in at["rows"]:
            turns = f"{row['slowest_turn']:.3f} to {row['fastest_turn']:.3f}"
            parts = "  ".join(f"{row['ms_per_image'][part]:9.1f} ({row['share'][part]:6.2%})" for part in PARTS)
            lines.append(f"{row['name']:<12}{row['images_per_s']:9.3f} {turns:>19} {row['workers']:8} {parts}")
        lines.append(f"update alone{', clipped' if at['clipped'] else ''}: median, p90, p99 ms (runs)")
        lines += [
            f"  {row['name']:<30}{row['median']:10.3f} {row['p90']:10.3f} {row['p99']:10.3f} ({row['runs']})"
            for row in at["update_ms"]
        ]
        wait, most = at["rows"][0]["share"]["data"], figures["targets"]
        lines.append(
            f"{at['speed_up']:.3f} times the plain loop; waiting for data {wait:.2%} (target: under "
            f"{most['data']:.0%}); update {at['update_ratio']:.3f} times torch's (target: at most {most['update']})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
