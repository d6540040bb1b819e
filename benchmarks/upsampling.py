"""Forms of the last upsampling, timed in turn in one process on ONNX Runtime's CPU: which gives equal labels fastest?

    dense      Caffe's own: one deconvolution of C x C x k x k, zeros off the diagonal
    grouped    one deconvolution of C groups
    separable  two deconvolutions of C groups: the columns, then the rows
    resize     ONNX's Resize (linear, half_pixel); it cannot say what a kernel other than bilinear says

All stand in the same FCN-8s, narrow by default: its 21 scores, so the upsampling and what follows, are those of full
width. Timed from an image in memory to its labels. Writes OUT, a JSON. Labels were equal in all forms, and the fastest
saved 23 ms on one thread where the whole net takes a second and a half on two: the export keeps Caffe's form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.interleave import Times, interleave
from benchmarks.latency import parse_sizes
from benchmarks.subject import scenes
from export.graph import to_model
from export.to_onnx import randomise
from fcn.cli import BadInput, command, parser
from fcn.files import write_json
from fcn.record import record
from reference import build, surgery
from reference.data.voc import MEAN

LAYER = "upscore8"
ODD = ((1, 1), (37, 53), (97, 131), (40, 333))  # heights and widths at which labels are compared too

Form = Callable[[onnx.NodeProto, np.ndarray], tuple[list[onnx.NodeProto], dict[str, np.ndarray]]]


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("upsampling.py", __doc__ or "", "python benchmarks/upsampling.py --threads 1 --repeat 30")
    args.add_argument("--size", default="375x500", metavar="HxW", help="height and width")
    args.add_argument("--width", type=float, default=1 / 16, help="factor of the trunk's channels")
    args.add_argument("--threads", type=int, default=1, help="ONNX Runtime's")
    args.add_argument("--repeat", type=int, help="runs of each; not given: 30 to 300, till each has run for 3 s")
    args.add_argument("--out", type=Path, default=Path("out/upsampling.json"), metavar="FILE")
    options = args.parse_args(argv)
    if options.threads < 1 or not 0 < options.width <= 1:
        raise BadInput("--threads: 1 or more; --width: above 0, 1 at most")
    ((height, width),) = parse_sizes(options.size)
    net = build("voc-fcn8s", width=options.width)
    randomise(net, 0)
    surgery.interpolate(net)
    sessions = {
        name: open_form(to_model(net, "image", mean=MEAN), form, options.threads) for name, form in FORMS.items()
    }
    pictures = [scenes(1, *size) for size in (*ODD, (height, width))]
    labels = {name: [opened.run(None, {"image": image})[0] for image in pictures] for name, opened in sessions.items()}
    timed = {"image": pictures[-1]}
    calls = {name: partial(opened.run, None, timed) for name, opened in sessions.items()}
    seconds = interleave(calls, options.repeat)
    rows = []
    for name, runs in seconds.items():
        differ = sum(int(np.sum(a != b)) for a, b in zip(labels[name], labels["dense"], strict=True))
        rows.append({"form": name, "labels_differ": differ, "fastest": min(runs) * 1e3, **asdict(Times.of(runs))})
        times = f"{rows[-1]['fastest']:8.1f} ms at best, median {rows[-1]['median']:8.1f}"
        print(f"{name:10} {times}; {differ} labels differ")
    figures = record(
        net="voc-fcn8s",
        width=options.width,
        size=[height, width],
        threads=options.threads,
        pixels=sum(image.size // 3 for image in pictures),
        classes=len(np.unique(np.concatenate([found.ravel() for found in labels["dense"]]))),
        rows=rows,
    )
    write_json(options.out, figures)
    print(options.out)
    return 0


def open_form(model: onnx.ModelProto, form: Form, threads: int) -> onnxruntime.InferenceSession:
    """The model with its last upsampling in another form."""
    nodes = list(model.graph.node)
    at = next(index for index, node in enumerate(nodes) if node.name == LAYER)
    kernel = next(each for each in model.graph.initializer if each.name == nodes[at].input[1])
    written, constants = form(nodes[at], numpy_helper.to_array(kernel))
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *written, *nodes[at + 1 :]])
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # an initializer that a form leaves unused is worth a warning
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def dense(node: onnx.NodeProto, kernel: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    return [node], {}


def grouped(node: onnx.NodeProto, kernel: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    diagonal = np.stack([kernel[i, i] for i in range(len(kernel))])[:, None]
    return [_deconvolution([node.input[0], "diagonal"], node.output[0], diagonal)], {"diagonal": diagonal}


def separable(node: onnx.NodeProto, kernel: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The bilinear kernel is the outer product of a line of odd multiples of 1/16 with itself, in float32 exactly."""
    line = np.sqrt(np.diagonal(kernel[0, 0]))
    constants = {
        "columns": line.reshape(1, 1, -1, 1).repeat(len(kernel), axis=0),
        "rows": line.reshape(1, 1, 1, -1).repeat(len(kernel), axis=0),
    }
    first = _deconvolution([node.input[0], "columns"], "taller", constants["columns"])
    return [first, _deconvolution(["taller", "rows"], node.output[0], constants["rows"])], constants


def resize(node: onnx.NodeProto, kernel: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Resize begins half a stride after the deconvolution, and ends before it; padding with zeros has both alike."""
    stride = kernel.shape[-1] // 2
    constants = {
        "ring": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.array([1, 1, stride, stride], np.float32),
        "starts": np.array([stride // 2] * 2),
        "ends": np.array([-(stride // 2)] * 2),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Pad", [node.input[0], "ring"], ["ringed"]),
        helper.make_node("Resize", ["ringed", "", "scales"], ["resized"], mode="linear"),
        helper.make_node("Slice", ["resized", "starts", "ends", "axes"], list(node.output)),
    ]
    return nodes, constants


def _deconvolution(bottoms: list[str], top: str, kernel: np.ndarray) -> onnx.NodeProto:
    shape = kernel.shape[2:]
    strides = [max(1, side // 2) for side in shape]
    return helper.make_node("ConvTranspose", bottoms, [top], kernel_shape=shape, strides=strides, group=len(kernel))


FORMS: dict[str, Form] = {"dense": dense, "grouped": grouped, "separable": separable, "resize": resize}

if __name__ == "__main__":
    sys.exit(main())
