"""Time every way to run the net, in turn in one process: PyTorch, torch.compile, ONNX Runtime, TensorRT.

Timed: float32 N x 3 x H x W in memory -> scores (or labels, if that is what the file gives) in memory; on a GPU
with the copies there and back. A file that takes pixels (--io image) gets those. The rows "Segmenter" are uint8
pictures -> label maps. First all must give the same labels. Images/s is the batch over the median. Of an engine the
time on the GPU alone is given too. Beside each row stands its share of the roofline: what this machine could reach at
its own measured rates, of Caffe's whole graph: a file of --border elide computes less, and may exceed it. Writes
OUT/latency.json and OUT/latency.png.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import charts, contenders, engines, roofline
from benchmarks.contenders import Contender, Task
from benchmarks.engines import Engine
from benchmarks.interleave import MOST, SECONDS, Times, interleave, together
from benchmarks.roofline import Costs, Rates
from benchmarks.subject import Subject, find, scenes
from export.border import ELIDE, KEEP
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, write_json
from fcn.images import preprocess
from fcn.record import record
from reference.net import NetSpec
from reference.runs import pick_device
from runtime.device import driver_version

# Share of pixels on which every contender must give the first one's label. They sum float32 in orders of their own,
# which can turn ties: not seen yet (1.0 on CPUs). Labels one pixel off agree on 0.973 (random) to 0.998 (trained).
AGREEMENT = 0.9995
# Of a float16 file: 0.9985 was seen (narrow nets, random weights, whose scores lie close together).
HALF_AGREEMENT = 0.99
STREAMS = 4  # callers at once that are tried on a GPU: runtime/engine.py lets in no more
# The only time that the paper gives for FCN-8s. Not comparable with anything here, but where it all began.
PAPER = {
    "net": "FCN-8s",
    "ms": 175,
    "card": "NVIDIA Tesla K40c",
    "what": "one PASCAL VOC image with everything, in Caffe",
    "source": "Long, Shelhamer, Darrell, CVPR 2015, table 3; the card: section 4.3",
}


@dataclass(frozen=True)
class Setting:
    """What holds for all sizes and batches of a run."""

    subject: Subject
    spec: NetSpec | None
    """Its graph, where it is known."""
    engines: Sequence[Engine]
    absent: dict[str, str]
    """Why there is no engine, by library."""
    device: torch.device
    threads: int
    rates: Rates
    streams: int
    repeat: int | None


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("latency.py", __doc__ or "", "python benchmarks/latency.py voc-fcn8s.onnx --sizes 375x500,224x224")
    args.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a .onnx file, an engine, a .safetensors checkpoint, or the name of a net (random weights); "
        "not given: the latest run's weights, or else random ones",
    )
    args.add_argument("--weights", type=Path, help="the checkpoint a .onnx was exported from; not given: beside it")
    args.add_argument("--sizes", default="375x500", metavar="HxW,...", help="heights and widths")
    args.add_argument("--batch", default="1", metavar="N,...", help="images a call")
    args.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help=f"images/s of 1 to N threads that share a Segmenter; not given: {STREAMS} on a GPU, else none",
    )
    args.add_argument("--threads", type=int, help="CPU threads of every library; not given: PyTorch's default")
    args.add_argument("--repeat", type=int, help="runs of each; not given: 30 to 300, till each has run for 3 s")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args.add_argument("--out", type=Path, default=Path("out/latency"), metavar="DIR", help="folder for JSON and plot")
    options = args.parse_args(argv)
    for name in ("streams", "threads", "repeat"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"--{name} {value}: give 1 or more")
    shapes = [(batch, *size) for size in parse_sizes(options.sizes) for batch in parse_batches(options.batch)]
    device = pick_device(options.device)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)

    with tempfile.TemporaryDirectory() as folder:
        # As export/to_onnx.py does: elided where that is known to gain.
        on_gpu = device.type == "cuda" or (options.device != "cpu" and engines.any_present())
        subject = find(options.model, options.weights, Path(folder), KEEP if on_gpu else ELIDE)
        spec = subject.spec
        megabytes = round(subject.file.stat().st_size / 1e6, 1)
        with engines.opened(subject, shapes, Path(folder), wanted=options.device != "cpu") as (opened, absent):
            streams = options.streams or (STREAMS if opened or device.type == "cuda" else 1)
            rates = roofline.measure(device)
            setting = Setting(subject, spec, opened, absent, device, threads, rates, streams, options.repeat)
            measured = [measure(setting, *shape) for shape in shapes]
    figures = record(
        net=subject.metadata.net,
        source=subject.source,
        megabytes=megabytes,
        weights_sha256=subject.metadata.weights_sha256,
        io=subject.metadata.io,
        border=subject.border,
        device=device.type,
        driver=driver_version(),
        threads=threads,
        rates=asdict(rates),
        paper=PAPER,
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


def parse_batches(text: str) -> list[int]:
    """ "1,4" as numbers of images. Raises BadInput for anything else."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not (word.isdecimal() and int(word)):
            raise BadInput(f"--batch {text}: {word!r} is no number of images, 1 or more")
    return [int(word) for word in words]


