"""NYUDv2: trained on the 795 images of trainval, scored on the 654 of test (the authors' nyud-fcn32s-* folders).

Iterations as their solve.py ran them, 50 times 2,000.
"""

from __future__ import annotations

from typing import Any

from reference.recipes.recipe import Figures, Recipe, online
from reference.recipes.voc import PAMI

CVPR = "CVPR 2015, table 4: another training"


def _recipe(kind: str, base_lr: float, pami: tuple[float, ...], cvpr: tuple[float, ...], **more: Any) -> Recipe:
    published = (Figures(PAMI, *pami, certain=False), Figures(CVPR, *cvpr))
    name, splits = f"nyud-fcn32s-{kind}", ("trainval", "test")
    return online(name, f"nyud-{kind}", splits, base_lr, 100_000, 2000, published=published, **more)


RECIPES = (
    _recipe("color", 1e-10, (61.8, 44.7, 31.6, 46.0), (60.0, 42.2, 29.2, 43.9), start="vgg16"),
    _recipe(
        *("color-d", 1e-10, (62.1, 44.8, 31.7, 46.3), (61.5, 42.4, 30.5, 45.5)),
        start="vgg16",
        widened={"conv1_1_bgrd": "conv1_1"},
    ),
    _recipe("hha", 1e-10, (58.3, 35.7, 25.2, 41.7), (57.1, 35.2, 24.2, 40.4), start="vgg16"),
    _recipe(
        "color-hha",
        1e-12,
        (65.3, 44.0, 33.3, 48.6),
        (64.3, 44.9, 32.8, 48.0),
        branches={"color": "nyud-fcn32s-color", "hha": "nyud-fcn32s-hha"},
        note="starts from both nets after 100,000 iterations; the authors' started from snapshots of 28,000 (colour) "
        "and 60,000 (HHA)",
    ),
)
