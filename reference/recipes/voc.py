"""PASCAL VOC: trained on SBD's 8,498 images, scored on the 736 of seg11valid (the authors' voc-fcn* folders).

Iterations are those that the authors' solve.py ran (25 times 4,000), not max_iter of solver.prototxt.
Figures: the authors' released weights, re-evaluated by wkentaro/fcn.
"""

from __future__ import annotations

from reference.recipes.recipe import Recipe, Solver

SOURCE = "authors' released weights on seg11valid, re-evaluated by wkentaro/fcn"
# Never run by us: the paper's three days on one K40c for FCN-32s (CVPR 2015, section 4.3), one for each finer net.
COST = "never run here; the paper: three days for 32s, one more for each finer net (Tesla K40c)"
VGG16 = "VGG_ILSVRC_16_layers weights (--weights FILE.safetensors or .caffemodel)"


def _recipe(name: str, start: str, base_lr: float, iterations: int, figures: tuple[float, ...]) -> Recipe:
    return Recipe(
        name=name,
        net=name,
        data="sbd",
        train_split="train",
        val_data="voc",
        val_split="seg11valid",
        solver=Solver(base_lr),
        iterations=iterations,
        start=start,
        figures=figures,
        source=SOURCE,
        cost=COST,
    )


RECIPES = (
    _recipe("voc-fcn32s", VGG16, 1e-10, 100_000, (90.4810, 76.4824, 63.6261, 83.4580)),
    _recipe("voc-fcn16s", "voc-fcn32s", 1e-12, 100_000, (90.9971, 78.0710, 65.0050, 84.2614)),
    _recipe("voc-fcn8s", "voc-fcn16s", 1e-14, 100_000, (91.2212, 77.6146, 65.5126, 84.5445)),
    _recipe("voc-fcn8s-atonce", VGG16, 1e-10, 300_000, (91.1288, 78.4979, 65.3998, 84.4326)),
)
