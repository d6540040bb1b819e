"""Label maps of images and folders of images, from a deployed model file.

Each image gives OUT/<name>.png: a palette PNG, whose pixels hold the class ids and show their colours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fcn import cli
from fcn.cli import BadInput
from fcn.files import atomic
from fcn.images import overlay, read_image, write_image, write_label
from runtime.segmenter import SIDE, Progress, Segmenter, labels, softmax

SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
AHEAD = 4  # images that wait decoded, and results that wait unwritten: the net stays busy, memory bounded


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes."""

    image: Path
    label: Path
    overlay: Path | None
    probabilities: Path | None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(
        "segment.py",
        "Label maps of images, from a deployed model file. Each image gives DIR/<name>.png: a palette PNG,\n"
        "whose pixels hold the class ids. A broken image is named and skipped (exit code 2).",
        "python runtime/segment.py voc-fcn8s.onnx photo.jpg photos/ --out labels --overlay",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .onnx file of export/to_onnx.py, or an engine")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGES", help="image files, and folders (all images in them)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="also write <name>_overlay.png: the classes' colours over the image",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write <name>_probabilities.npy: K x H x W float32 (from models exported with --io scores)",
    )
    parser.add_argument(
        "--provider",
        metavar="{auto,cpu,cuda}",
        default="auto",
        help="auto: CUDA where it loads, else the CPU",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; not given: one a core")
    parser.add_argument(
        "--fallback",
        type=Path,
        metavar="ONNX",
        help="the .onnx file an engine was built from: ONNX Runtime then runs images outside the engine's profiles",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="longest side of what is run at once; larger images are run in tiles, to the same labels (default: "
        f"{SIDE}; of an engine: its profiles')",
    )
    return parser.parse_args(argv)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    jobs = plan(find(args.images), args.out, args.overlay, args.probabilities)
    with Segmenter.open(args.model, args.provider, args.threads, args.fallback, args.tile) as segmenter:
        if args.probabilities:
            segmenter.require_scores()
        start = time.perf_counter()
        pixels, done = run(segmenter, jobs)
        seconds = time.perf_counter() - start
        print(f"{done} images, {done / seconds:.2f} images/s, {segmenter.backend}")
        if done:
            print(shares(pixels, segmenter.metadata.classes))
    if done < len(jobs):
        raise BadInput(f"{len(jobs) - done} of {len(jobs)} images were skipped; mend or remove those named above")
    return 0


def find(paths: Iterable[Path]) -> list[Path]:
    """The images, each once: files as given, folders as the sorted image files in them but hidden ones.

    Raises BadInput for a folder without images.
    """
    images: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not inside:
                raise BadInput(f"{path}: no images in this folder ({' '.join(SUFFIXES)})")
            images += inside
        else:
            images.append(path)
    return list({image.absolute(): image for image in images}.values())


def plan(images: Sequence[Path], out: Path, with_overlay: bool, with_probabilities: bool) -> list[Job]:
    """What each image becomes. Raises BadInput where a result would overwrite another one, or an image."""
    jobs = []
    sources = {_identity(image): image for image in images}
    results: dict[str, Path] = {}
    for image in images:
        job = Job(
            image,
            out / f"{image.stem}.png",
            out / f"{image.stem}_overlay.png" if with_overlay else None,
            out / f"{image.stem}_probabilities.npy" if with_probabilities else None,
        )
        for path in filter(None, (job.label, job.overlay, job.probabilities)):
            if source := sources.get(_identity(path)):
                raise BadInput(
                    f"{path}: the result of {image} would overwrite the image {source}; choose another --out"
                )
            other = results.setdefault(_identity(path), image)
            if other is not image:
                raise BadInput(f"{other} and {image} would both become {path}; rename one or use two --out folders")
        jobs.append(job)
    return jobs


def run(segmenter: Segmenter, jobs: Sequence[Job]) -> tuple[np.ndarray, int]:
    """Segment and write every job: the number of pixels of each id (256), and the number of images done.

    Decoding goes ahead in one thread and writing follows in another. (One each: `read_image` sets a warnings
    filter and `atomic` asks for the umask, and both belong to the whole process.) A broken image is named on
    standard error and skipped. Raises BadInput where a result cannot be written.
    """
    palette = np.array(segmenter.metadata.palette, np.uint8)
    pixels, done = np.zeros(256, np.int64), 0
    unwritten: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as writer, tqdm(total=len(jobs), unit="image", disable=None) as bar:
        for job, decoding in decode(jobs):
            try:
                image = decoding.result()
                progress = partial(tqdm, desc=job.image.name, unit="tile", leave=False, disable=None)
                label, probabilities = infer(segmenter, image, job.probabilities is not None, progress)
            except (BadInput, MemoryError) as problem:
                reason = " ".join(str(problem).split()).removeprefix(f"{job.image}: ") or "not enough memory"
                tqdm.write(f"skipped {job.image}: {reason}", file=sys.stderr)
            else:
                for row in label:  # one by one: bincount makes int64 of them
                    pixels += np.bincount(row, minlength=256)
                done += 1
                unwritten.append(writer.submit(write, job, image, label, probabilities, palette))
            while unwritten and (unwritten[0].done() or len(unwritten) > AHEAD):
                unwritten.popleft().result()
            bar.update()
        for written in unwritten:
            written.result()
    return pixels, done


def decode(jobs: Iterable[Job]) -> Iterator[tuple[Job, Future[np.ndarray]]]:
    """Each job with its image on the way: H x W x 3 uint8 RGB. At most AHEAD images wait to be taken."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[tuple[Job, Future[np.ndarray]]] = deque()
        for job in jobs:
            waiting.append((job, reader.submit(read_image, job.image)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def infer(
    segmenter: Segmenter, image: np.ndarray, scored: bool, progress: Progress
) -> tuple[np.ndarray, np.ndarray | None]:
    """H x W uint8 ids, and if `scored` K x H x W float32 probabilities, of one run of the net."""
    if not scored:
        return segmenter(image, progress), None
    scores = segmenter.scores(image, progress)
    return labels(scores), softmax(scores)


def write(
    job: Job, image: np.ndarray, label: np.ndarray, probabilities: np.ndarray | None, palette: np.ndarray
) -> None:
    """Write the job's files, each whole or not at all."""
    write_label(job.label, label, palette)
    if job.overlay:
        write_image(job.overlay, overlay(image, label, palette))
    if job.probabilities and probabilities is not None:
        with atomic(job.probabilities) as temporary:
            np.save(temporary, probabilities)


def shares(pixels: np.ndarray, classes: Sequence[str]) -> str:
    """ "background 74.3 %, person 20.1 %": the classes' shares of all pixels, the largest first."""
    present = [(count, name) for count, name in zip(pixels, classes, strict=False) if count]
    return ", ".join(f"{name} {100 * count / pixels.sum():.1f} %" for count, name in sorted(present, reverse=True))


def _identity(path: Path) -> str:
    """One text for all names of one file."""
    return os.path.normcase(os.path.realpath(path))


if __name__ == "__main__":
    sys.exit(main())
