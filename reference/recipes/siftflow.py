"""SIFT Flow: semantic and geometric classes at once (the authors' siftflow-fcn* folders).

Trained on the 2,486 images of trainval, scored on the 200 of test; iterations as their solve.py ran them, 50 times
2,000.
"""

from __future__ import annotations

from reference.recipes.recipe import Figures, Recipe, online
from reference.recipes.voc import PAMI


def _recipe(stride: int, start: str, base_lr: float, *published: Figures) -> Recipe:
    name, splits = f"siftflow-fcn{stride}s", ("trainval", "test")
    return online(name, "siftflow", splits, base_lr, 100_000, 2000, start=start, published=published)


RECIPES = (
    _recipe(32, "vgg16", 1e-10),
    _recipe(
        *(16, "siftflow-fcn32s", 1e-12),
        Figures("CVPR 2015, table 5: another training", 85.2, 51.7, 39.5, 76.1, 94.3),
    ),
    _recipe(8, "siftflow-fcn16s", 1e-12, Figures(PAMI, 85.9, 53.9, 41.2, 77.2, 94.6, certain=False)),
)
