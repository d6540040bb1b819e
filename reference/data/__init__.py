"""Data sets of images and label maps, one file each."""

from __future__ import annotations

from pathlib import Path

from fcn.cli import BadInput
from reference.data.camvid import CamVid
from reference.data.dataset import Dataset, Mean, Sample
from reference.data.order import AuthorsOrder
from reference.data.sbd import Sbd
from reference.data.shapes import Crops, Shapes
from reference.data.voc import Voc

NAMES = ("voc", "sbd", "camvid", "shapes", "shapes-crops")

__all__ = ["NAMES", "AuthorsOrder", "Dataset", "Mean", "Sample", "open_dataset"]


def open_dataset(name: str, folder: Path | None, split: str, sbd: Path | None = None) -> Dataset:
    """The data set `name` (one of NAMES) in `folder`, which the embedded shapes does without.

    `split` names a list of the data set, or is the path of a list file of one's own (*.txt). `sbd` is the
    folder of SBD, from which voc's `seg11valid` can be derived. Raises BadInput for whatever is missing.
    """
    if name not in NAMES:
        raise BadInput(f"no data set {name!r}; there are {', '.join(NAMES)}")
    if name in ("shapes", "shapes-crops"):
        return Shapes(split) if name == "shapes" else Crops(split)
    if folder is None:
        raise BadInput(f"the data set {name} is read from disk: give its folder")
    if name == "voc":
        return Voc(folder, split, sbd)
    return {"sbd": Sbd, "camvid": CamVid}[name](folder, split)