def measure(setting: Setting, batch: int, height: int, width: int) -> dict[str, Any]:
    """Check, warm up and time all contenders at one shape.

    Raises BadInput where one gives other labels than the first: its time would be another net's.
    """
    subject, device = setting.subject, setting.device
    images, title = scenes(batch, height, width), f"{batch} x {height}x{width}"
    x = preprocess(images, subject.metadata.mean, subject.metadata.channel_order)
    task = Task(subject, images, x, device, setting.threads)
    # float32 as Caffe's: TF32, cuDNN's default, keeps 10 bits of the mantissa, and ONNX Runtime is run without it too.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with exact if device.type == "cuda" else nullcontext():
        print(f"{title}: preparing every contender ...", flush=True)
        present, absent = contenders.gather(task)
        present += [contender for engine in setting.engines for contender in engine.contenders(task)]
        absent |= setting.absent
        if not present:
            raise BadInput("; ".join(f"{name}: {reason}" for name, reason in absent.items()))
        shares = agreement(present)
        seconds = interleave({c.name: c.run for c in present}, setting.repeat, title=title)
        costs = roofline.costs(setting.spec, batch, height, width) if setting.spec else None
        rows = [
            {**row(setting, contender, costs, batch, seconds[contender.name]), "equal_labels": shares[contender.name]}
            for contender in present
        ]
    about = {"height": height, "width": width, "batch": batch}
    return {**about, "costs": costs and asdict(costs), "rows": rows, "absent": absent}


def row(
    setting: Setting, contender: Contender, costs: Costs | None, batch: int, seconds: Sequence[float]
) -> dict[str, Any]:
    """The figures of one contender; here it is also run by several callers, and timed on the GPU alone."""
    times = Times.of(seconds)
    gpu_ms, several = None, {}
    if contender.gpu_milliseconds:
        gpu_ms = float(np.median([contender.gpu_milliseconds() for _ in range(times.runs)]))
    if contender.shared and setting.streams > 1:
        runs = setting.repeat or max(3, min(MOST, round(SECONDS * 1e3 / times.median)))
        counts = range(1, setting.streams + 1)
        several = {str(n): round(batch * together(contender.run, n, runs), 3) for n in counts}
    # An engine runs on the GPU, whatever else does.
    here = costs and (setting.device.type == "cuda" or not contender.origin.engine_sha256)
    bound = setting.rates.bound_ms(costs, contender.origin.precision) if costs and here else None
    return {
        "name": contender.name,
        **asdict(contender.origin),
        "settings": contender.settings,
        "begins_with": contender.begins_with,
        "runs": times.runs,
        **{f"{key}_ms": round(value, 3) for key, value in asdict(times).items() if key != "runs"},
        "images_per_s": round(batch * 1e3 / times.median, 3),
        "images_per_s_by_callers": several,
        "gpu_ms": gpu_ms and digits(gpu_ms),
        "bound_ms": bound and digits(bound),
        "attained": bound and digits(bound / times.median),
        "attained_on_gpu": bound and gpu_ms and digits(bound / gpu_ms),
    }


