"""Many images of mixed sizes from several threads at once through one Segmenter, as a service would run it.

Every label map must be the one that a single thread gets, and memory must stay flat: that of this process, and that of
the card where the model runs on one. Exit code 1 where either fails. Writes OUT, a JSON file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.subject import scenes
from fcn.cli import BadInput, command, parser
from fcn.files import sha256, write_json
from fcn.record import record
from runtime.ort import CPU, PROVIDERS
from runtime.segmenter import Segmenter

FAILED = 1
"""The exit code where labels differ or memory grows."""
DIFFERENT = 24  # pictures, each of a size of its own
BLOCKS = 20  # that the run is cut in: memory is read in between, where nobody runs
# What the last quarter of the run may hold more than the first: of 1,000 images 22 KiB each, a ninth of one label map
# of 375x500. On a CPU 2 MiB were seen.
GROWTH_MIB = 16.0


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("soak.py", __doc__ or "", "python benchmarks/soak.py voc-fcn8s.onnx voc-fcn8s.engine")
    args.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=".onnx files and engines")
    args.add_argument("--images", type=int, default=1000, help="of each model")
    args.add_argument("--callers", type=int, default=4, help="threads")
    args.add_argument("--largest", type=int, default=500, metavar="PIXELS", help="sides are of half of it to all of it")
    args.add_argument("--provider", choices=PROVIDERS, default="auto", help="of ONNX Runtime")
    args.add_argument("--threads", type=int, help="CPU threads of ONNX Runtime; not given: one a core")
    args.add_argument("--out", type=Path, default=Path("out/soak.json"), metavar="FILE", help="where the figures go")
    options = args.parse_args(argv)
    for name, least in (("images", BLOCKS), ("callers", 1), ("largest", 2)):
        if getattr(options, name) < least:
            raise BadInput(f"--{name} {getattr(options, name)}: give {least} or more")
    done = []
    for path in options.models:
        with Segmenter.open(path, options.provider, options.threads) as segmenter:
            about = {"model": path.name, "sha256": sha256(path), "backend": segmenter.backend}
            print(f"{path}: {segmenter.backend} ...", flush=True)
            card = card_mib if CPU not in segmenter.backend else None
            done.append({**about, **soak(segmenter, options.images, options.callers, options.largest, card)})
            print(line(done[-1]))
    write_json(options.out, record(growth_mib_allowed=GROWTH_MIB, models=done))
    print(options.out)
    return 0 if all(each["passed"] for each in done) else FAILED


def soak(
    segment: Callable[[np.ndarray], np.ndarray],
    images: int,
    callers: int,
    largest: int,
    card: Callable[[], float | None] | None = None,
) -> dict[str, Any]:
    """Run `images` pictures from `callers` threads. segment: H x W x 3 uint8 -> H x W labels.

    card: reads the card's memory in MiB (None: cannot be read); without it the model runs on none.
    """
    random = np.random.default_rng(0)
    sides = random.integers(largest - largest // 2, largest, (DIFFERENT, 2), endpoint=True).tolist()
    pictures = [scenes(1, height, width)[0] for height, width in sides]
    alone = [segment(picture) for picture in pictures]
    order = random.integers(0, DIFFERENT, images).tolist()

    def differs(index: int) -> bool:
        return not np.array_equal(segment(pictures[index]), alone[index])

    memory: dict[str, list[float | None]] = {"process": [], "card": []}
    different = 0
    with ThreadPoolExecutor(callers) as threads:
        for index in np.argsort([-picture.size for picture in pictures]):  # the most that is needed at once, at once
            list(threads.map(differs, [index] * callers))
        start = time.perf_counter()
        for block in tqdm(np.array_split(order, BLOCKS), desc="soak", unit="block", disable=None, leave=False):
            different += sum(threads.map(differs, block.tolist()))
            memory["process"].append(process_mib())
            if card:
                memory["card"].append(card())
    seconds = time.perf_counter() - start
    growths = {what: growth(values) for what, values in memory.items()}
    return {
        "images": images,
        "callers": callers,
        "sizes": ["x".join(map(str, side)) for side in sides],
        "images_per_s": round(images / seconds, 2),
        "images_with_other_labels": different,
        "memory_mib": memory,
        "growth_mib": growths,
        "passed": not different and all(value is None or value <= GROWTH_MIB for value in growths.values()),
    }


def growth(values: Sequence[float | None]) -> float | None:
    """Median of the last quarter less that of the first; None where nothing could be read."""
    known = [value for value in values if value is not None]
    quarter = len(known) // 4
    if not quarter:
        return None
    return round(float(np.median(known[-quarter:]) - np.median(known[:quarter])), 1)


def process_mib() -> float | None:
    """What this process holds in memory; None where the system does not tell (Linux does)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def card_mib() -> float | None:
    """What all processes hold on the card, by nvidia-smi (in a container it cannot tell them apart)."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = ["nvidia-smi", f"--id={card}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # Jetson has none, or says [N/A]
        return None


def line(figures: dict[str, Any]) -> str:
    """One model's figures as text."""
    grown = ", ".join(
        f"{what} unread" if figures["growth_mib"][what] is None else f"{what} {figures['growth_mib'][what]:+g} MiB"
        for what, values in figures["memory_mib"].items()
        if values
    )
    return (
        f"{'passed' if figures['passed'] else 'FAILED'}: {figures['images']} images from {figures['callers']} threads, "
        f"{figures['images_per_s']:g} a second; {figures['images_with_other_labels']} with other labels than of one "
        f"thread; memory from the first to the last quarter of the run: {grown} (allowed: {GROWTH_MIB:g})"
    )


if __name__ == "__main__":
    sys.exit(main())
