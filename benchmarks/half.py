"""What float16 does to trained nets on real photographs: which activations it must hold, and how many labels change.

Each net computes every image four times: in float32; as `--precision fp16` exports it, by ONNX Runtime (whose CPU
provider keeps tops in float32 in between); with every top rounded to float16, as a GPU stores it (a layer's own sums
in float32), under that export's powers of two; and so without them, the counter-experiment.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from tqdm import tqdm

from export.precision import MOST, exponents, lowered, ranges, to_half
from export.to_onnx import weights_sha256
from export.verify import images, sizes
from fcn.cli import BadInput, command, parser
from fcn.files import existing, write_json
from fcn.images import preprocess, read_image
from fcn.record import ROOT, record
from reference import checkpoint
from reference.net import LayerModule, Net, NetSpec
from runtime.segment import find

EXPORTED, STORED, UNSCALED = "exported, ONNX Runtime", "every top float16", "every top float16, not scaled"
KINDS = ("greatest", "stored")


@dataclass
class Agreement:
    """How the labels of one way to compute compare with float32's, over all images."""

    pixels: int = 0
    equal: int = 0
    worst_image: float = 1.0
    score_difference: float = 0.0
    """Greatest difference of two scores, relative to the greatest score of the same image."""

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Scores of one image, 1 x K x H x W. What is not finite equals nothing."""
        same = (expected.argmax(1) == found.argmax(1)) & np.isfinite(found).all(1)
        self.pixels += same.size
        self.equal += int(same.sum())
        self.worst_image = min(self.worst_image, float(same.mean()))
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        self.score_difference = float(np.maximum(self.score_difference, difference))  # not a number remains so

    def figures(self) -> dict[str, Any]:
        """As JSON has it: null for a difference that is not finite."""
        difference = self.score_difference if np.isfinite(self.score_difference) else None
        share = self.equal / self.pixels
        return {"labels_equal": share, "worst_image": self.worst_image, "score_difference": difference}


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("half.py", __doc__ or "", "python benchmarks/half.py weights.safetensors --images photos --limit 14")
    args.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="checkpoints that train.py wrote")
    args.add_argument("--images", type=Path, nargs="+", required=True, metavar="FOLDER", help="photographs")
    args.add_argument("--limit", type=int, default=14, help="images of each folder, evenly spaced")
    args.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/half.json", help="where the figures go")
    options = args.parse_args(argv)
    if options.limit < 1:
        raise BadInput(f"--limit {options.limit}: give 1 or more")
    folders = {str(folder): evenly(find([existing(folder, "folder")]), options.limit) for folder in options.images}
    paths = [path for found in folders.values() for path in found]
    nets = [examine(path, paths) for path in options.weights]
    counts = {"/".join(Path(folder).parts[-2:]): len(found) for folder, found in folders.items()}
    figures = record(images=counts, float16_ends_at=MOST, threads=torch.get_num_threads(), nets=nets)
    print(table(figures))
    write_json(options.json, figures)
    print(f"\n{options.json}")
    return 0


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """`most` of the paths at even distances, or all."""
    count = min(most, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def examine(weights: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """The figures of one checkpoint on the images `paths`."""
    saved = checkpoint.load(weights)
    net, spec = saved.net.eval(), saved.net.spec
    if len(spec.outputs) > 1 or len(spec.inputs) > 1:
        raise BadInput(f"{weights}: does not make one label map of one image")
    part = NetSpec(spec.name, spec.needed(spec.outputs))
    lower = exponents(part, ranges(net, part, images(net, *sizes(net)[-1])))
    scaled = in_half(lowered(net, part, lower))
    plain = in_half(net)
    exported = session(to_half(net).SerializeToString())
    (data,), (score,) = spec.inputs, spec.outputs
    greatest: dict[str, float] = {}
    broken: set[str] = set()
    found = {name: Agreement() for name in (EXPORTED, STORED, UNSCALED)}
    for path in tqdm(paths, f"{saved.about.recipe}", unit="image", disable=None):
        x = preprocess([read_image(path)], saved.about.mean, saved.about.channel_order)
        tops = run(net, part, torch.from_numpy(x))
        for top, value in tops.items():
            greatest[top] = max(float(value.abs().max()), greatest.get(top, 0.0))
        expected = tops[score].numpy()
        del tops
        found[EXPORTED].add(expected, exported.run([score], {data: x})[0])
        found[STORED].add(expected, run(scaled, part, torch.from_numpy(x).half().float())[score].numpy())
        tops = run(plain, part, torch.from_numpy(x).half().float())
        broken |= {top for top, value in tops.items() if not value.isfinite().all()}
        found[UNSCALED].add(expected, tops[score].numpy())
    return {
        "recipe": saved.about.recipe,
        "weights_sha256": weights_sha256(net),
        "tops": {
            top: {"greatest": value, "lowered_by": lower[top], "stored": value / 2.0 ** lower[top]}
            for top, value in greatest.items()
        },
        "not_finite_unscaled": sorted(broken),
        "agreement": {name: each.figures() for name, each in found.items()},
    }


def in_half(net: Net) -> Net:
    """A copy whose weights and tops are rounded to float16; beyond its range they are infinite."""

    def rounded(_module: LayerModule, _bottoms: tuple[Tensor, ...], top: Tensor) -> Tensor:
        return top.half().float()

    made = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(parameter.half())
    for module in made.modules():
        if isinstance(module, LayerModule):
            module.register_forward_hook(rounded)
    return made


def run(net: Net, part: NetSpec, x: Tensor) -> dict[str, Tensor]:
    """Every top of `part` in inference."""
    tops = tuple(dict.fromkeys(layer.tops[0] for layer in part.layers if layer.bottoms))
    with torch.inference_mode():
        return net.run(tops, {part.inputs[0]: x})


def session(model: bytes) -> onnxruntime.InferenceSession:
    """ONNX Runtime's CPU provider on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def table(figures: Mapping[str, Any]) -> str:
    """The figures as text: per net the tops that reach furthest, then the agreement of each way to compute."""
    lines = []
    for net in figures["nets"]:
        lines.append(f"\n{net['recipe']}: {'top':<20}{'greatest':>12}{'lowered by':>12}{'stored':>12}")
        for name, top in sorted(net["tops"].items(), key=lambda item: -item[1]["greatest"])[:5]:
            lowered_by = f"2^{top['lowered_by']}"
            lines.append(
                f"{'':{len(net['recipe'])}}  {name:<20}{top['greatest']:12.0f}{lowered_by:>12}{top['stored']:12.0f}"
            )
        room = {kind: figures["float16_ends_at"] / max(top[kind] for top in net["tops"].values()) for kind in KINDS}
        lines.append(f"  float16 holds {room['greatest']:.0f} times as much, {room['stored']:.0f} times where scaled")
        for name, each in net["agreement"].items():
            difference = "not finite" if each["score_difference"] is None else f"{each['score_difference']:.1e}"
            shares = f"labels equal {each['labels_equal']:.4%}, at worst {each['worst_image']:.4%}"
            lines.append(f"  {name:<32}{shares}, scores off by {difference} of the greatest")
        lines.append(f"  not finite without scaling: {', '.join(net['not_finite_unscaled']) or 'nothing'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
