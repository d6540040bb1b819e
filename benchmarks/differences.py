"""What does each departure from Caffe do? The figures of docs/differences.md, measured on `shapes`.

By scores and labels on the same trained weights; by the gradient, and by the way that the weights go from there; and
where training is what suffers, by mean IU of FCN-32s trained anew from the committed classifier.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import departures as do
from benchmarks.departures import Departure
from benchmarks.harm import BY_IMAGE, CHANNELS, ELEMENTS, FAITHFUL, OTHER_SEED, VOID_SCORED, measures
from fcn.cli import BadInput, command, parser
from fcn.files import write_json
from fcn.images import VOID
from fcn.record import ROOT, record
from reference import checkpoint
from reference.data import INPUT, LABEL, Dataset, Sample
from reference.data.shapes import Shapes
from reference.engine import Passes, place, tensors, train_step
from reference.layers import Dropout
from reference.net import Net
from reference.recipes import Solver, find
from reference.runs import net_of, open_data
from reference.score import confusion, metrics
from reference.surgery import transplant

CPU = torch.device("cpu")
RESULTS = ROOT / "benchmarks" / "results"
# Trained anew, and what the other measures start from.
ANEW, TRAINED = find("shapes-fcn32s"), find("shapes-fcn8s")
# The way of the weights: momentum as the authors', so a rate ten times lower than the recipe's at 0.9.
STEPS = 100
WAY = Solver(TRAINED.solver.base_lr / 10, momentum=0.99)
FALLING = replace(WAY, lr_policy="step", gamma=0.1, stepsize=STEPS // 2)
GRADIENTS, DRAWS = 10, 16  # images a gradient is summed over; draws of dropout
CHECKPOINTS = 4  # at the end of the faithful training, a tenth of it apart

SAME = Departure()
REORDERED = Departure(order=lambda length, draws, seed: do.authors_order(length, draws, seed + 1))
ELEMENTWISE, CHANNELWISE = (Departure(spec=do.dropping(kind, 0.5)) for kind in (Dropout, do.ChannelDropout))
ALIGNED = {"conv1_1": 1, "fc6": 3}  # each pixel of fc6's map then lies over the middle of what it sees
# By the name of the row: what is done otherwise, and what that is measured by; anywhere: by scores of any net.
ROWS: dict[str, tuple[Departure, str]] = {
    "torchvision's normalisation": (Departure(given=do.torchvision), "scored anywhere trained"),
    "RGB order": (Departure(given=do.rgb), "scored anywhere trained"),
    "mean not subtracted": (Departure(given=do.uncentred), "scored anywhere"),
    "images resized": (Departure(given=do.squeezed), "scored anywhere trained"),
    "padded by 100, resized without crop": (Departure(spec=do.resizing({})), "scored trained"),
    "padded by 1, resized": (Departure(spec=do.resizing({"conv1_1": 1})), "scored"),
    "padded by 1 (fc6 by 3), resized": (Departure(spec=do.resizing(ALIGNED)), "scored trained"),
    "padded by 1 (fc6 by 3), align_corners": (Departure(spec=do.resizing(ALIGNED, align_corners=True)), "scored"),
    "central crop": (Departure(spec=do.central_crop), "scored anywhere"),
    "floor pooling": (Departure(spec=do.floor_pooling), "scored"),
    "TF32": (Departure(weights=do.in_tf32), "scored anywhere sloped"),
    "deconvolutions not bilinear": (
        Departure(spec=do.learned_deconvolutions, weights=do.fresh_deconvolutions),
        "trained",
    ),
    "fc6 and fc7 not transplanted": (Departure(weights=do.fresh_fc), "trained"),
    "mean of the loss": (Departure(spec=do.mean_loss), "sloped trained"),
    "void learned as background": (Departure(taught=do.void_as_background), "sloped trained"),
    CHANNELS: (CHANNELWISE, "trained"),
    "biases as weights": (Departure(spec=do.undeclared), "moved"),
    "without replacement": (Departure(order=do.shuffled), "moved"),
    "PyTorch's momentum": (Departure(solver=do.TorchSGD), "moved"),
}

Truth = tuple[np.ndarray, np.ndarray]  # labels of one image: due, and found


@command
def main(argv: Sequence[str] | None = None) -> int:
    example = "python benchmarks/differences.py out/runs/shapes-fcn8s/weights.safetensors"
    args = parser("differences.py", __doc__ or "", example)
    args.add_argument("weights", type=Path, help=f"of {TRAINED.name}: all; of another recipe: scores, on its data set")
    args.add_argument("--data", type=Path, help="folder that holds that data set")
    args.add_argument("--iterations", type=int, default=300, help="of each FCN-32s trained anew")
    args.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338], help="order of its images, and dropout")
    args.add_argument("--images", type=int, default=100, help="of the test split, evenly spaced")
    args.add_argument("--json", type=Path, help="where figures go; not given: among the committed results")
    options = args.parse_args(argv)
    if options.iterations < CHECKPOINTS or options.images < 1:
        raise BadInput(f"--iterations: at least {CHECKPOINTS}; --images: at least 1")
    saved = checkpoint.load(options.weights)
    recipe, net = find(saved.about.recipe), place(saved.net, CPU)
    if len(net.spec.inputs) > 1 or len(net.spec.outputs) > 1:
        raise BadInput(f"{options.weights}: does not make one label map of one image; give the weights of another net")
    everything = recipe == TRAINED
    test = open_data(recipe.data, options.data, "test")
    count = min(options.images, len(test))
    samples = [test[index * len(test) // count] for index in range(count)]
    figures = record(
        data=test.name,
        recipe=recipe.name,
        images=len(samples),
        scored=scored(net, test, samples, rows("scored" if everything else "anywhere")),
    )
    if everything:
        data = Shapes("train")
        figures |= {
            "steps": STEPS,
            "iterations": options.iterations,
            "seeds": options.seeds,
            "sloped": sloped(net, data),
            "noise": noise(net, data),
            "moved": moved(net, data),
            "trained": trained(data, test, samples, options.iterations, options.seeds),
        }
    place_of = RESULTS / ("differences.json" if everything else f"differences-{test.name}.json")
    write_json(options.json or place_of, figures)
    for name in dict.fromkeys([*ROWS, VOID_SCORED, BY_IMAGE]):
        if told := "; ".join(measures(name, figures, {})):
            print(f"{name}: {told}")
    print(f"\n{options.json or place_of}")
    return 0


def rows(measure: str) -> dict[str, Departure]:
    """The departures that are measured so."""
    return {name: departure for name, (departure, measures) in ROWS.items() if measure in measures.split()}


def depart(net: Net, departure: Departure) -> Net:
    """A copy of `net` with the layers and weights of the departure."""
    made = Net(departure.spec(net.spec))
    transplant(made, net)
    departure.weights(made)
    return place(made, CPU)


# --- scores and labels on the same weights --------------------------------------------------------------------


def scored(
    net: Net, data: Dataset, samples: Sequence[Sample], departures: Mapping[str, Departure]
) -> dict[str, dict[str, Any]]:
    """By row: mean IU before and after, the share of labels that change (None where labels differ in size), and how
    many images the net refuses, whose sizes no longer fit; they are left out of both.
    """
    classes = len(data.classes)
    due = labels(net, SAME, data, samples)
    found = {}
    for name, departure in tqdm(departures.items(), "scored", disable=None):
        made = labels(depart(net, departure), departure, data, samples)
        pairs = [(a, b) for a, b in zip(due, made, strict=True) if a and b]
        comparable = pairs and all(a[1].shape == b[1].shape for a, b in pairs)
        changed = np.concatenate([(a[1] != b[1]).ravel() for a, b in pairs]).mean() if comparable else None
        found[name] = {
            "before": mean_iu([a for a, _ in pairs], classes),
            "after": mean_iu([b for _, b in pairs], classes),
            "changed": None if changed is None else float(changed),
            "refused": len(due) - len(pairs),
        }
    whole = [pair for pair in due if pair]
    as_background = [(np.where(truth == VOID, 0, truth), said) for truth, said in whole]
    for name, after in (
        (VOID_SCORED, mean_iu(as_background, classes)),
        (BY_IMAGE, float(np.mean([mean_iu([pair], classes) for pair in whole]))),
    ):
        found[name] = {"before": mean_iu(whole, classes), "after": after, "changed": 0.0, "refused": 0}
    return found


@torch.no_grad()
def labels(net: Net, departure: Departure, data: Dataset, samples: Sequence[Sample]) -> list[Truth | None]:
    """What `net`, which departed already, calls the samples; None for one whose size does not fit its layers."""
    net.eval()
    found: list[Truth | None] = []
    for sample in samples:
        batch = departure.given(tensors(data.batch([sample])), data.mean)
        try:
            score = net(batch[INPUT])
        except ValueError:
            found.append(None)
            continue
        assert isinstance(score, Tensor)
        found.append((batch[LABEL][0, 0].numpy(), score[0].argmax(0).numpy()))
    return found


def mean_iu(pairs: Sequence[Truth], classes: int = len(Shapes.classes)) -> float:
    """Of all images together, as the authors' score.py."""
    return metrics(sum(confusion(*pair, classes) for pair in pairs))["mean_iu"]  # type: ignore[arg-type]


