"""PASCAL-Context: VOC 2010 with every pixel labelled; 59 common classes and background (Mottaghi et al., CVPR 2014).

    pascal-context/trainval/NAME.mat             `LabelMap`: ids of labels.txt
    pascal-context/labels.txt                    `ID: name`, 459 of them
    VOC2010/JPEGImages/NAME.jpg
    VOC2010/ImageSets/Main/{train,val}.txt       one image name a line

Read as the authors' pascalcontext_layers.py reads it. This reader has met files made after that code only, never the
archive of www.cs.stanford.edu/~roozbeh/pascal-context itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import voc_palette
from reference.data.dataset import Entry, Files, float32, list_file, read_list
from reference.data.matlab import read_ids
from reference.data.voc import CLASSES as VOC_CLASSES

CLASSES = (  # the authors' data/pascal-context/classes-59.txt
    *VOC_CLASSES,
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
# What three of them are called in labels.txt.
NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


class PascalContext(Files):
    """PASCAL-Context pairs; every pixel that is none of the 59 classes is background, none is void.

    folder: of the labels. voc: VOC2010, with the images. split: a list in its ImageSets/Main, or the path of a list.
    """

    name = "pascalcontext"
    classes = CLASSES
    palette = voc_palette()[: len(CLASSES)]
    mean = float32(104.007, 116.669, 122.679)

    def __init__(self, folder: Path, split: str, voc: Path) -> None:
        labels = existing(Path(folder) / "trainval", "folder", "give the folder of trainval.tar.gz")
        images = existing(Path(voc) / "JPEGImages", "folder", "give the VOC2010 folder of VOCdevkit")
        self.table = table(Path(folder) / "labels.txt")
        path = list_file(Path(voc) / "ImageSets" / "Main", split)
        names = read_list(path, "give a split of VOC 2010: train, val, trainval, or a list file (*.txt)")
        super().__init__(
            [Entry.pair(images / f"{name}.jpg", labels / f"{name}.mat") for name in names],
            f"{path.name} lists it: fetch pascalcontext again, or mend the list",
        )

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8: 0 (background) to 59."""
        return self.table[read_ids(path, "LabelMap", highest=len(self.table) - 1)]


def table(path: Path) -> np.ndarray:
    """uint8, the class of every id in labels.txt. Raises BadInput for a list that does not hold all 59."""
    lines = read_list(path, "fetch pascalcontext again: trainval.tar.gz holds it")
    names = [line.partition(":")[2].replace(" ", "") for line in lines]
    numbered = [line.partition(":")[0] for line in lines] == [str(i) for i in range(1, len(lines) + 1)]
    if not numbered or len(lines) > 1000:
        raise BadInput(f"{path}: its lines are not `1: name`, `2: name` and so on to 459; fetch pascalcontext again")
    wanted = [NAMES.get(name, name) for name in CLASSES[1:]]
    if missing := set(wanted) - set(names):
        raise BadInput(f"{path}: holds no {min(missing)}; fetch pascalcontext again")
    table = np.zeros(1 + len(names), np.uint8)
    for index, name in enumerate(wanted, start=1):
        table[1 + names.index(name)] = index
    return table
