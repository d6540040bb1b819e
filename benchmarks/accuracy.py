"""The four metrics of one set of weights through PyTorch and through the deployed file, and how often they agree.

Both see the same pictures (the recipe's validation split); the file is run by runtime.Segmenter, from uint8 picture
to label map. It is first held against the net as export/to_onnx.py does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from export.to_onnx import weights_sha256
from export.verify import verify
from fcn.cli import BadInput, command, parser
from fcn.files import write_json
from fcn.record import record
from reference import checkpoint
from reference.checkpoint import Checkpoint
from reference.data import LABEL, Dataset, Sample
from reference.engine import METRICS, evaluate
from reference.recipes import find
from reference.runs import latest, open_data, pick_device
from reference.score import confusion, metrics
from runtime.segmenter import Segmenter


class First(Dataset):
    """The first `count` samples of a data set."""

    def __init__(self, data: Dataset, count: int) -> None:
        self.data, self.count = data, count
        self.name, self.classes, self.palette = data.name, data.classes, data.palette
        self.mean, self.void, self.labelled_only = data.mean, data.void, data.labelled_only

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        return self.data.tasks

    def __len__(self) -> int:
        return min(self.count, len(self.data))

    def read(self, index: int) -> Sample:
        return self.data.read(index)

    def origin(self, index: int, name: str = LABEL) -> str:
        return self.data.origin(index, name)

    def prepare(self, name: str, images: Sequence[np.ndarray]) -> np.ndarray:
        return self.data.prepare(name, images)


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser(
        "accuracy.py",
        __doc__ or "",
        "python benchmarks/accuracy.py out/runs/voc-fcn8s/weights.safetensors --model voc-fcn8s.onnx --data data",
    )
    args.add_argument("weights", type=Path, nargs="?", metavar="CHECKPOINT", help="not given: the latest run's")
    args.add_argument("--model", type=Path, help="its .onnx file; not given: the one beside the checkpoint")
    args.add_argument("--data", type=Path, help="folder that holds the data sets (shapes is embedded)")
    args.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    args.add_argument("--device", default="auto", help="PyTorch's device: auto, cpu, cuda ...")
    args.add_argument("--out", type=Path, default=Path("out/accuracy.json"), help="where the figures go")
    options = args.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        raise BadInput(f"--limit {options.limit}: give 1 or more")

    path = options.weights or latest()
    if path is None:
        raise BadInput("out/runs: holds no finished run; give a checkpoint, or train first")
    saved = checkpoint.load(path)
    model = options.model or path.with_suffix(".onnx")
    recipe = find(saved.about.recipe)
    data = open_data(recipe.val_data or recipe.data, options.data, recipe.val_split)
    if tuple(data.classes) != saved.about.classes:
        raise BadInput(f"{path}: was trained for other classes than those of {data.name}")
    data.mean = saved.about.mean  # as the file's: torchvision's weights bring their own
    if options.limit:
        data = First(data, options.limit)
    with Segmenter.open(model) as segmenter:
        if segmenter.metadata.weights_sha256 != weights_sha256(saved.net):
            raise BadInput(
                f"{model}: holds other weights than {path}; export that checkpoint: python export/to_onnx.py"
            )
        # On the CPU, and before the evaluation moves the net to its device.
        verification = verify(saved.net, model, segmenter.metadata.io, segmenter.metadata.mean)
        found = compare(saved, segmenter, data, options.device)
        figures = record(
            weights=str(path),
            model=str(model),
            weights_sha256=segmenter.metadata.weights_sha256,
            runtime=segmenter.backend,
            recipe=recipe.name,
            data=f"{data.name} {recipe.val_split}",
            images=len(data),
            verification={**asdict(verification), "says": str(verification)},
            **found,
        )
    print(table(figures))
    write_json(options.out, figures)
    print(options.out)
    return 0


def compare(saved: Checkpoint, segmenter: Segmenter, data: Dataset, device: str) -> dict[str, Any]:
    """The four metrics by both roads (`pytorch`, `onnx`), and on how many of all `pixels` the labels `differ`."""
    hist = np.zeros((len(data.classes),) * 2, np.int64)
    pixels = differ = 0

    def observe(index: int, ours: np.ndarray) -> None:
        nonlocal hist, pixels, differ
        sample = data[index]
        theirs = segmenter(sample.image)
        hist += confusion(sample.label, theirs, len(data.classes))
        pixels, differ = pixels + theirs.size, differ + int(np.sum(theirs != ours.reshape(theirs.shape)))

    pytorch, onnx = evaluate(saved.net, data, pick_device(device), observe), metrics(hist)
    return {
        "pytorch": {key: pytorch[key] for key in METRICS},
        "onnx": {key: float(onnx[key]) for key in METRICS},  # type: ignore[literal-required]
        "pixels": pixels,
        "differ": differ,
        "equal_labels": 1 - differ / pixels,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    head = f"{figures['recipe']} on {figures['data']}, {figures['images']} images"
    lines = [head, f"  {'':<16} {'PyTorch':>10} {'deployed':>10}"]
    lines += [
        f"  {key:<16} {100 * figures['pytorch'][key]:10.4f} {100 * figures['onnx'][key]:10.4f}" for key in METRICS
    ]
    equal = f"labels equal on {figures['equal_labels']:.5%}: {figures['differ']} of {figures['pixels']} pixels differ"
    return "\n".join([*lines, equal, figures["verification"]["says"]])


if __name__ == "__main__":
    sys.exit(main())
