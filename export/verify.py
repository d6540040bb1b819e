"""Does an exported file compute what the net computes? ONNX Runtime against PyTorch, at sizes that users will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from tqdm import tqdm

from export.border import ELIDE, KEEP
from export.ends import IMAGE
from export.graph import label_names, takes_one_size
from fcn.cli import BadInput
from fcn.images import preprocess
from reference.layers import Input
from reference.net import Net

# Batch, height, width: the smallest image, two sizes that no stride divides, one of them as a batch, and a real one.
SIZES = ((1, 1, 1), (2, 37, 53), (1, 97, 131), (1, 224, 224))
# The greatest difference of two scores, relative to the greatest score. Both libraries sum float32 in orders of
# their own, up to 25,088 products in fc6 and 16 convolutions deep. On x86 that gave 1.3e-6 at worst for any top of
# the VGG-16 nets, narrow and at full width, and 7e-6 for SqueezeNet's softmax; other processors may round otherwise.
# The mildest mistake that was tried, pool3's crop off by one in the at-once net, which scales pool3 by 0.0001,
# gives 1.1e-4; the other crops give 8e-3 to 0.6.
TOLERANCE = 5e-5
# The same of a float16 file, which keeps 11 bits of every weight and every top: 1.1e-3 at worst for the VGG-16 nets,
# narrow, on ONNX Runtime (whose CPU provider keeps the tops in float32 in between) and all in float16 alike. It finds
# wrong layers and crops, but not what float16 would hide.
HALF_TOLERANCE = 5e-3


class Disagreement(BadInput):
    """The file does not compute what the net computes. One line, as for all bad input."""


@dataclass(frozen=True)
class Report:
    """What was compared and how well it agreed."""

    sizes: tuple[tuple[int, int, int], ...]
    """Batch, height and width of every input."""
    worst: float | None
    """Greatest difference of scores, relative to the greatest score of the same input; None for labels."""
    agreement: float
    """Share of pixels with equal labels (where the two best scores tie within the tolerance they may differ)."""
    runtime: str
    """What ran the file: "ONNX Runtime 1.31.1, CPUExecutionProvider"."""
    border: str = ""
    """What became of the border, of export.border.BORDERS; "" where nobody said."""

    def __str__(self) -> str:
        sizes = ", ".join(f"{f'{n} of ' if n > 1 else ''}{h}x{w}" for n, h, w in self.sizes)
        scores = "" if self.worst is None else f"scores within {self.worst:.1e} of the greatest, "
        border = {KEEP: "; border kept", ELIDE: "; border elided"}.get(self.border, "")
        return f"{self.runtime}, agrees with PyTorch at {sizes}: {scores}labels equal on {self.agreement:.4%}{border}"


def verify(net: Net, path: str | Path, io: str = "scores", mean: Sequence[float] | None = None) -> Report:
    """Check the file `path`, which `to_model(net, io, mean=mean)` made, and compare it with `net` (on the CPU).

    Raises Disagreement where it is no valid ONNX, where ONNX Runtime cannot run it, or where scores differ by more
    than TOLERANCE (HALF_TOLERANCE for a float16 file) or labels differ other than by a tie; BadInput where the net's
    own scores are not finite.
    """
    name = net.spec.name
    try:
        onnx.checker.check_model(str(path), full_check=True)
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in onnx.load(str(path)).graph.initializer)
        session = _session(path)
    except Exception as error:  # onnx and ONNX Runtime raise errors of many kinds, without a common base
        raise Disagreement(f"{name}: not a valid ONNX file ({error})") from error
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    outputs = {top: top for top in net.spec.outputs} if io == "scores" else label_names(net.spec)
    at_sizes, worst, equal, pixels = sizes(net), 0.0, 0, 0
    for batch, height, width in tqdm(at_sizes, "verifying", unit="size", leave=False, disable=None):
        given = inputs = images(net, batch, height, width)
        at = f"{height}x{width}"
        if io == "image" and mean is not None:
            ((data, blob),) = inputs.items()
            image = (np.moveaxis(blob, 1, 3) + 128).astype(np.uint8)
            given, inputs = {IMAGE: image}, {data: preprocess(image, mean)}
        try:
            found = dict(zip(outputs, session.run(list(outputs.values()), given), strict=True))
        except Exception as error:
            raise Disagreement(f"{name}: ONNX Runtime fails at {at} ({error})") from error
        for top, scores in _scores(net, inputs).items():
            if not np.isfinite(scores).all():
                raise BadInput(f"{name}: {top} is not finite at {at}: these weights have diverged; train again")
            if io == "scores":
                difference = difference_of(scores, found[top])
                if not difference <= tolerance:
                    says = f"{top} differs by {difference:.1e} of its greatest value, {tolerance:.0e} is tolerated"
                    raise Disagreement(f"{name}: ONNX Runtime and PyTorch disagree at {at}: {says}")
                worst = max(worst, difference)
            same = scores.argmax(1) == (found[top].argmax(1) if io == "scores" else found[top])
            if not np.all(same | tied(scores, tolerance)):
                says = f"{np.sum(~same)} of {np.size(same)} labels of {top} differ"
                raise Disagreement(f"{name}: ONNX Runtime and PyTorch disagree at {at}: {says}")
            equal, pixels = equal + int(np.sum(same)), pixels + np.size(same)
    runtime = f"ONNX Runtime {onnxruntime.__version__}, {session.get_providers()[0]}"
    return Report(at_sizes, worst if io == "scores" else None, equal / pixels, runtime)


def _session(path: str | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: warnings are about nodes that it optimises away
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sizes(net: Net) -> tuple[tuple[int, int, int], ...]:
    """Those of SIZES that the net can take; else its declared size, once and as a batch of two."""
    spec = net.spec.deploy()
    declared = {layer.tops[0]: layer.shape for layer in spec.layers if isinstance(layer, Input)}

    def fits(batch: int, height: int, width: int) -> bool:
        try:
            spec.shapes(**{name: (batch, shape[1], height, width) for name, shape in declared.items()})
        except ValueError:
            return False
        return True

    fitting = () if takes_one_size(spec) else tuple(size for size in SIZES if fits(*size))
    height, width = declared[spec.inputs[0]][2:]
    return fitting or ((1, height, width), (2, height, width))


def images(net: Net, batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Every input of the net: blocks of one colour under noise, within what an image minus its mean can be."""
    random = np.random.RandomState(height * width)
    inputs = {}
    for layer in net.spec.layers:
        if isinstance(layer, Input) and layer.tops[0] in net.spec.inputs:
            shape = (batch, layer.shape[1])
            blocks = random.uniform(-110, 120, (*shape, -(-height // 8), -(-width // 8)))
            blocks = blocks.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
            inputs[layer.tops[0]] = (blocks + random.uniform(-10, 10, blocks.shape)).astype(np.float32)
    return inputs


def _scores(net: Net, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The net's outputs in inference; the net's mode stays as it was."""
    training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            scores = net.run(net.spec.outputs, {name: torch.from_numpy(value) for name, value in inputs.items()})
    finally:
        net.train(training)
    return {top: value.numpy() for top, value in scores.items()}


def difference_of(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Greatest difference relative to the greatest of ours; infinite for another shape. Zeros agree with zeros."""
    if ours.shape != theirs.shape:
        return np.inf
    difference, greatest = np.abs(ours - theirs).max(), np.abs(ours).max()
    return float(difference / greatest) if greatest else (np.inf if difference else 0.0)


def tied(scores: np.ndarray, tolerance: float) -> np.ndarray:
    """N x K ... -> N x ...: where the best two scores are so close that each, moving by `tolerance`, may win."""
    if scores.shape[1] == 1:
        return np.zeros(scores[:, 0].shape, bool)
    second, best = np.moveaxis(np.partition(scores, -2, axis=1)[:, -2:], 1, 0)
    return best - second <= 2 * tolerance * np.abs(scores).max()
