"""The paper in small, on two CPU cores: a classifier of `shapes`, made fully convolutional, then 32s, 16s, 8s.

The nets are VGG-16 at an eighth of its width (fc6 and fc7 at a thirty-second: the committed classifier stays
below 3 MB). Loss, solver, multipliers, image order and surgery are the paper's; rates are our own, since the
paper's belong to its width and image size.
"""

from __future__ import annotations

from dataclasses import replace

from reference.recipes.recipe import Recipe, Solver

CLASSES = 12
NARROW = {"classes": CLASSES, "width": 1 / 8, "fc_width": 1 / 32, "dropout": 0.0}
CLASSIFIER = "shapes-vgg16"
CONTROL = "shapes-fcn32s-control"
ITERATIONS = 1000
# The rate falls from stage to stage, as the authors' does (by 100 each time, in a hundred times the iterations).
BASE_LR, FALL = 3e-8, 1 / 3
# The CVPR version's. 0.99 remembers a hundred iterations, a tenth of a stage here: its first strides, all one way while
# the scores are zero, overshoot. Mean IU of FCN-32s after 300 iterations (40 images of val): 0.21 against 0.10 at best.
MOMENTUM = 0.9
# Gradients of single images differ tenfold in size. Without clipping a rate of 3e-8 ends in NaN.
CLIP = 1e5
NOTE = "no published figures: `shapes` is this project's own"


def narrow_stages(data: str, classes: int, note: str, cost: str) -> tuple[Recipe, ...]:
    """32s, 16s and 8s on `data`, each from the one before, the first from the committed classifier."""
    recipes: list[Recipe] = []
    for stride in ("32s", "16s", "8s"):
        recipe = Recipe(
            name=f"{data}-fcn{stride}",
            net=f"voc-fcn{stride}",
            options={**NARROW, "classes": classes},
            data=data,
            train_split="train",
            val_split="val",
            solver=Solver(BASE_LR * FALL ** len(recipes), momentum=MOMENTUM, clip_gradients=CLIP),
            iterations=ITERATIONS,
            evaluate_every=ITERATIONS // 4,
            start=recipes[-1].name if recipes else CLASSIFIER,
            note=note,
            cost=cost,
        )
        recipes.append(recipe)
    return tuple(recipes)


STAGES = narrow_stages("shapes", CLASSES, NOTE, "two minutes on 2 CPU cores")
RECIPES = (
    Recipe(
        name=CLASSIFIER,
        net="vgg16",
        options=NARROW,
        data="shapes-crops",
        train_split="train",
        val_split="val",
        # Cut off where it was good enough: 93.5 % of crops, after 89 at 4000.
        solver=Solver(0.02, momentum=0.9, lr_policy="poly", max_iter=7000, clip_gradients=1.0),
        iterations=5000,
        batch=16,
        evaluate_every=1000,
        start="",
        committed=f"{CLASSIFIER}.safetensors",
        note=NOTE,
        cost="half an hour on 2 CPU cores",
    ),
    *STAGES,
    # Does FCN-8s owe its figures to its skips, or to its three stages? FCN-32s for as long, at the same rates.
    replace(
        STAGES[0],
        name=CONTROL,
        solver=replace(STAGES[0].solver, lr_policy="multistep", gamma=FALL, stepvalue=(ITERATIONS, 2 * ITERATIONS)),
        iterations=3 * ITERATIONS,
    ),
)
