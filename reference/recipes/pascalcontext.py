"""PASCAL-Context's 59 classes and background: trained on VOC 2010's train, 4,998 images, scored on val, 5,105.

The authors' pascalcontext-fcn* folders; iterations as their solve.py ran them, 50 times 8,000.
"""

from __future__ import annotations

from reference.recipes.recipe import Figures, Recipe, online
from reference.recipes.voc import PAMI


def _recipe(stride: int, start: str, base_lr: float, *figures: float) -> Recipe:
    name, published = f"pascalcontext-fcn{stride}s", (Figures(PAMI, *figures, certain=False),)
    splits = ("train", "val")
    return online(name, "pascalcontext", splits, base_lr, 400_000, 8000, start=start, published=published)


RECIPES = (
    _recipe(32, "vgg16", 1e-10, 65.5, 49.1, 36.7, 50.9),
    _recipe(16, "pascalcontext-fcn32s", 1e-12, 66.9, 51.3, 38.4, 52.3),
    _recipe(8, "pascalcontext-fcn16s", 1e-14, 67.5, 52.3, 39.1, 53.0),
)
