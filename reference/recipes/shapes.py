"""The paper in small, on two CPU cores: a classifier of `shapes`, made fully convolutional, then 32s, 16s, 8s.

The nets are VGG-16 at an eighth of its width (fc6 and fc7 at a thirty-second: the committed classifier stays
below 3 MB). Loss, solver, multipliers, image order and surgery are the paper's; rates are our own, since the
paper's belong to its width and image size.
"""

from __future__ import annotations

from reference.recipes.recipe import Recipe, Solver

CLASSES = 12
NARROW = {"classes": CLASSES, "width": 1 / 8, "fc_width": 1 / 32, "dropout": 0.0}
CLASSIFIER = "shapes-vgg16"
ITERATIONS = 600
# Gradients of single images differ tenfold in size, and momentum 0.99 carries an outlier for a hundred iterations:
# at 1e-8 without clipping four in ten units of fc7 were dead after 150 iterations, with it one in a hundred.
CLIP = 1e5
SOURCE = "no published figures: `shapes` is this project's own"


def narrow_stages(data: str, classes: int, source: str, cost: str) -> tuple[Recipe, ...]:
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
            solver=Solver(1e-8, clip_gradients=CLIP),
            iterations=ITERATIONS,
            evaluate_every=ITERATIONS // 4,
            start=recipes[-1].name if recipes else CLASSIFIER,
            source=source,
            cost=cost,
        )
        recipes.append(recipe)
    return tuple(recipes)


RECIPES = (
    Recipe(
        name=CLASSIFIER,
        net="vgg16",
        options=NARROW,
        data="shapes-crops",
        train_split="train",
        val_split="val",
        solver=Solver(0.02, momentum=0.9, lr_policy="poly", max_iter=1600, clip_gradients=1.0),
        iterations=1600,
        batch=16,
        evaluate_every=800,
        start="",
        committed=f"{CLASSIFIER}.safetensors",
        source=SOURCE,
        cost="a quarter of an hour on 2 CPU cores",
    ),
    *narrow_stages("shapes", CLASSES, SOURCE, "a minute or two on 2 CPU cores"),
)