# --- gradients ------------------------------------------------------------------------------------------------


def sloped(net: Net, data: Dataset) -> dict[str, dict[str, float]]:
    """By row: the gradient's length by the faithful one's, the cosine between the two, and their relative distance."""
    due = gradient(net, SAME, data, GRADIENTS)
    found = {}
    for name, departure in rows("sloped").items():
        made = gradient(depart(net, departure), departure, data, GRADIENTS)
        found[name] = {
            "length": float(made.norm() / due.norm()),
            "cosine": float(made @ due / made.norm() / due.norm()),
            "distance": float((made - due).norm() / due.norm()),
        }
    return found


def gradient(net: Net, departure: Departure, data: Dataset, images: int, only: str = "") -> Tensor:
    """Of the first images' losses together, all blobs in a row, float64; `only` blobs whose key starts so."""
    net.train()
    net.zero_grad()
    for index in range(images):
        batch = departure.given(tensors(data.batch([data[index]])), data.mean)
        net.total_loss(**{**batch, LABEL: departure.taught(batch[LABEL])}).backward()
    parts = [w.grad for key, w in net.named_parameters() if w.grad is not None and key.startswith(only)]
    return torch.cat([part.double().flatten() for part in parts])


def noise(net: Net, data: Dataset) -> dict[str, float]:
    """How far one draw of dropout takes the gradient of score_fr from the mean of all draws, relative to that mean."""
    found = {}
    for name, departure in (("elements", ELEMENTWISE), ("channels", CHANNELWISE)):
        torch.manual_seed(0)
        made = depart(net, departure)
        drawn = torch.stack([gradient(made, departure, data, 1, "score_fr.weight") for _ in range(DRAWS)])
        mean = drawn.mean(0)
        found[name] = float((drawn - mean).norm(dim=1).square().sum().div(DRAWS - 1).sqrt() / mean.norm())
    return found


