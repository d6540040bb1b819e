"""SBD, the Semantic Boundaries Dataset: 8,498 training images with VOC's classes (Hariharan et al. 2011).

    dataset/{train,val}.txt      one image name a line
    dataset/img/NAME.jpg
    dataset/cls/NAME.mat         struct GTcls, whose Segmentation holds the ids; there is no void border

The authors train on its train list (data/pascal/README.md) and read labels as `SBDDSegDataLayer` does.
This reader has met files made after SBD's README only, never benchmark.tgz itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcn.files import existing
from fcn.images import voc_palette
from reference.data.dataset import Entry, Files, list_file, read_list
from reference.data.matlab import read_ids
from reference.data.voc import CLASSES, MEAN


class Sbd(Files):
    """SBD pairs. split: train, val, or the path of a list file."""

    name = "sbd"
    classes = CLASSES
    palette = voc_palette()[: len(CLASSES)]
    mean = MEAN

    def __init__(self, folder: Path, split: str) -> None:
        folder = Path(folder)
        for part in ("img", "cls"):
            existing(folder / part, "folder", "give SBD's folder `dataset` (in benchmark_RELEASE)")
        path = list_file(folder, split)
        names = read_list(path, "give a split of SBD: train, val, or a list file (*.txt)")
        super().__init__(
            [Entry.pair(folder / "img" / f"{name}.jpg", folder / "cls" / f"{name}.mat") for name in names],
            f"{path.name} lists it: fetch SBD again, or mend the list",
        )

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8. Raises BadInput for a broken file and for one of another kind."""
        return read_ids(path, "GTcls", "Segmentation").astype(np.uint8)
