"""Write a net as one ONNX file that says all a runtime must know, verified in ONNX Runtime before it appears."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from onnx import helper

from export import triton
from export.border import BORDERS, ELIDE, KEEP, elide
from export.ends import IMAGE
from export.graph import IO, label_names, to_model
from export.precision import PRECISIONS, to_half
from export.tiling import tiling
from export.verify import Disagreement, Report, verify
from fcn import cli
from fcn.classes import BGR, ORDERS
from fcn.cli import BadInput
from fcn.files import atomic, sha256
from fcn.images import voc_palette
from reference import NETS, build, checkpoint
from reference.caffe import load_caffemodel, load_prototxt, net_to_text
from reference.checkpoint import About
from reference.data.voc import CLASSES, MEAN
from reference.layers import Convolution, Deconvolution, InnerProduct
from reference.net import Net
from reference.runs import latest
from runtime.metadata import Metadata


def export_onnx(
    net: Net,
    path: str | Path,
    about: About | None = None,
    io: str = "scores",
    expose: Sequence[str] = (),
    precision: str = "fp32",
    border: str = KEEP,
) -> Report:
    """Write `net` (on the CPU) to `path`, verify the file, and only then give it its name.

    about: what the weights were trained for; it becomes the file's metadata, without which `runtime` refuses it.
    io: "scores" gives the net's outputs, N x K x H x W float32 under Caffe's names; "labels" gives their best
    classes, N x H x W uint8; "image" these too, of N x H x W x 3 uint8 RGB instead of Caffe's input.
    expose: further Caffe tops to give as outputs, for comparisons layer by layer. precision: "fp32", or "fp16" for
    a graph of float16 between these ends. border: "keep", or "elide" for a graph that runs on a window around the image
    where that is exact (see export/border.py; the command elides float32 files): tops within it cannot be exposed.
    The same net and `about` give the same bytes. Raises BadInput for a net that cannot be exported, and Disagreement
    (a BadInput) where ONNX Runtime computes something else than PyTorch: then nothing is written.
    """
    with atomic(path) as temporary:
        border = write_model(net, temporary, about, io, expose, precision, border)
        try:
            return replace(verify(net, temporary, io, about.mean if about else None), border=border)
        except Disagreement as problem:
            raise Disagreement(f"{problem}; nothing written") from problem


def write_model(
    net: Net,
    path: Path,
    about: About | None = None,
    io: str = "scores",
    expose: Sequence[str] = (),
    precision: str = "fp32",
    border: str = KEEP,
) -> str:
    """What `export_onnx` writes, not verified: for what compares it in its own way. What became of the border."""
    exported = elide(net) if border == ELIDE else net
    border = KEEP if exported is net else ELIDE
    properties = describe(net, about, io, precision, border).to_properties() if about else {}
    model = (to_half if precision == "fp16" else to_model)(exported, io, expose, about.mean if about else None)
    helper.set_model_props(model, properties)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return border


def describe(net: Net, about: About, io: str, precision: str = "fp32", border: str = KEEP) -> Metadata:
    """What the file says of itself; of several inputs or outputs, the first. Raises BadInput for contradictions."""
    spec = net.spec
    top = spec.outputs[0]
    channels = spec.shapes()[top][1]
    if len(about.classes) != channels:
        raise BadInput(f"{spec.name}: {top} has {channels} channels, but {len(about.classes)} classes are named")
    if io == "image" and about.channel_order != BGR:
        raise BadInput(f"{spec.name}: takes channels in the order {about.channel_order}: export it with --io labels")
    origin = {"recipe": about.recipe, "iteration": about.iteration, "dataset": about.dataset}
    origin |= {"precision": precision, "border": border}
    try:
        return Metadata(
            net=spec.name,
            classes=about.classes,
            palette=about.palette,
            mean=about.mean,
            void=about.void,
            io=io,
            input=IMAGE if io == "image" else spec.inputs[0],
            output=top if io == "scores" else label_names(spec)[top],
            weights_sha256=weights_sha256(net),
            definition=net_to_text(spec.deploy()),
            provenance={**about.provenance, **origin},
            channel_order=about.channel_order,
            tiling=tiling(spec),
        )
    except ValueError as error:
        raise BadInput(f"{spec.name}: its description does not hold together ({error})") from error


def weights_sha256(net: Net) -> str:
    """SHA-256 over the state dict: for each key in sorted order the line "<key> <dtype> <shape>" (float32, 21x3x1x1)
    and the values' bytes, little-endian in C order. It names the weights, however they are stored.
    """
    digest = hashlib.sha256()
    for key, blob in sorted(net.state_dict().items()):
        values = blob.cpu().contiguous().numpy()
        digest.update(f"{key} {values.dtype} {'x'.join(map(str, values.shape))}\n".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def randomise(net: Net, seed: int) -> None:
    """Fill a freshly built net with weights under which its activations and labels vary as a trained net's do.

    He-normal weights, a hundredth of that in layers whose name begins with "score", biases of deviation 0.1;
    deconvolutions and scales stay as they were built.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.spec.layers:
            if isinstance(layer, Convolution | InnerProduct) and not isinstance(layer, Deconvolution):
                gain = 0.01 if layer.name.startswith("score") else 2**0.5
                blobs = dict(net.layer(layer.name).named_parameters())
                weight = blobs["weight"]
                weight.normal_(0, gain / weight[0].numel() ** 0.5, generator=generator)
                if "bias" in blobs:
                    blobs["bias"].normal_(0, 0.1, generator=generator)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(
        "to_onnx.py",
        "Write a net as one ONNX file with free batch, height and width, and verify it in ONNX Runtime.\n"
        "Without SOURCE: the latest training run below out/runs, or else random weights.",
        "python export/to_onnx.py out/runs/voc-fcn8s/weights.safetensors --io labels -o voc-fcn8s.onnx",
    )
    parser.add_argument(
        "source", type=Path, nargs="?", metavar="SOURCE", help="a checkpoint (.safetensors), or a Caffe net (.prototxt)"
    )
    parser.add_argument("--weights", type=Path, metavar="CAFFEMODEL", help="the weights of a Caffe net")
    parser.add_argument(
        "--mean",
        type=float,
        nargs=3,
        metavar=("B", "G", "R"),
        help=f"what a Caffe net's images are reduced by; not given: {MEAN}",
    )
    parser.add_argument(
        "--io",
        choices=IO,
        default="scores",
        help="scores: Caffe's input to its scores; labels: to the best classes' ids; image: uint8 RGB to these ids",
    )
    parser.add_argument(
        "--channel-order",
        choices=ORDERS,
        help=f"in which a Caffe net takes an image's channels: RGB where they are no colours (HHA); not given: {BGR}",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of all between input and output")
    parser.add_argument(
        "--border",
        choices=BORDERS,
        help="keep: pad the image as Caffe does; elide: the same on a window around it, where that is exact; "
        "not given: elide, but keep with --precision fp16 or --triton, which are for GPUs (none has been timed)",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="not given: beside SOURCE, or out/NET.onnx for random weights"
    )
    place.add_argument(
        "--triton",
        type=Path,
        metavar="DIR",
        help="write a new Triton model repository instead, for its ONNX Runtime and TensorRT backends",
    )
    group = parser.add_argument_group("random weights, to try and to time a net")
    group.add_argument("--random", choices=NETS, metavar="NET", help=f"one of {', '.join(NETS)}")
    group.add_argument("--width", type=float, default=1.0, help="factor of all channels")
    group.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


@cli.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.out and args.out.suffix != ".onnx":
        raise BadInput(f"{args.out}: the file's name must end in .onnx")
    net, about, out = load(args)
    out = args.out or out
    if about is None:
        if args.triton:
            raise BadInput(f"{net.spec.name} does not make one label map of one image: leave out --triton")
        print(f"note: {net.spec.name} does not make one label map of one image: runtime/ will not take this file")
    border = args.border or (KEEP if args.triton or args.precision == "fp16" else ELIDE)
    print(f"writing {net.spec.name} ({args.io}, {args.precision}) and verifying it in ONNX Runtime ...", flush=True)
    start = time.perf_counter()
    with triton.repository(args.triton, net.spec.name) if args.triton else contextlib.nullcontext(out) as file:
        report = export_onnx(net, file, about, args.io, precision=args.precision, border=border)
    seconds = time.perf_counter() - start
    if args.triton:
        out, _ = triton.files(args.triton, net.spec.name)
    print(f"{report}\n{out}: {out.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s, sha256 {sha256(out)}")
    if args.triton:
        print(triton.commands(args.triton, net.spec.name))


def load(args: argparse.Namespace) -> tuple[Net, About | None, Path]:
    """The net with its weights, what is known of them, and where the file goes by default."""
    random = args.random or (args.width, args.seed) != (1.0, 0)
    if args.source and random:
        raise BadInput(f"{args.source} has its own weights: leave out --random, --width and --seed")
    source = args.source or (None if random else latest())
    if source and source.suffix == ".prototxt":
        return _caffe(source, args.weights, tuple(args.mean or MEAN), args.channel_order or BGR)
    if args.weights or args.mean or args.channel_order:
        raise BadInput("--weights, --mean and --channel-order belong to a Caffe net: give its .prototxt")
    if source:
        return _checkpoint(source)
    return _random(args.random or "voc-fcn8s", args.width, args.seed, "" if random else "no trained run found: ")


def _checkpoint(path: Path) -> tuple[Net, About, Path]:
    if path.suffix != ".safetensors":
        raise BadInput(f"{path}: give a checkpoint (.safetensors) or a Caffe net (.prototxt)")
    print(f"reading {path}", flush=True)
    loaded = checkpoint.load(path)
    return loaded.net, loaded.about, path.with_suffix(".onnx")


def _caffe(
    prototxt: Path, weights: Path | None, mean: tuple[float, float, float], order: str
) -> tuple[Net, About | None, Path]:
    if weights is None:
        raise BadInput(f"{prototxt}: a Caffe net's weights are in another file: give it with --weights")
    net = load_prototxt(prototxt)
    print(f"reading {weights}", flush=True)
    report = load_caffemodel(net, weights)
    if report.missing:
        lacks = ", ".join(report.missing[:3])
        raise BadInput(f"{weights}: lacks {lacks} of {prototxt}: these are another net's weights")
    print(report, flush=True)
    return net, plain_about(net, prototxt.stem, mean, order), prototxt.with_suffix(".onnx")


def _random(name: str, width: float, seed: int, reason: str) -> tuple[Net, About | None, Path]:
    if not 0 < width <= 2:
        raise BadInput(f"--width {width}: give a factor above 0, 2 at most")
    if not 0 <= seed < 2**32:
        raise BadInput(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    says = f"warning: {reason}exporting {name} with RANDOM weights (seed {seed}); its labels mean nothing"
    print(says, file=sys.stderr, flush=True)
    net = build(name, width=width)
    randomise(net, seed)
    return net, plain_about(net, f"random weights, seed {seed}", MEAN), Path("out") / f"{name}.onnx"


def plain_about(net: Net, origin: str, mean: tuple[float, float, float], order: str = BGR) -> About | None:
    """A description for weights that come without one: VOC's classes where there are 21, else numbered ones.

    None for a net that does not give one label map of one image.
    """
    (_, channels, *size), *others = (net.spec.shapes()[top] for top in net.spec.outputs)
    if others or not size or channels > 255 or len(net.spec.inputs) > 1:
        return None
    classes = CLASSES if channels == len(CLASSES) else tuple(f"class {i}" for i in range(channels))
    palette = tuple(tuple(colour) for colour in voc_palette()[:channels].tolist())
    about = About(recipe=origin, iteration=0, dataset="unknown", classes=classes, palette=palette, mean=mean)
    return replace(about, channel_order=order)


if __name__ == "__main__":
    sys.exit(main())