def digits(value: float) -> float:
    """The first four that count."""
    return float(f"{value:.4g}")


def agreement(present: Sequence[Contender]) -> dict[str, float]:
    """Share of pixels on which each contender gives the first one's label. Raises BadInput where it is too small."""
    first, *others = present
    expected = contenders.label_map(first.run())
    shares = {first.name: 1.0}
    for other in others:
        exact = first.origin.precision == other.origin.precision == "float32"
        least = AGREEMENT if exact else HALF_AGREEMENT
        shares[other.name] = share = float(np.mean(contenders.label_map(other.run()) == expected))
        if share < least:
            raise BadInput(
                f"{other.name} gives the labels of {first.name} on {share:.2%} of the pixels only, {least:.2%} "
                "are required: not timed, since they do not compute the same"
            )
    return shares


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    ends = "uint8 pixels -> labels" if figures["io"] == "image" else f"float32 input -> {figures['io']}"
    rates = figures["rates"]
    speeds = ", ".join(f"{flops / 1e12:.3g} TFLOP/s in {name}" for name, flops in rates["flops"].items())
    lines = [
        f"\n{figures['net']} ({figures['source']}; {figures['megabytes']:g} MB), border {figures['border']}, "
        f"{figures['device']}, threads {figures['threads']}; {ends}, in memory",
        f"roofline, measured in this run on {rates['device']}: {speeds}, {rates['bytes_per_s'] / 1e9:.4g} GB/s",
    ]
    for at in figures["sizes"]:
        title = f"{at['batch']} x {at['height']}x{at['width']}"
        names = [each["name"] for each in at["rows"]]
        wide = max(map(len, [title, *names]))
        lines.append(
            f"\n{title:<{wide}}{'median':>10} {'p90':>9} {'p99':>9} ms {'images/s':>9} {'GPU ms':>9} {'attained':>8} "
            f"{'runs':>5} {'labels':>9}  backend, provider, precision; settings"
        )
        for each in at["rows"]:
            times = " ".join(f"{each[key]:9.2f}" for key in ("median_ms", "p90_ms", "p99_ms"))
            gpu = "-" if each["gpu_ms"] is None else f"{each['gpu_ms']:.3f}"
            attained = "-" if each["attained"] is None else f"{each['attained']:.1%}"
            what = f"{each['backend']}, {each['provider']}, {each['precision']}; {each['settings']}"
            what += "" if each["build_s"] is None else f"; built in {each['build_s']:g} s"
            what += f"; engine {each['engine_sha256'][:12]}" if each["engine_sha256"] else ""
            lines.append(
                f"{each['name']:<{wide}} {times}    {each['images_per_s']:9.2f} {gpu:>9} {attained:>8} "
                f"{each['runs']:5} {each['equal_labels']:9.4%}  {what}"
            )
        for each in at["rows"]:
            if several := each["images_per_s_by_callers"]:
                speeds = ", ".join(f"{count}: {speed:.2f}" for count, speed in several.items())
                lines.append(f"{each['name']:<{wide}} images/s by callers at once: {speeds}")
    missing = {name: reason for at in figures["sizes"] for name, reason in at["absent"].items()}
    lines += ["", *(f"{name} is absent: {reason}" for name, reason in missing.items())]
    paper = figures["paper"]
    lines.append(
        f"\nof the paper's own card, not to be compared: {paper['net']} takes about {paper['ms']} ms on a "
        f"{paper['card']} ({paper['what']}; {paper['source']})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
