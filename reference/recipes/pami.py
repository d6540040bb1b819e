"""PAMI 2016's study of batch size and momentum: FCN-32s on a fixed sequence of 100,000 images, the loss a sum.

Its third arm, one image an iteration at momentum 0.99 ("heavy"), is voc-fcn32s. The figures are from memory; the paper
has the best of a run, on a part of seg11valid.
"""

from __future__ import annotations

from reference.recipes.recipe import Figures, Recipe, Solver
from reference.recipes.voc import PAMI, on_sbd

IMAGES, RATE = 100_000, 1e-10
NOTE = "all arms at one rate an image: our reading"


def _recipe(batch: int, mean_iu: float) -> Recipe:
    return on_sbd(
        f"pami-batch{batch}",
        "voc-fcn32s",
        "vgg16",
        # The paper's update sums over a batch; Caffe takes the mean over iter_size.
        Solver(RATE * batch, momentum=0.9, iter_size=batch),
        IMAGES // batch,
        evaluate_every=4000 // batch,
        published=(Figures(PAMI, mean_iu=mean_iu, certain=False),),
        note=NOTE,
    )


RECIPES = (_recipe(20, 51.9), _recipe(1, 60.7))
