"""Every file of a data set, opened and compared with what the data set is known to be.

A problem is what would stop or falsify a run: a file that is missing or broken, images of one sample that differ in
size, ids that are no classes, an image twice in a list or in two splits. A warning is what may be meant so: a split
of another length than the official one, images of another size, a class without a pixel.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fcn.cli import BadInput
from fcn.files import existing
from reference.data import open_files
from reference.data.dataset import Files, NoSplit, Sample
from reference.data.voc import SEG11VALID

# Images of each split, by edition. VOC: the devkits' documentation, host.robots.ox.ac.uk/pascal/VOC (2010's and 2011's
# figures are from memory). SBD: 11,355 in all (its download page), 8,498 to train on (the authors'
# data/pascal/README.md). NYUDv2: the lines of the authors' lists (data/nyud). SIFT Flow: 2,688 images; the authors'
# test.txt has 200 lines, and their lists leave two images without labels out. PASCAL-Context: VOC 2010's lists for
# detection, 10,103 images. CamVid: SegNet's copy.
COUNTS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "voc": {
        "train": {"VOC 2010": 964, "VOC 2011": 1112, "VOC 2012": 1464},
        "val": {"VOC 2010": 964, "VOC 2011": 1111, "VOC 2012": 1449},
        "seg11valid": {"the authors' list": SEG11VALID},
    },
    "sbd": {"train": {"SBD": 8498}, "val": {"SBD": 2857}},
    "nyud": {"trainval": {"NYUDv2": 795}, "test": {"NYUDv2": 654}},
    "siftflow": {"trainval": {"the authors' list": 2486, "SIFT Flow": 2488}, "test": {"SIFT Flow": 200}},
    "pascalcontext": {"train": {"PASCAL-Context": 4998}, "val": {"PASCAL-Context": 5105}},
    "camvid": {"train": {"CamVid": 367}, "val": {"CamVid": 101}, "test": {"CamVid": 233}},
}
# Height and width of all images, where they have one size: SIFT Flow's stands in its folder's name.
SIZES = {"siftflow": (256, 256), "camvid": (360, 480)}
# Classes that no pixel of an official split bears (the authors' data/sift-flow/classes.txt).
ABSENT = {("siftflow", "test"): ["cow", "desert", "moon"]}
# Readers that were written from documentation and the authors' layers, and have never opened an original file.
UNMET = ("sbd", "nyud", "siftflow", "pascalcontext")


@dataclass
class Found:
    """What a split is like: its images, which edition's number that is, and one line a problem or warning."""

    split: str
    images: int = 0
    edition: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(name: str, folder: Path, second: Path | None) -> Iterator[Found]:
    """The splits of data set `name` (of COUNTS), one after the other. Progress bars run on standard error.

    folder, second: as `open_dataset` takes them.
    """
    opened: dict[str, Files] = {}
    for split in COUNTS[name]:
        try:
            data = open_files(name, folder, split, second)
        except NoSplit as missing:
            yield Found(split, warnings=[f"not checked: {missing}"])
            continue
        except BadInput as problem:
            yield Found(split, problems=[str(problem)])
            continue
        found = examine_split(name, split, data)
        for other in opened.keys() - ({"val"} if split == "seg11valid" else set()):
            if shared := sorted(_names(data).keys() & _names(opened[other]).keys()):
                found.problems.append(
                    f"{len(shared)} of its images are in {other} too, {shared[0]} among them; mend a list"
                )
        opened[split] = data
        yield found


def examine_split(name: str, split: str, data: Files) -> Found:
    """All samples of a split, read by several threads: decoders leave Python's lock alone."""
    found = Found(split, len(data))
    counts = COUNTS[name][split]
    found.edition = ", ".join(edition for edition, count in counts.items() if count == len(data))
    if not found.edition:
        known = ", ".join(f"{count} in {edition}" for edition, count in counts.items())
        found.warnings.append(f"{len(data)} images, but {known}: a split of your own, or a part of one?")
    twice = [f"{line} is listed {count} times; list it once" for line, count in _names(data).items() if count > 1]
    found.problems += twice

    seen: dict[str, set[int]] = {task: set() for task in data.tasks}
    odd: list[str] = []

    def examine(index: int) -> list[str]:
        problems, sample = examine_sample(data, index)
        if sample:
            for task, label in sample.labels.items():
                seen[task].update(np.unique(label).tolist())
            if sample.image.shape[:2] != SIZES.get(name, sample.image.shape[:2]):
                odd.append(sample.name)
        return problems

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        every = pool.map(examine, range(len(data)))
        for problems in tqdm(every, f"{name} {split}", len(data), unit="image", disable=None, leave=False):
            found.problems += problems
    finally:
        pool.shutdown(cancel_futures=True)

    if odd:
        height, width = SIZES[name]
        found.warnings.append(f"{len(odd)} of its images are not {width}x{height}, {min(odd)} among them")
    for task, classes in data.tasks.items():
        absent = [label for k, label in enumerate(classes) if k not in seen[task]]
        if absent and absent != ABSENT.get((name, split)):
            found.warnings.append(f"no pixel of {', '.join(absent)}")
    return found


def examine_sample(data: Files, index: int) -> tuple[list[str], Sample | None]:
    """Whatever is wrong with a sample, one line each; the sample, where all its files can be read."""
    problems: list[str] = []

    def read_all(files: Mapping[str, Path], read: Callable[[str, Path], np.ndarray]) -> dict[str, np.ndarray]:
        arrays = {}
        for name, path in files.items():
            try:
                arrays[name] = read(name, existing(path, hint=data.hint))
            except BadInput as problem:
                problems.append(str(problem))
        return arrays

    entry = data.entries[index]
    inputs, labels = read_all(entry.inputs, data.read_input), read_all(entry.labels, data.read_label)
    if problems:
        return problems, None
    sample = Sample(entry.name, inputs, labels)
    return list(data.problems(index, sample)), sample


def _names(data: Files) -> Counter[str]:
    return Counter(entry.name for entry in data.entries)