# --- the way of the weights -----------------------------------------------------------------------------------


def train(net: Net, departure: Departure, data: Dataset, solver: Solver, iterations: int, seed: int) -> Iterator[int]:
    """Train `net`, which departed already, and yield after each iteration how many there were."""
    passes = Passes(data, 1, iterations, seed)
    passes.order = departure.order(len(data), iterations, seed)
    sgd = departure.solver(net, **asdict(solver))
    for iteration in range(iterations):
        batch = passes[iteration]
        if isinstance(batch, BadInput):
            raise batch
        given = departure.given(batch, data.mean)
        torch.manual_seed(zlib.crc32(f"{seed}/{iteration}".encode()))
        train_step(net, sgd, iter([{**given, LABEL: departure.taught(given[LABEL])}]))
        yield iteration + 1


def moved(net: Net, data: Dataset) -> dict[str, dict[str, float]]:
    """By row: how far off the weights end, and how far they went, by the way of the faithful ones; the same for biases.

    Where the momentum is PyTorch's, the rate falls to a tenth halfway, and the way is counted from there. The row of
    another seed, the authors' order all the same, is what the others are to be held against.
    """
    found = {}
    for name, departure in tqdm([*rows("moved").items(), (OTHER_SEED, REORDERED)], "moved", disable=None):
        solver, since = (FALLING, STEPS // 2) if departure.solver is do.TorchSGD else (WAY, 0)
        begin, due = way(net, SAME, data, solver, since)
        _, made = way(net, departure, data, solver, since)
        biases = _biases(net)
        of_biases = _astray(begin[biases], due[biases], made[biases])
        found[name] = _astray(begin, due, made) | {f"{key} of biases": value for key, value in of_biases.items()}
    return found


def _astray(begin: Tensor, due: Tensor, made: Tensor) -> dict[str, float]:
    """By the way that was due: how far from its end, and how far at all."""
    whole = (due - begin).norm()
    return {"off": float((made - due).norm() / whole), "length": float((made - begin).norm() / whole)}


def way(net: Net, departure: Departure, data: Dataset, solver: Solver, since: int) -> tuple[Tensor, Tensor]:
    """All learned blobs in a row, float64, after `since` steps and after STEPS."""
    made = depart(net, departure)
    begin = _row(made)
    for steps in train(made, departure, data, solver, STEPS, seed=1337):
        if steps == since:
            begin = _row(made)
    return begin, _row(made)


def _row(net: Net) -> Tensor:
    return torch.cat([w.detach().double().flatten() for w in net.parameters() if w.requires_grad])


def _biases(net: Net) -> Tensor:
    """Which of a row's entries are biases."""
    parts = [torch.full((w.numel(),), key.endswith("bias")) for key, w in net.named_parameters() if w.requires_grad]
    return torch.cat(parts)


# --- training -------------------------------------------------------------------------------------------------


def trained(
    data: Dataset, test: Dataset, samples: Sequence[Sample], iterations: int, seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Mean IU on test by arm and seed, and of the faithful arm's last checkpoints on test and val."""
    val = Shapes("val")
    others = [val[index] for index in range(min(len(samples), len(val)))]
    watched = {iterations - k * max(1, iterations // 10) for k in range(CHECKPOINTS)}
    found: dict[str, dict[str, Any]] = {}
    for name, departure in {FAITHFUL: SAME, ELEMENTS: ELEMENTWISE, **rows("trained")}.items():
        found[name] = {"test": {}}
        for seed in seeds:
            net = net_of(ANEW)
            transplant(net, checkpoint.load(ROOT / "reference" / "recipes" / find(ANEW.start).committed).net)
            net = depart(net, departure)
            checkpoints = []
            steps = train(net, departure, data, ANEW.solver, iterations, seed)
            for step in tqdm(steps, f"{name}, seed {seed}", iterations, disable=None):
                if step == iterations or (name == FAITHFUL and step in watched):
                    point = {"iteration": step, "test": trained_iu(net, departure, test, samples)}
                    if name == FAITHFUL:
                        point["val"] = trained_iu(net, departure, val, others)
                    checkpoints.append(point)
            found[name]["test"][str(seed)] = checkpoints[-1]["test"]
            if name == FAITHFUL:
                found[name].setdefault("checkpoints", {})[str(seed)] = checkpoints
            print(f"{name}, seed {seed}: {100 * checkpoints[-1]['test']:.2f}", flush=True)
    return found


def trained_iu(net: Net, departure: Departure, data: Dataset, samples: Sequence[Sample]) -> float:
    return mean_iu([pair for pair in labels(net, departure, data, samples) if pair])


if __name__ == "__main__":
    sys.exit(main())
