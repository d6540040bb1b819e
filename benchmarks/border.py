"""What border elision saves: every library at hand runs the same nets on the same input, in turn in one process.

Those that can run an elided net run it too (OpenCV reads no graph of free sizes, and torch.compile is PyTorch again).
Both arms of a library have the same weights, ends, threads, provider and settings: its elided row differs from its
plain one in the border alone, and "gains" is the one's median over the other's. Timed: float32 1 x 3 x H x W in memory
-> scores in memory. Multiply-adds are those of the graph. Before that both files compute images of a dozen sizes, and
those of --images: their scores and labels are compared. Writes OUT/border.json and OUT/border.png after every case.

--memory adds to the rows of OUT/border.json the peak of a process that loads and runs this one contender (twice), and
of one that has imported PyTorch, ONNX Runtime and OpenCV only. It takes nets, sizes and threads from there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
from benchmarks.engines import Engine
from benchmarks.interleave import Times, interleave
from benchmarks.latency import agreement, digits, parse_sizes
from benchmarks.loading import peak_mib
from benchmarks.subject import Subject, scenes
from export.border import BORDERS, ELIDE, KEEP, elide
from export.to_onnx import export_onnx, load, parse
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, existing, read_json, write_json
from fcn.images import preprocess, read_image
from fcn.record import ROOT, record
from reference import NETS, checkpoint
from reference.layers import Pair
from reference.net import Net
from reference.runs import WEIGHTS, pick_device
from runtime.device import driver_version
from runtime.metadata import Metadata
from runtime.ort import OrtBackend
from runtime.segment import find as find_images
from runtime.segmenter import Segmenter, labels

RESULT, PLOT = "border.json", "border.png"
ELIDED = ", elided"
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


@dataclass(frozen=True)
class Setting:
    """What holds for all sizes of a net."""

    arms: Mapping[str, Subject]
    """The net by border."""
    engines: Mapping[str, Sequence[Engine]]
    absent: dict[str, str]
    """Why there is no engine, by library."""
    device: torch.device
    threads: int
    repeat: int


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
    args.add_argument(
        "--memory", action="store_true", help="add memory to the times that OUT holds, of their nets and sizes"
    )
    args.add_argument("--out", type=Path, default=Path("out/border"), metavar="DIR", help="folder for JSON and plot")
    options = args.parse_args(argv)
    for name in ("threads", "repeat"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"--{name} {value}: give 1 or more")
    if options.memory:
        add_memory(options.out / RESULT)
        return 0
    cases = [parse_case(case) for case in options.cases]
    photos = find_images([options.images]) if options.images else []
    device = pick_device(options.device)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    about = {"width": options.width, "device": device.type, "driver": driver_version(), "threads": threads}
    figures: dict[str, Any] = record(**about, exactness=[], cases=[])
    for net, sizes in cases:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            arms = prepare(net, options.width, Path(folder), sizes if device.type == "cpu" else [])
            figures["exactness"].append({"net": net, **compare(arms, photos, threads)})
            built, absent = {}, dict[str, str]()
            for border, arm in arms.items():
                (place := Path(folder, border)).mkdir()
                shapes = [(1, *size) for size in sizes]
                opened = engines.opened(arm, shapes, place, wanted=device.type == "cuda")
                built[border], missing = stack.enter_context(opened)
                absent |= missing
            setting = Setting(arms, built, absent, device, threads, options.repeat)
            for size in sizes:
                figures["cases"].append(measure(setting, size))
                write(figures, options.out)
    print(f"{table(figures)}\n\n{options.out / RESULT}, {options.out / PLOT}")
    return 0


def write(figures: Mapping[str, Any], folder: Path) -> None:
    """What has been measured so far."""
    write_json(folder / RESULT, figures)
    with atomic(folder / PLOT) as temporary:
        charts.border(figures).savefig(temporary, dpi=150)


def add_memory(result: Path) -> None:
    """Measure the peaks of the contenders of a result, and add them to it. Raises BadInput for one of a GPU."""
    figures = read_json(existing(result, hint="measure times first, without --memory"))
    if figures["device"] != "cpu":
        raise BadInput(f"{result}: of a GPU only times are measured")
    figures["memory"] = record(idle_mib=_number("import benchmarks.border; print(benchmarks.border.peak_mib())"))
    for net in dict.fromkeys(at["net"] for at in figures["cases"]):
        cases = [at for at in figures["cases"] if at["net"] == net]
        with tempfile.TemporaryDirectory() as folder:
            prepare(net, figures["width"], Path(folder), [(at["height"], at["width"]) for at in cases])
            for at in cases:
                for row in tqdm(at["rows"], f"memory, {net}", unit="process", disable=None, leave=False):
                    row["peak_mib"] = child(folder, row, f"{at['height']}x{at['width']}", figures["threads"])
                write_json(result, figures)
    print(f"{table(figures)}\n\n{result}")


def parse_case(text: str) -> tuple[str, list[Pair]]:
    """ "voc-fcn8s:375x500,224x224" as a net and sizes. Raises BadInput for anything else."""
    net, _, sizes = text.partition(":")
    if net not in NETS or not sizes:
        raise BadInput(f"{text}: give NET:HEIGHTxWIDTH,...; nets are {', '.join(NETS)}")
    return net, parse_sizes(sizes)


def prepare(name: str, width: float, folder: Path, sizes: Sequence[Pair]) -> dict[str, Subject]:
    """The net with random weights, plain and elided, as files and as modules; for OpenCV at these sizes.

    Raises BadInput where it does not make one label map of one image, and where nothing of it can be elided.
    """
    net, about, _ = load(parse(["--random", name, "--width", str(width)]))
    if about is None:
        raise BadInput(f"{name}: does not make one label map of one image; there is nothing to time here")
    checkpoint.save(folder / WEIGHTS, net, about)
    if sizes:
        libraries.save_for_opencv(net, folder, sizes)
    arms = {}
    for border in BORDERS:
        print(f"exporting {name}, border {border}, and verifying it in ONNX Runtime ...", flush=True)
        print(export_onnx(net, model(folder, border), about, border=border))
        with Segmenter.open(model(folder, border), provider="cpu") as segmenter:
            write_json(folder / f"{border}.json", segmenter.metadata.to_properties())
        module = (elide(net) if border == ELIDE else net).eval()
        arms[border] = subject(folder, border, module)
    if arms[ELIDE].border == KEEP:
        raise BadInput(f"{name}: nothing of it can be elided; there is nothing to compare here")
    return arms


def model(folder: Path, border: str) -> Path:
    return folder / f"{border}.onnx"


def subject(folder: Path, border: str, net: Net | None) -> Subject:
    """Of what `prepare` wrote."""
    metadata = Metadata.from_properties(read_json(folder / f"{border}.json"))
    return Subject("random weights", model(folder, border), metadata, net)


def compare(arms: Mapping[str, Subject], photos: Sequence[Path], threads: int) -> dict[str, Any]:
    """Both files on images of a dozen sizes and on photographs, on the CPU: a GPU's libraries choose algorithms by the
    shape. Raises BadInput where they are not the same function: their times would be no comparison.
    """
    plain, less = (OrtBackend(arms[border].file, "cpu", threads) for border in (KEEP, ELIDE))
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


def measure(setting: Setting, size: Pair) -> dict[str, Any]:
    """The figures of one net at one size: all contenders, checked, warmed up and timed."""
    name, title = setting.arms[KEEP].metadata.net, "x".join(map(str, size))
    print(f"{name} {title}: preparing every contender ...", flush=True)
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with exact if setting.device.type == "cuda" else nullcontext():
        present, absent = gather(setting, size)
        shares = agreement(list(present.values()))
        calls = {contender.name: contender.run for contender in present.values()}
        seconds = interleave(calls, setting.repeat, WARM_UP, title=f"{name} {title}")
        rows = []
        for (way, border), contender in present.items():
            plain = seconds.get(label(way, KEEP)) if border == ELIDE else None
            rows.append(row(contender, border, seconds[contender.name], plain))
            rows[-1]["equal_labels"] = shares[contender.name]
    counts = {border: roofline.costs(arm.spec, 1, *size) for border, arm in setting.arms.items() if arm.spec}
    return {
        "net": name,
        "height": size[0],
        "width": size[1],
        "multiply_adds": {border: of.multiply_adds for border, of in counts.items()},
        "aim": AIMS.get((name, *size)),
        "rows": rows,
        "absent": setting.absent | absent,
    }


def gather(setting: Setting, size: Pair) -> tuple[dict[tuple[str, str], Contender], dict[str, str]]:
    """The contenders that can run here, by library and border, and why each other one cannot."""
    images = scenes(1, *size)
    x = preprocess(images, setting.arms[KEEP].metadata.mean)
    present: dict[tuple[str, str], Contender] = {}
    absent: dict[str, str] = {}
    for way, about in WAYS[setting.device.type].items():
        for border in about.borders:
            try:
                task = Task(setting.arms[border], images, x, setting.device, setting.threads)
                present[way, border] = about.make(task)
            except Absent as reason:
                absent[label(way, border)] = str(reason)
    for border, built in setting.engines.items():
        task = Task(setting.arms[border], images, x, setting.device, setting.threads)
        for contender in (engine.contenders(task)[0] for engine in built):
            present[contender.name, border] = contender
    return {key: replace(contender, name=label(*key)) for key, contender in present.items()}, absent


def row(contender: Contender, border: str, runs: Sequence[float], plain: Sequence[float] | None) -> dict[str, Any]:
    """The figures of one contender. plain: the seconds of the same library with the border kept, where it is elided."""
    times, gpu = Times.of(runs), contender.gpu_milliseconds
    return {
        "name": contender.name,
        "border": border,
        **asdict(contender.origin),
        "settings": contender.settings,
        "runs": times.runs,
        **{f"{key}_ms": round(value, 2) for key, value in asdict(times).items() if key != "runs"},
        "least_ms": round(1e3 * min(runs), 2),
        "gpu_ms": digits(median(gpu() for _ in runs)) if gpu else None,
        "elision_gains": round(median(plain) / median(runs), 3) if plain else None,
    }


def label(way: str, border: str) -> str:
    return way + (ELIDED if border == ELIDE else "")


def child(folder: str, row: Mapping[str, Any], size: str, threads: int) -> int | None:
    """The peak in MiB of a process that makes a row's contender only and runs it twice. None for an elided PyTorch net:
    it is made where it runs, which takes more than running it.
    """
    way = row["name"].removesuffix(ELIDED)
    if WAYS["cpu"][way].runs_net and row["border"] == ELIDE:
        return None
    layout = next((name for name in contenders.LAYOUTS if f", {name} (" in row["settings"]), "contiguous")
    program = "import sys; from benchmarks.border import alone; print(alone(*sys.argv[1:]))"
    return _number(program, folder, way, row["border"], size, str(threads), layout)


def alone(folder: str, way: str, border: str, size: str, threads: str, layout: str) -> float:
    """What `child` runs: the peak of this process in MiB."""
    torch.set_num_threads(int(threads))
    about = WAYS["cpu"][way]
    net = checkpoint.load(Path(folder, WEIGHTS)).net.eval() if about.runs_net else None
    images, arm = scenes(1, *parse_sizes(size)[0]), subject(Path(folder), border, net)
    x = preprocess(images, arm.metadata.mean)
    contender = about.make(Task(arm, images, x, torch.device("cpu"), int(threads), layout))
    for _ in range(2):
        contender.run()
    return peak_mib()


def _number(program: str, *words: str) -> int:
    """What a Python program prints last, from the project's folder."""
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return round(float(done.stdout.splitlines()[-1]))


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
            peak = row.get("peak_mib") or "-"
            times = " ".join(f"{row[key]:9.1f}" for key in ("median_ms", "p90_ms", "least_ms"))
            lines.append(
                f"{row['name']:<{wide}} {times}    {gains:>6} {peak:>6} {row['equal_labels']:9.4%}  "
                f"{row['backend']}, {row['provider']}, {row['precision']}; {row['settings']}"
            )
    if memory := figures.get("memory"):
        lines.append(f"\nMiB: the peak of a process with this contender alone; without any {memory['idle_mib']}")
    absent = {name: why for at in figures["cases"] for name, why in at["absent"].items()}
    return "\n".join([*lines, *(f"{name} is absent: {why}" for name, why in absent.items())])


if __name__ == "__main__":
    sys.exit(main())
