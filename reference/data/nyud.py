"""NYUDv2, 40 classes of indoor scenes in colour, depth and HHA, in the layout of the authors' nyud.tar.gz.

    nyud/{train,val,trainval,test}.txt         one image number a line
    nyud/data/images/img_NUMBER.png            colour
    nyud/data/hha/img_NUMBER.png               HHA (Gupta et al., ECCV 2014)
    nyud/data/depth/img_NUMBER.png             depth, filled in
    nyud/segmentation/img_NUMBER.mat           `segmentation`: 0 for void, 1 to 40

Read as their nyud_layers.py reads it (data/nyud/README.md names the archive). This reader has met files made after
that code only, never the archive itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcn.classes import BGR, RGB
from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import preprocess, read_depth, read_image, voc_palette
from reference.data.dataset import INPUT, LABEL, Entry, Files, float32, list_file, read_list
from reference.data.matlab import read_ids

CLASSES = (  # the authors' data/nyud/classes.txt
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture"),
    "otherprop",
)
COLOR_MEAN = float32(116.190, 97.203, 92.318)  # BGR
HHA_MEAN = float32(132.431, 94.076, 118.477)  # in the order of the file's channels
LOG_DEPTH_MEAN = np.float32(7.844)
FOLDERS = {"color": "images", "hha": "hha", "depth": "depth"}


class Nyud(Files):
    """NYUDv2 samples. split: train, val, trainval, test, or the path of a list file.

    modalities: which of color, hha and depth. Of one alone the net's input is `data`; of several each bears the name
    of its modality, as in the authors' net.py.
    """

    name = "nyud"
    classes = CLASSES
    palette = voc_palette()[: len(CLASSES)]

    def __init__(self, folder: Path, split: str, modalities: Sequence[str]) -> None:
        folder = Path(folder)
        for part in ("segmentation", *(f"data/{FOLDERS[modality]}" for modality in modalities)):
            existing(folder / part, "folder", "give the folder of nyud.tar.gz that holds data/ and segmentation/")
        self.mean, self.channel_order = (HHA_MEAN, RGB) if modalities[0] == "hha" else (COLOR_MEAN, BGR)
        self.modalities = dict(zip(modalities if len(modalities) > 1 else (INPUT,), modalities, strict=True))
        path = list_file(folder, split)
        hint = "give a split of NYUDv2: train, val, trainval, test, or a list (*.txt)"
        # The authors' repository lists train and val alone: where there is no trainval.txt, their order is ours.
        parts = ("train", "val") if split == "trainval" and not path.exists() else (split,)
        numbers = [number for part in parts for number in read_list(list_file(folder, part), hint)]
        super().__init__(
            [
                Entry(
                    {name: folder / f"data/{FOLDERS[kind]}/img_{number}.png" for name, kind in self.modalities.items()},
                    {LABEL: folder / f"segmentation/img_{number}.mat"},
                )
                for number in numbers
            ],
            f"{path.name} lists it: fetch nyud again, or mend the list",
        )

    def read_input(self, name: str, path: Path) -> np.ndarray:
        """H x W x 3 uint8, the channels as in the file; depth H x W, all above zero."""
        if self.modalities[name] != "depth":
            return read_image(path)
        depth = read_depth(path)
        if depth.min() <= 0:
            raise BadInput(f"{path}: holds depth 0, which has no logarithm; give the depth that has been filled in")
        return depth

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8: 0 to 39, and 255 for void, which 0 becomes as the authors subtract 1 in uint8."""
        return read_ids(path, "segmentation").astype(np.uint8) - np.uint8(1)

    def prepare(self, name: str, images: Sequence[np.ndarray]) -> np.ndarray:
        """Colour: BGR minus mean. HHA: minus mean, the channels not swapped. Depth: natural logarithm minus mean."""
        match self.modalities[name]:
            case "color":
                return preprocess(images, COLOR_MEAN)
            case "hha":
                return preprocess(images, HHA_MEAN, RGB)
            case _:
                return np.log(np.stack(images)[:, None].astype(np.float32)) - LOG_DEPTH_MEAN
