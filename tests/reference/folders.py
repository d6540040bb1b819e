"""Small data sets on disk, in the layouts that the originals are documented to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from fcn.images import voc_palette, write_image, write_label
from reference.data.pascalcontext import CLASSES, NAMES
from reference.data.siftflow import SCENES

HEIGHT, WIDTH = 20, 31
VOC_NAMES = ("2007_000032", "2007_000039", "2007_000063")
CAMVID_NAMES = ("0001TP_006690", "0001TP_006720")
# As the authors' lists begin; the last is of the test split.
NYUD_NUMBERS = ("5449", "6140", "5902", "5133")
SIFTFLOW_NAMES = ("forest_for121", "tallbuilding_a812069", "coast_natu975")
CONTEXT_NAMES = ("2008_000002", "2008_000003", "2008_000007")
CONTEXT_IDS = {"aeroplane": 2, "table": 397, "bedclothes": 19, "cloth": 80, "accordion": 1, "wool": 459, "wood": 458}


def image(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """H x W x 3 uint8 noise."""
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def label(seed: int, classes: int) -> np.ndarray:
    """H x W uint8 noise below `classes`, the first row void."""
    found = np.random.RandomState(seed).randint(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)
    found[0] = 255
    return found


def whole(seed: int, lowest: int, highest: int) -> np.ndarray:
    """H x W int noise from `lowest` to `highest`, both among them."""
    found = np.random.RandomState(seed).randint(lowest, highest + 1, (HEIGHT, WIDTH))
    found[0, :2] = lowest, highest
    return found


def write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def voc(folder: Path) -> Path:
    """The VOC devkit's layout (VOC2011 development kit documentation, section on segmentation)."""
    write_lines(folder / "ImageSets" / "Segmentation" / "val.txt", VOC_NAMES)
    for seed, name in enumerate(VOC_NAMES):
        write_image(folder / "JPEGImages" / f"{name}.jpg", image(seed))
        write_label(folder / "SegmentationClass" / f"{name}.png", label(seed, 21), voc_palette())
    return folder


def sbd(folder: Path) -> Path:
    """SBD's layout; the struct GTcls holds Boundaries, Segmentation and CategoriesPresent (SBD's README)."""
    (folder / "cls").mkdir(parents=True)
    write_lines(folder / "train.txt", ("2008_000002", "2007_000039"))
    for seed, name in enumerate(("2008_000002", "2007_000039")):
        write_image(folder / "img" / f"{name}.jpg", image(seed))
        truth = {"Segmentation": label(seed, 21)[1:].repeat(2, 0)[:HEIGHT], "CategoriesPresent": np.array([[1], [2]])}
        scipy.io.savemat(folder / "cls" / f"{name}.mat", {"GTcls": truth}, do_compression=True)
    return folder


def camvid(folder: Path, pairs: bool) -> Path:
    """Bare names with JPEG images, or SegNet's public copy: PNG images and a list of path pairs of its machine."""
    suffix = ".png" if pairs else ".jpg"
    lines = []
    for seed, name in enumerate(CAMVID_NAMES):
        write_image(folder / "train" / f"{name}{suffix}", image(seed))
        ids = label(seed, 12)
        ids[0] = 11
        write_label(folder / "trainannot" / f"{name}.png", ids, voc_palette())
        lines.append(f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png;" if pairs else name)
    write_lines(folder / "train.txt", (*lines, ""))
    return folder


def nyud(folder: Path) -> Path:
    """The files that the authors' nyud_layers.py opens; depth in millimetres in 16 bits, labels 0 to 40."""
    (folder / "segmentation").mkdir(parents=True)
    (folder / "data" / "depth").mkdir(parents=True)
    write_lines(folder / "trainval.txt", NYUD_NUMBERS[:-1])
    write_lines(folder / "test.txt", NYUD_NUMBERS[-1:])
    for seed, number in enumerate(NYUD_NUMBERS):
        write_image(folder / "data" / "images" / f"img_{number}.png", image(seed))
        write_image(folder / "data" / "hha" / f"img_{number}.png", image(seed + 100))
        depth = np.random.RandomState(seed).randint(700, 9999, (HEIGHT, WIDTH)).astype(np.uint16)
        Image.fromarray(depth).save(folder / "data" / "depth" / f"img_{number}.png")
        scipy.io.savemat(
            folder / "segmentation" / f"img_{number}.mat", {"segmentation": whole(seed, 0, 40).astype(np.uint16)}
        )
    return folder


def siftflow(folder: Path) -> Path:
    """The files that the authors' siftflow_layers.py opens; `S` beside `names`, as LabelMe's toolbox stores them."""
    for part in ("SemanticLabels", "GeoLabels"):
        (folder / part / SCENES).mkdir(parents=True)
    write_lines(folder / "trainval.txt", SIFTFLOW_NAMES[:-1])
    write_lines(folder / "test.txt", SIFTFLOW_NAMES[-1:])
    for seed, name in enumerate(SIFTFLOW_NAMES):
        write_image(folder / "Images" / SCENES / f"{name}.jpg", image(seed))
        names = np.array(["awning", "balcony"], object)
        semantic = {"S": whole(seed, 0, 33).astype(np.float64), "names": names}
        scipy.io.savemat(folder / "SemanticLabels" / SCENES / f"{name}.mat", semantic)
        scipy.io.savemat(folder / "GeoLabels" / SCENES / f"{name}.mat", {"S": whole(seed, -1, 3).astype(np.int8)})
    return folder


def context_names() -> list[str]:
    """459 names, those of CONTEXT_IDS and the other classes' where labels.txt has them or at places of our own."""
    wanted = {NAMES.get(name, name) for name in CLASSES[1:]} - set(CONTEXT_IDS)
    free = iter(sorted(wanted))
    at = {number: name for name, number in CONTEXT_IDS.items()}
    return [at.get(i) or next(free, f"thing {i}") for i in range(1, 460)]


def pascalcontext(folder: Path, voc2010: Path) -> Path:
    """The files that the authors' pascalcontext_layers.py opens; ids in doubles, 459 names in labels.txt."""
    (folder / "trainval").mkdir(parents=True)
    write_lines(folder / "labels.txt", tuple(f"{i}: {name}" for i, name in enumerate(context_names(), start=1)))
    write_lines(voc2010 / "ImageSets" / "Main" / "train.txt", CONTEXT_NAMES[:-1])
    write_lines(voc2010 / "ImageSets" / "Main" / "val.txt", CONTEXT_NAMES[-1:])
    for seed, name in enumerate(CONTEXT_NAMES):
        write_image(voc2010 / "JPEGImages" / f"{name}.jpg", image(seed))
        scipy.io.savemat(folder / "trainval" / f"{name}.mat", {"LabelMap": whole(seed, 1, 459).astype(np.float64)})
    return folder
