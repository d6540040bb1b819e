"""CamVid with 11 classes, in the layout of SegNet's public copy.

    CamVid/{train,val,test}.txt
    CamVid/{train,val,test}/NAME.png         the image (.jpg is read too)
    CamVid/{train,val,test}annot/NAME.png    ids 0 to 10, and 11 for void, which becomes 255 here

A line of a list is a bare name, or a pair of paths on SegNet's authors' machine, of which the last two parts
count: `/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png;`
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import VOID, read_label
from reference.data.dataset import Entry, Files, list_file, read_list
from reference.data.voc import MEAN

UNLABELLED = 11


class CamVid(Files):
    """CamVid pairs. split: train, val, test, or the path of a list file of path pairs."""

    name = "camvid"
    classes = (
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence"),
        *("car", "pedestrian", "bicyclist"),
    )
    palette = np.array(  # CamVid's label_colors.txt
        (
            *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0)),
            *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
        ),
        np.uint8,
    )
    mean = MEAN  # ImageNet's, which the trunk was trained with: the paper has no CamVid

    def __init__(self, folder: Path, split: str) -> None:
        folder = existing(folder, "folder", "give the folder that holds train/ and trainannot/")
        path = list_file(folder, split)
        lines = read_list(path, "give a split of CamVid: train, val, test, or a list file (*.txt)")
        super().__init__(
            [_pair(folder, path, line) for line in lines],
            f"{path.name} lists it: fetch CamVid again, or mend the list",
        )

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8: 0 to 10, and 255 for void."""
        label = read_label(path)
        label[label == UNLABELLED] = VOID
        return label


def _pair(folder: Path, path: Path, line: str) -> Entry:
    words = line.rstrip("; ").split()
    if len(words) == 2:
        image, label = (Path(folder, *PurePosixPath(word).parts[-2:]) for word in words)
        return Entry.pair(image, label)
    if len(words) != 1:
        raise BadInput(f"{path}: cannot read the line {line!r}; give a name, or an image and a label path")
    image, jpeg = (folder / path.stem / f"{words[0]}{suffix}" for suffix in (".png", ".jpg"))
    with suppress(OSError, ValueError):  # a name that no file system takes: `Files` says so
        if not image.exists() and jpeg.exists():
            image = jpeg
    return Entry.pair(image, folder / f"{path.stem}annot" / f"{words[0]}.png")
