"""Time every way to run the net, in turn in one process: PyTorch eager, torch.compile, ONNX Runtime.

Timed: float32 N x 3 x H x W in memory -> scores (or labels, if that is what the file gives) in memory; on a GPU
with the copies there and back. A file that takes pixels (--io image) gets those. The row "runtime.Segmenter" is uint8
pictures -> label maps. First all must give the same labels. Images/s is the batch over the median. Writes
OUT/latency.json and OUT/latency.png.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import charts, contenders
from benchmarks.contenders import Contender, Task
from benchmarks.interleave import Times, interleave
from benchmarks.subject import Subject, find, scenes
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, write_json
from fcn.images import preprocess
from fcn.record import record
from reference.runs import pick_device

# Share of pixels on which every contender must give the first one's label. They sum float32 in orders of their own,
# which can turn ties: not seen yet (1.0 on CPUs). Labels one pixel off agree on 0.973 (random) to 0.998 (trained).
AGREEMENT = 0.9995
# Of a float16 file: 0.9985 was seen (narrow nets, random weights, whose scores lie close together).
HALF_AGREEMENT = 0.99


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("latency.py", __doc__ or "", "python benchmarks/latency.py voc-fcn8s.onnx --sizes 375x500,224x224")
    args.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a .onnx file, a .safetensors checkpoint, or the name of a net (random weights); "
        "not given: the latest run's weights, or else random ones",
    )
    args.add_argument("--weights", type=Path, help="the checkpoint a .onnx was exported from; not given: beside it")
    args.add_argument("--sizes", default="375x500", metavar="HxW,...", help="heights and widths")
    args.add_argument("--batch", type=int, default=1, help="images a call")
    args.add_argument("--threads", type=int, help="CPU threads of every library; not given: PyTorch's default")
    args.add_argument("--repeat", type=int, help="runs of each; not given: 30 to 300, till each has run for 3 s")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args.add_argument("--out", type=Path, default=Path("out/latency"), metavar="DIR", help="folder for JSON and plot")
    options = args.parse_args(argv)
    for name in ("batch", "threads", "repeat"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"--{name} {value}: give 1 or more")
    sizes = parse_sizes(options.sizes)
    device = pick_device(options.device)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)

    with tempfile.TemporaryDirectory() as folder:
        subject = find(options.model, options.weights, Path(folder))
        megabytes = round(subject.model.stat().st_size / 1e6, 1)
        measured = [measure(subject, options.batch, size, device, threads, options.repeat) for size in sizes]
    figures = record(
        net=subject.metadata.net,
        source=subject.source,
        megabytes=megabytes,
        weights_sha256=subject.metadata.weights_sha256,
        io=subject.metadata.io,
        device=device.type,
        threads=threads,
        batch=options.batch,
        sizes=measured,
    )
    print(table(figures))
    write_json(options.out / "latency.json", figures)
    with atomic(options.out / "latency.png") as temporary:
        charts.latency(figures).savefig(temporary, dpi=150)
    print(f"\n{options.out / 'latency.json'}, {options.out / 'latency.png'}")
    return 0


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """ "375x500,224x224" as heights and widths. Raises BadInput for anything else."""
    sizes = []
    for word in text.split(","):
        height, _, width = word.strip().lower().partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise BadInput(f"--sizes {text}: {word.strip()!r} is no HEIGHTxWIDTH, such as 375x500")
        sizes.append((int(height), int(width)))
    return sizes


def measure(
    subject: Subject, batch: int, size: tuple[int, int], device: torch.device, threads: int, repeat: int | None
) -> dict[str, Any]:
    """Check, warm up and time all contenders at one size (height, width).

    Raises BadInput where one gives other labels than the first: its time would be another net's.
    """
    height, width = size
    images = scenes(batch, height, width)
    task = Task(subject, images, preprocess(images, subject.metadata.mean), device, threads)
    # float32 as Caffe's: TF32, cuDNN's default, keeps 10 bits of the mantissa, and ONNX Runtime is run without it too.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with exact if device.type == "cuda" else nullcontext():
        print(f"{height}x{width}: preparing every contender ...", flush=True)
        present, absent = contenders.gather(task)
        if not present:
            raise BadInput("; ".join(f"{name}: {reason}" for name, reason in absent.items()))
        half = subject.metadata.provenance.get("precision") == "fp16"
        shares = agreement(present, HALF_AGREEMENT if half else AGREEMENT)
        seconds = interleave({c.name: c.run for c in present}, repeat, title=f"{height}x{width}")
    rows = []
    for contender in present:
        times = Times.of(seconds[contender.name])
        rows.append(
            {
                "name": contender.name,
                "settings": contender.settings,
                "provider": contender.provider,
                "begins_with": contender.begins_with,
                "equal_labels": shares[contender.name],
                "runs": times.runs,
                **{f"{key}_ms": round(value, 3) for key, value in asdict(times).items() if key != "runs"},
                "images_per_s": round(batch * 1e3 / times.median, 3),
            }
        )
    return {"height": height, "width": width, "rows": rows, "absent": absent}


def agreement(present: Sequence[Contender], least: float = AGREEMENT) -> dict[str, float]:
    """Share of pixels on which each contender gives the first one's label. Raises BadInput below `least`."""
    first, *others = present
    expected = contenders.label_map(first.run())
    shares = {first.name: 1.0}
    for other in others:
        shares[other.name] = share = float(np.mean(contenders.label_map(other.run()) == expected))
        if share < least:
            raise BadInput(
                f"{other.name} gives the labels of {first.name} on {share:.2%} of the pixels only, {AGREEMENT:.2%} "
                "are required: not timed, since they do not compute the same"
            )
    return shares


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    ends = "uint8 pixels -> labels" if figures["io"] == "image" else f"float32 input -> {figures['io']}"
    lines = [
        f"\n{figures['net']} ({figures['source']}; {figures['megabytes']:g} MB), batch {figures['batch']}, "
        f"{figures['device']}, threads {figures['threads']}; {ends}, in memory"
    ]
    for at in figures["sizes"]:
        size = f"{at['height']}x{at['width']}"
        lines.append(
            f"\n{size:<18}{'median':>9} {'p90':>9} {'p99':>9} ms {'images/s':>9} "
            f"{'runs':>5} {'labels':>9}  provider; settings"
        )
        for row in at["rows"]:
            times = " ".join(f"{row[key]:9.2f}" for key in ("median_ms", "p90_ms", "p99_ms"))
            lines.append(
                f"{row['name']:<18}{times}    {row['images_per_s']:9.2f} {row['runs']:5} {row['equal_labels']:9.4%}  "
                f"{row['provider']}; {row['settings']}"
            )
        lines += [f"{name:<18}absent: {reason}" for name, reason in at["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
