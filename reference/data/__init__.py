"""Data sets of images and label maps, one file each."""

from __future__ import annotations

from pathlib import Path

from fcn.cli import BadInput
from reference.data.camvid import CamVid
from reference.data.dataset import INPUT, LABEL, Dataset, Files, Mean, Sample
from reference.data.nyud import Nyud
from reference.data.order import AuthorsOrder
from reference.data.pascalcontext import PascalContext
from reference.data.sbd import Sbd
from reference.data.shapes import Crops, Shapes
from reference.data.siftflow import SiftFlow
from reference.data.voc import Voc

# NYUDv2 in the modalities of the authors' four nets; `nyud` has all three, for a check of the files.
NYUD = {
    "nyud-color": ("color",),
    "nyud-hha": ("hha",),
    "nyud-color-d": ("color", "depth"),
    "nyud-color-hha": ("color", "hha"),
    "nyud": ("color", "hha", "depth"),
}
NAMES = ("voc", "sbd", *NYUD, "siftflow", "pascalcontext", "camvid", "shapes", "shapes-crops")

__all__ = ["INPUT", "LABEL", "NAMES", "AuthorsOrder", "Dataset", "Mean", "Sample", "open_dataset", "open_files"]


def open_dataset(name: str, folder: Path | None, split: str, second: Path | None = None) -> Dataset:
    """The data set `name` (one of NAMES) in `folder`, which the embedded shapes does without; all its files are there.

    `split` names a list of the data set, or is the path of a list file of one's own (*.txt). second: a folder that
    some need too: SBD's, from which voc's `seg11valid` can be derived; VOC2010's for pascalcontext.
    Raises BadInput for whatever is missing.
    """
    if name not in NAMES:
        raise BadInput(f"no data set {name!r}; there are {', '.join(NAMES)}")
    if name in ("shapes", "shapes-crops"):
        return Shapes(split) if name == "shapes" else Crops(split)
    if folder is None:
        raise BadInput(f"the data set {name} is read from disk: give its folder")
    data = open_files(name, folder, split, second)
    data.require()
    return data


def open_files(name: str, folder: Path, split: str, second: Path | None = None) -> Files:
    """As `open_dataset` for a data set on disk, but for files that its lists name and that are missing."""
    if name == "voc":
        return Voc(folder, split, second)
    if name in NYUD:
        return Nyud(folder, split, NYUD[name])
    if name == "pascalcontext":
        if second is None:
            raise BadInput("pascalcontext labels the images of VOC 2010: give its folder too")
        return PascalContext(folder, split, second)
    return {"sbd": Sbd, "siftflow": SiftFlow, "camvid": CamVid}[name](folder, split)
