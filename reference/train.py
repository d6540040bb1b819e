"""Train a recipe: one stage, or with --staged all the stages before it too, as the paper does (section 4.3)."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from fcn.cli import BadInput, command, parser
from fcn.files import existing, sha256
from fcn.record import ROOT
from reference.caffe import load_solverstate
from reference.data.sources import PRETRAINED
from reference.engine import METRICS, WORKERS, train_stage, with_iterations
from reference.progress import finished, same_run, settings_of
from reference.recipes import RECIPES, Recipe, find, narrow, stages
from reference.runs import RUNS, WEIGHTS, adopt, net_of, open_data, pick_device, start_from
from reference.solver import CaffeSGD
from reference.stopping import Stopped, stop_signals


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("train.py", __doc__ or "", "python reference/train.py shapes-fcn8s --staged")
    args.add_argument("recipe", help=f"one of {', '.join(RECIPES)}")
    args.add_argument("--staged", action="store_true", help="train the stages that the recipe starts from first")
    args.add_argument("--data", type=Path, help="folder that holds the data sets (shapes is embedded)")
    args.add_argument(
        "--weights",
        type=Path,
        help="starting weights of the first stage (.safetensors, .caffemodel, torchvision's vgg16 as .pth)",
    )
    args.add_argument(
        "--solverstate", type=Path, help="go on where Caffe's snapshot stands; --weights: the caffemodel beside it"
    )
    args.add_argument("--from-scratch", action="store_true", help="train the committed start, a classifier, as well")
    args.add_argument("--narrow", action="store_true", help="narrow copies of VGG-16's nets: to try data and machine")
    args.add_argument("--iterations", type=int, help="iterations of each stage, instead of the recipe's")
    args.add_argument("--seed", type=int, default=1337, help="order of the images (the authors') and dropout")
    args.add_argument("--out", type=Path, default=RUNS, help="runs lie in OUT/RECIPE; a run cut off goes on there")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    args.add_argument("--workers", type=int, default=WORKERS, help="processes that load ahead")
    options = args.parse_args(argv)

    if options.iterations is not None and options.iterations < 1:
        raise BadInput(f"--iterations {options.iterations}: at least 1")
    if options.workers < 0:
        raise BadInput(f"--workers {options.workers}: 0 or more")
    if not 0 <= options.seed < 2**63:
        raise BadInput(f"--seed {options.seed}: from 0 to 2^63 - 1")
    chain = stages(options.recipe) if options.staged or options.from_scratch else [find(options.recipe)]
    if chain[0].committed and not options.from_scratch and len(chain) > 1:
        chain = chain[1:]
    if options.narrow:
        chain = [narrow(stage) for stage in chain]
    if options.solverstate and (len(chain) > 1 or options.weights is None):
        raise BadInput(
            f"--solverstate {options.solverstate}: belongs to one stage and to the caffemodel of the same snapshot; "
            "give it with --weights, without --staged"
        )
    device = pick_device(options.device)
    with stop_signals() as came:
        try:
            train(chain, options, device, lambda: bool(came))
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return 128 + came[0]  # as shells have it
        except Exception as error:
            # torch has no class for it, and raises it wherever the run stands, in an import, say: what it meets there
            # may quote it, or raise an error of its own from it.
            if not any("DataLoader worker" in str(link) for link in chained(error)):
                raise
            reason = "a process that loads images was killed; give the same command again"
            raise BadInput(f"{reason}, with fewer --workers if memory was short") from error
    return 0


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from, one after another."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def train(chain: Sequence[Recipe], options: Namespace, device: torch.device, stop: Callable[[], bool]) -> None:
    """One stage after another, except those that are finished."""
    trained: set[str] = set()
    for stage in chain:
        recipe = with_iterations(stage, options.iterations)
        folder = options.out / recipe.name
        if stop():
            raise Stopped(f"stopped before {recipe.name}; the same command goes on from there")
        weights: Mapping[str, Path] = {}
        if trained.intersection(recipe.starts.values()):
            weights = starts_of(recipe, options.out)
        elif options.weights:
            weights = {"": options.weights}
        # Where no start is given, a finished stage need not have its own at hand any more.
        given = {"start": words(weights, options.solverstate)} if weights else {}
        same_run(folder, settings_of(recipe, options.seed, **given))
        if finished(folder):
            print(f"{recipe.name}: done already, {folder / WEIGHTS}")
        else:
            run(recipe, folder, weights or starts_of(recipe, options.out), options, device, stop)
        trained.add(recipe.name)


def words(weights: Mapping[str, Path], solverstate: Path | None) -> str:
    """What a run says of its start. Raises BadInput for a missing file."""
    files = [*weights.values(), *([solverstate] if solverstate else [])]
    return "; ".join(f"{path.name}, sha256 {sha256(existing(path))}" for path in files) or "random weights"


def starts_of(recipe: Recipe, out: Path) -> dict[str, Path]:
    """The weights that a recipe continues from, of runs before it or committed, as `Recipe.starts` names them.

    Nothing: from scratch. Raises BadInput where they are missing.
    """
    return {suffix: start_of(recipe, start, out) for suffix, start in recipe.starts.items()}


def start_of(recipe: Recipe, start: str, out: Path) -> Path:
    """The weights of `start`, which `recipe` continues from."""
    if start not in RECIPES:
        fetch = f" (python reference/prepare.py fetch {start})" if start in PRETRAINED else ""
        raise BadInput(f"{recipe.name} starts from {start}: give the file with --weights{fetch}")
    before = out / start / WEIGHTS
    if before.exists():
        return before
    if RECIPES[start].committed:
        return ROOT / "reference" / "recipes" / RECIPES[start].committed
    raise BadInput(f"{before}: no such file; train {start} first, or add --staged")


def go_on(solverstate: Path, weights: Path, recipe: Recipe, solver: CaffeSGD) -> None:
    """Bring the solver to where Caffe's snapshot stands; the order of the images goes on there too.

    (Caffe begins that anew: its data layers know of no snapshot.) Raises BadInput where the snapshot is broken, of
    another net or other weights, or leaves nothing to train.
    """
    learned = load_solverstate(solver, solverstate)
    if learned and Path(learned).name != weights.name:
        raise BadInput(
            f"{solverstate}: was saved with {Path(learned).name}, not with {weights}; give that as --weights"
        )
    if solver.iteration >= recipe.iterations:
        raise BadInput(f"{solverstate}: stands at iteration {solver.iteration}, the end; give more --iterations")
    print(f"{recipe.name} goes on at iteration {solver.iteration} of {recipe.iterations}")


def run(
    recipe: Recipe,
    folder: Path,
    weights: Mapping[str, Path],
    options: Namespace,
    device: torch.device,
    stop: Callable[[], bool],
) -> None:
    """One stage, from the net's construction to the printed metrics."""
    torch.manual_seed(options.seed)
    data = open_data(recipe.data, options.data, recipe.train_split)
    val = open_data(recipe.val_data or recipe.data, options.data, recipe.val_split)
    net = net_of(recipe)
    for suffix, path in weights.items():
        report, mean = start_from(net, path, recipe.starts.get(suffix, ""), suffix, recipe.widened)
        print(f"{recipe.name} from {path}: {report}")
        if mean:
            adopt(mean, data, val)
    solverstate = options.solverstate
    begin = partial(go_on, solverstate, weights[""], recipe) if solverstate else None
    result = train_stage(
        recipe,
        net,
        data,
        val,
        folder,
        seed=options.seed,
        device=device,
        workers=options.workers,
        start=words(weights, options.solverstate),
        begin=begin,
        stop=stop,
    )
    figures = "  ".join(f"{key} {100 * result['metrics'][key]:.2f}" for key in METRICS)
    print(f"{recipe.name}: {figures}  ({folder / WEIGHTS})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
