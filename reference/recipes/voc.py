"""PASCAL VOC: trained on SBD's 8,498 images, scored on the 736 of seg11valid (the authors' voc-fcn* folders).

Iterations are those that the authors' solve.py ran (25 times 4,000), not max_iter of solver.prototxt.
"""

from __future__ import annotations

from typing import Any

from reference.recipes.recipe import Figures, Recipe, Solver

README = "the authors' README: their released weights"
RELEASED = "the authors' released weights, re-evaluated by wkentaro/fcn"
PAMI = "PAMI 2016, from memory"
# FCN-AlexNet's solver.prototxt: rates for a loss divided by the number of pixels, gradients of 20 images, and the usual
# momentum, as in the CVPR version.
ACCUMULATED = Solver(1e-4, momentum=0.9, iter_size=20)


def on_sbd(name: str, net: str, start: str, solver: Solver, iterations: int, **more: Any) -> Recipe:
    """Trained on SBD's train, scored on seg11valid."""
    return Recipe(name, net, "sbd", "train", "seg11valid", solver, iterations, start, val_data="voc", **more)


def _staged(name: str, start: str, base_lr: float, *figures: float, iterations: int = 100_000) -> Recipe:
    published = (Figures(RELEASED, *figures), Figures(README, mean_iu=round(figures[2], 1)))
    return on_sbd(name, name, start, Solver(base_lr), iterations, published=published)


STAGED = (
    _staged("voc-fcn32s", "vgg16", 1e-10, 90.4810, 76.4824, 63.6261, 83.4580),
    _staged("voc-fcn16s", "voc-fcn32s", 1e-12, 90.9971, 78.0710, 65.0050, 84.2614),
    _staged("voc-fcn8s", "voc-fcn16s", 1e-14, 91.2212, 77.6146, 65.5126, 84.5445),
)
RECIPES = (
    *STAGED,
    _staged("voc-fcn8s-atonce", "vgg16", 1e-10, 91.1288, 78.4979, 65.3998, 84.4326, iterations=300_000),
    on_sbd(
        *("voc-fcn-alexnet", "voc-fcn-alexnet", "caffenet", ACCUMULATED, 100_000),
        published=(Figures(README, mean_iu=48.0),),
    ),
    on_sbd(
        *("voc-fcn-googlenet", "voc-fcn-googlenet", "googlenet", Solver(5e-5, momentum=0.9, iter_size=20), 100_000),
        options={"normalization": "valid"},
        note="never released: FCN-AlexNet's solver at the CVPR paper's rate for GoogLeNet; no figures on these data",
    ),
)
