"""What border elision saves: every way to run a net on the same input, in turn in one process, plain and elided.

Both arms of a library have the same weights, ends, threads, provider and settings: its elided row differs from its
plain one in the border alone, and "elision gains" is the one's median over the other's. Timed: float32 1 x 3 x H x W in
memory -> scores in memory. Multiply-adds are those of the graph. Memory is the peak of a process that makes this one
contender and runs it twice; the same without a contender is given too. Before that both files compute images of a dozen
sizes, and those of --images: their scores and labels are compared. Writes OUT/border.json and OUT/border.png.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import charts, contenders, engines, libraries, roofline
from benchmarks.contenders import Absent, Contender, Task
from benchmarks.interleave import Times, interleave
from benchmarks.latency import agreement, digits, parse_sizes
from benchmarks.loading import peak_mib
from benchmarks.subject import Subject, scenes
from export.border import BORDERS, ELIDE, KEEP, elide
from export.to_onnx import export_onnx, load, parse
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, write_json
from fcn.images import preprocess, read_image
from fcn.record import ROOT, record
from reference import NETS, checkpoint
from reference.layers import Pair
from reference.runs import WEIGHTS, pick_device
from runtime.device import driver_version
from runtime.ort import OrtBackend
from runtime.segment import find as find_images
from runtime.segmenter import Segmenter, labels

CASES = ("voc-fcn8s:224x224,375x500,500x500,1024x1024", "voc-fcn32s:375x500", "voc-fcn-googlenet:375x500")
# The aims for FCN-8s on two cores, by height and width.
AIMS = {("voc-fcn8s", 224, 224): 1.6, ("voc-fcn8s", 375, 500): 1.35}
WARM_UP = 2
# Of scores, relative to the greatest: labels must be equal where the best two differ by more than both can move.
EXACT = 5e-6
# Smallest, thin, odd ones, and those of VOC's images.
SIZES: tuple[Pair, ...] = ((1, 1), (1, 500), (500, 3), (31, 47), (100, 100))
SIZES += ((224, 224), (225, 300), (281, 500), (333, 500), (375, 500), (500, 375), (500, 500))


@dataclass(frozen=True)
class Way:
    """A library that runs a net."""

    make: Callable[[Task], Contender]
    borders: Sequence[str]
    runs_net: bool
    """The PyTorch module; else the file."""


def onnx_runtime(task: Task) -> Contender:
    """The file in ONNX Runtime, free sizes."""
    return contenders.onnx_runtime(task)[0]


WAYS = {
    "cpu": {
        "PyTorch eager": Way(contenders.eager, BORDERS, True),
        "torch.compile": Way(contenders.compiled, [KEEP], True),
        "OpenCV DNN": Way(libraries.opencv, [KEEP], False),
        "OpenVINO": Way(libraries.openvino, BORDERS, False),
        "ONNX Runtime": Way(onnx_runtime, BORDERS, False),
    },
    "cuda": {
        "PyTorch eager": Way(contenders.eager, BORDERS, True),
        "torch.compile": Way(contenders.compiled, [KEEP], True),
        "PyTorch CUDA graph": Way(contenders.cuda_graph, BORDERS, True),
        "ONNX Runtime": Way(onnx_runtime, BORDERS, False),
    },
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("border.py", __doc__ or "", "python benchmarks/border.py voc-fcn8s:375x500 --images photos")
    args.add_argument(
        "cases", nargs="*", default=CASES, metavar="NET:HxW,...", help="nets, with random weights, and image sizes"
    )
    args.add_argument("--images", type=Path, metavar="DIR", help="compare the files on these photographs too")
    args.add_argument("--width", type=float, default=1.0, help="factor of all channels")
    args.add_argument("--threads", type=int, help="CPU threads of every library; not given: PyTorch's default")
    args.add_argument("--repeat", type=int, default=10, help="runs of each contender")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args.add_argument("--out", type=Path, default=Path("out/border"), metavar="DIR", help="folder for JSON and plot")
    options = args.parse_args(argv)
    for name in ("threads", "repeat"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"--{name} {value}: give 1 or more")
    cases = [parse_case(case) for case in options.cases]
    photos = find_images([options.images]) if options.images else []
    device = pick_device(options.device)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    made, compared = [], []
    for net, sizes in cases:
        with tempfile.TemporaryDirectory() as folder:
            arms = prepare(net, options.width, Path(folder), sizes)
            compared.append({"net": net, **compare(arms, photos, device, threads)})
            made += [{"net": net, **at} for at in measure(arms, sizes, device, threads, options.repeat, Path(folder))]
    figures = record(
        width=options.width,
        device=device.type,
        driver=driver_version(),
        threads=threads,
        idle_mib=idle(),
        exactness=compared,
        cases=made,
    )
    print(table(figures))
    write_json(options.out / "border.json", figures)
    with atomic(options.out / "border.png") as temporary:
        charts.border(figures).savefig(temporary, dpi=150)
    print(f"\n{options.out / 'border.json'}, {options.out / 'border.png'}")
    return 0


def parse_case(text: str) -> tuple[str, list[Pair]]:
    """ "voc-fcn8s:375x500,224x224" as a net and sizes. Raises BadInput for anything else."""
    net, _, sizes = text.partition(":")
    if net not in NETS or not sizes:
        raise BadInput(f"{text}: give NET:HEIGHTxWIDTH,...; nets are {', '.join(NETS)}")
    return net, parse_sizes(sizes)


def prepare(name: str, width: float, folder: Path, sizes: Iterable[Pair]) -> dict[str, Subject]:
    """The net with random weights, plain and elided, as files and as modules. Raises BadInput where it is no single
    net of one image.
    """
    net, about, _ = load(parse(["--random", name, "--width", str(width)]))
    if about is None:
        raise BadInput(f"{name}: does not make one label map of one image; there is nothing to time here")
    checkpoint.save(folder / WEIGHTS, net, about)
    libraries.save_for_opencv(net, folder, sizes)
    arms = {}
    for border in BORDERS:
        print(f"exporting {name}, border {border}, and verifying it in ONNX Runtime ...", flush=True)
        print(export_onnx(net, model(folder, border), about, border=border))
        module = (elide(net) if border == ELIDE else net).eval()
        arms[border] = subject(folder, border, module)
    if arms[ELIDE].border == KEEP:
        raise BadInput(f"{name}: nothing of it can be elided; there is nothing to compare here")
    return arms


def model(folder: Path, border: str) -> Path:
    return folder / f"{border}.onnx"


def subject(folder: Path, border: str, net: contenders.Net | None) -> Subject:
    with Segmenter.open(model(folder, border), provider="cpu") as segmenter:
        return Subject("random weights", model(folder, border), segmenter.metadata, net)


def compare(arms: Mapping[str, Subject], photos: Sequence[Path], device: torch.device, threads: int) -> dict[str, Any]:
    """Both files on images of a dozen sizes and on photographs. Raises BadInput where they are not the same function:
    what they take would be no comparison.
    """
    plain, less = (OrtBackend(arms[border].file, device.type, threads) for border in (KEEP, ELIDE))
    worst, pixels, unequal, close = 0.0, 0, 0, 0
    pictures = [*(scenes(1, *size) for size in SIZES), *(read_image(path)[None] for path in photos)]
    for picture in tqdm(pictures, "comparing", unit="image", disable=None, leave=False):
        x = preprocess(picture, plain.metadata.mean)
        whole, found = plain.run(x), less.run(x)
        greatest = np.abs(whole).max()
        worst = max(worst, float(np.abs(found - whole).max() / greatest))
        second, best = np.partition(whole, -2, axis=1)[:, -2:].swapaxes(0, 1)
        tied = best - second <= 2 * EXACT * greatest
        differ = labels(found) != labels(whole)
        pixels, unequal, close = pixels + differ.size, unequal + int(differ.sum()), close + int(tied.sum())
        if worst > EXACT or bool((differ & ~tied).any()):
            size = "x".join(map(str, picture.shape[1:3]))
            raise BadInput(f"{arms[ELIDE].metadata.net} at {size}: elided, it computes something else ({worst:.1e})")
    plain.close()
    less.close()
    return {
        "sizes": ["x".join(map(str, size)) for size in SIZES],
        "photographs": len(photos),
        "score_difference": worst,
        "pixels": pixels,
        "labels_unequal": unequal,
        "pixels_tied": close,
    }


def measure(
    arms: Mapping[str, Subject],
    sizes: Sequence[Pair],
    device: torch.device,
    threads: int,
    repeat: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """The figures of one net at every size."""
    shapes = [(1, *size) for size in sizes]
    with ExitStack() as stack:
        built, absent = {}, dict[str, str]()
        for border, arm in arms.items():
            place = folder / border
            place.mkdir()
            built[border], missing = stack.enter_context(
                engines.opened(arm, shapes, place, wanted=device.type == "cuda")
            )
            absent |= missing
        return [one(arms, built, absent, size, device, threads, repeat) for size in sizes]


def one(
    arms: Mapping[str, Subject],
    built: Mapping[str, Sequence[engines.Engine]],
    absent: Mapping[str, str],
    size: Pair,
    device: torch.device,
    threads: int,
    repeat: int,
) -> dict[str, Any]:
    """The figures of one net at one size: all contenders, checked, warmed up and timed."""
    name, title = arms[KEEP].metadata.net, "x".join(map(str, size))
    images = scenes(1, *size)
    x = preprocess(images, arms[KEEP].metadata.mean)
    tasks = {border: Task(arm, images, x, device, threads) for border, arm in arms.items()}
    present: dict[tuple[str, str], Contender] = {}
    missing = dict(absent)
    print(f"{name} {title}: preparing every contender ...", flush=True)
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with exact if device.type == "cuda" else nullcontext():
        for way, about in WAYS[device.type].items():
            for border in about.borders:
                try:
                    present[way, border] = about.make(tasks[border])
                except Absent as reason:
                    missing[label(way, border)] = str(reason)
        for border, each in built.items():
            for contender in (engine.contenders(tasks[border])[0] for engine in each):
                present[contender.name, border] = contender
        present = {key: replace(contender, name=label(*key)) for key, contender in present.items()}
        shares = agreement(list(present.values()))
        seconds = interleave({c.name: c.run for c in present.values()}, repeat, WARM_UP, title=f"{name} {title}")
    rows = []
    for (way, border), contender in present.items():
        runs, plain, gpu = seconds[contender.name], seconds[label(way, KEEP)], contender.gpu_milliseconds
        alone = device.type == "cpu" and child(arms[border].file.parent, way, border, size, threads, contender.layout)
        rows.append(
            {
                "name": contender.name,
                "border": border,
                **asdict(contender.origin),
                "settings": contender.settings,
                "runs": len(runs),
                **{f"{key}_ms": round(value, 2) for key, value in asdict(Times.of(runs)).items() if key != "runs"},
                "least_ms": round(1e3 * min(runs), 2),
                "gpu_ms": digits(median(gpu() for _ in range(repeat))) if gpu else None,
                "elision_gains": round(median(plain) / median(runs), 3) if border == ELIDE else None,
                "equal_labels": shares[contender.name],
                "peak_mib": alone or None,
            }
        )
    return {
        "height": size[0],
        "width": size[1],
        "multiply_adds": {
            border: roofline.costs(arm.spec, 1, *size).multiply_adds for border, arm in arms.items() if arm.spec
        },
        "aim": AIMS.get((name, *size)),
        "rows": rows,
        "absent": missing,
    }


def label(way: str, border: str) -> str:
    return f"{way}, elided" if border == ELIDE else way


def child(folder: Path, way: str, border: str, size: Pair, threads: int, layout: str | None) -> int:
    """The peak in MiB of a process that makes this contender only and runs it twice."""
    program = "import sys; from benchmarks.border import alone; print(alone(*sys.argv[1:]))"
    words = [str(folder), way, border, f"{size[0]}x{size[1]}", str(threads), layout or "contiguous"]
    return _number(program, *words)


def idle() -> int:
    """The peak in MiB of such a process that makes no contender: Python, PyTorch and the other libraries."""
    return _number("import benchmarks.border; print(benchmarks.border.peak_mib())")


def _number(program: str, *words: str) -> int:
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return round(float(done.stdout.splitlines()[-1]))


def alone(folder: str, way: str, border: str, size: str, threads: str, layout: str) -> float:
    """What `child` runs."""
    torch.set_num_threads(int(threads))
    about, net = WAYS["cpu"][way], None
    if about.runs_net:
        net = checkpoint.load(Path(folder, WEIGHTS)).net.eval()
        net = elide(net) if border == ELIDE else net
    images, arm = scenes(1, *parse_sizes(size)[0]), subject(Path(folder), border, net)
    x = preprocess(images, arm.metadata.mean)
    contender = about.make(Task(arm, images, x, torch.device("cpu"), int(threads), layout))
    for _ in range(2):
        contender.run()
    return peak_mib()


def table(figures: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = []
    for of in figures["exactness"]:
        lines.append(
            f"\n{of['net']}, {len(of['sizes'])} sizes and {of['photographs']} photographs, elided against plain: "
            f"scores within {of['score_difference']:.1e} of the greatest, {of['labels_unequal']} of {of['pixels']:,} "
            f"labels unequal ({of['pixels_tied']} tied within {2 * EXACT:g})"
        )
    for at in figures["cases"]:
        counts = at["multiply_adds"]
        lines.append(
            f"\n{at['net']} at {at['height']}x{at['width']}: {counts[KEEP] / 1e9:.1f} G multiply-adds, elided "
            f"{counts[ELIDE] / 1e9:.1f} G ({1 - counts[ELIDE] / counts[KEEP]:.1%} less; at most "
            f"{counts[KEEP] / counts[ELIDE]:.2f} times as fast)" + (f"; aim {at['aim']}" if at["aim"] else "")
        )
        wide = max(len(row["name"]) for row in at["rows"])
        lines.append(f"{'':<{wide}} {'median':>9} {'p90':>9} {'least':>9} ms {'gains':>6} {'MiB':>6} {'labels':>9}")
        for row in at["rows"]:
            gains = f"{row['elision_gains']:.3f}" if row["elision_gains"] else ""
            times = " ".join(f"{row[key]:9.1f}" for key in ("median_ms", "p90_ms", "least_ms"))
            lines.append(
                f"{row['name']:<{wide}} {times}    {gains:>6} {row['peak_mib'] or '-':>6} {row['equal_labels']:9.4%}  "
                f"{row['backend']}, {row['provider']}, {row['precision']}; {row['settings']}"
            )
    lines.append(f"\nMiB: peak of a process with this contender alone; without any {figures['idle_mib']}")
    lines += [f"{name} is absent: {why}" for name, why in figures["cases"][0]["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
