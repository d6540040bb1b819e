"""CamVid, which the paper did not use: road scenes of 480x360, 367 to train on, on a narrow VGG-16 for CPUs.

It starts from the committed classifier of `shapes`, for want of ImageNet weights at this width: expect little.
"""

from __future__ import annotations

from reference.recipes.recipe import Recipe, Solver
from reference.recipes.shapes import CLASSIFIER, CLIP, NARROW

ITERATIONS = 600


def _stage(stride: str, start: str, base_lr: float) -> Recipe:
    return Recipe(
        name=f"camvid-fcn{stride}",
        net=f"voc-fcn{stride}",
        options={**NARROW, "classes": 11},
        data="camvid",
        train_split="train",
        val_split="val",
        solver=Solver(base_lr, clip_gradients=CLIP),
        iterations=ITERATIONS,
        evaluate_every=ITERATIONS // 4,
        start=start,
        source="not in the paper",
        cost="two minutes on 2 CPU cores",
    )


RECIPES = (
    _stage("32s", CLASSIFIER, 1e-8),
    _stage("16s", "camvid-fcn32s", 1e-8),
    _stage("8s", "camvid-fcn16s", 1e-8),
)
