"""PASCAL VOC 2011 and 2012 segmentation, in the layout of the VOC devkit.

    VOC2011/ImageSets/Segmentation/{train,val,trainval}.txt    one image name a line
    VOC2011/JPEGImages/NAME.jpg
    VOC2011/SegmentationClass/NAME.png                         ids 0 to 20, and 255 for void

The paper validates on `seg11valid`: the 736 images of VOC 2011 val that are not in SBD's train list, on
which the nets are trained (the authors' data/pascal/README.md; their seg11valid.txt works as it is).
"""

from __future__ import annotations

from pathlib import Path

from fcn.files import existing
from fcn.images import voc_palette
from reference.data.dataset import Entry, Files, NoSplit, list_file, read_list

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
MEAN = (104.00699, 116.66877, 122.67892)  # BGR of ImageNet's training images (the authors' voc_layers.py)
SEG11VALID = 736  # images
LISTS = Path("ImageSets", "Segmentation")


class Voc(Files):
    """VOC pairs. split: a list in ImageSets/Segmentation, the path of a list file, or `seg11valid`.

    Where there is no seg11valid.txt it is derived from VOC 2011's val.txt and SBD's train.txt in `sbd`.
    """

    name = "voc"
    classes = CLASSES
    palette = voc_palette()[: len(CLASSES)]
    mean = MEAN

    def __init__(self, folder: Path, split: str, sbd: Path | None = None) -> None:
        folder = Path(folder)
        existing(folder / "JPEGImages", "folder", "give the VOC2011 or VOC2012 folder of VOCdevkit")
        path = list_file(folder / LISTS, split)
        if split == "seg11valid" and not path.exists():
            names = seg11valid(folder, sbd)
        else:
            names = read_list(path, "give a split of VOC: train, val, trainval, or a list file (*.txt)")
        images, labels = folder / "JPEGImages", folder / "SegmentationClass"
        super().__init__(
            [Entry.pair(images / f"{name}.jpg", labels / f"{name}.png") for name in names],
            f"{path.name} lists it: fetch VOC again, or mend the list",
        )


def seg11valid(folder: Path, sbd: Path | None) -> list[str]:
    """VOC 2011's val without SBD's train, in VOC's order. Raises NoSplit unless the paper's 736 come out."""
    if sbd is None:
        raise NoSplit(
            f"{folder}: ImageSets/Segmentation has no seg11valid.txt; put the authors' file there, "
            "or give SBD's folder too, to derive it"
        )
    taken = set(read_list(Path(sbd) / "train.txt", "give SBD's folder `dataset`"))
    lists = Path(folder) / LISTS
    names = [name for name in read_list(lists / "val.txt", "fetch VOC 2011 again") if name not in taken]
    if len(names) != SEG11VALID:
        raise NoSplit(
            f"{lists / 'val.txt'}: {len(names)} images are left without SBD's train.txt, but seg11valid has "
            f"{SEG11VALID}; give VOC 2011 (not 2012) and SBD's own train.txt"
        )
    return names
