"""SIFT Flow: outdoor scenes of 256x256 with two labels, 33 semantic and 3 geometric classes (Tighe and Lazebnik 2010).

    sift-flow/{trainval,test}.txt            one image name a line: the authors' lists (their data/sift-flow)
    sift-flow/Images/SCENES/NAME.jpg
    sift-flow/SemanticLabels/SCENES/NAME.mat   `S`: 0 for void, 1 to 33
    sift-flow/GeoLabels/SCENES/NAME.mat        `S`: -1 for void, 1 to 3

where SCENES is spatial_envelope_256x256_static_8outdoorcategories. Read as the authors' siftflow_layers.py reads it.
This reader has met files made after that code only, never SiftFlowDataset.zip itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fcn.files import existing
from fcn.images import voc_palette
from reference.data.dataset import INPUT, Entry, Files, float32, list_file, read_list
from reference.data.matlab import read_ids

SEMANTIC = (  # the authors' data/sift-flow/classes.txt
    *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door"),
    *("fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand"),
    *("sea", "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
)
GEOMETRIC = ("sky", "horizontal", "vertical")
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
FOLDERS = {"sem": "SemanticLabels", "geo": "GeoLabels"}


class SiftFlow(Files):
    """SIFT Flow samples with the labels `sem` and `geo`. split: trainval, test, or the path of a list file.

    Cow, desert and moon have no pixel in test: the paper's means leave them out (classes.txt).
    """

    name = "siftflow"
    classes = SEMANTIC
    palette = voc_palette()[: len(SEMANTIC)]
    mean = float32(114.578, 115.294, 108.353)
    labelled_only = True

    def __init__(self, folder: Path, split: str) -> None:
        folder = Path(folder)
        for part in ("Images", *FOLDERS.values()):
            existing(folder / part / SCENES, "folder", "give the folder of SiftFlowDataset.zip that holds Images/")
        path = list_file(folder, split)
        super().__init__(
            [
                Entry(
                    {INPUT: folder / "Images" / SCENES / f"{name}.jpg"},
                    {task: folder / part / SCENES / f"{name}.mat" for task, part in FOLDERS.items()},
                )
                for name in read_list(path, "put the authors' trainval.txt and test.txt there, or give a list (*.txt)")
            ],
            f"{path.name} lists it: fetch siftflow again, or mend the list",
        )

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        return {"sem": SEMANTIC, "geo": GEOMETRIC}

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8, classes from 0; void becomes 255, as the authors set -1 to 0 and subtract 1 in uint8."""
        ids = read_ids(path, "S", lowest=-1 if task == "geo" else 0)
        return np.maximum(ids, 0).astype(np.uint8) - np.uint8(1)
