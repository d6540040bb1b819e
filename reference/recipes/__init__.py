"""One entry a model: net, data, solver, where it starts from, the paper's figures, hours, command."""

from __future__ import annotations

from dataclasses import replace

from fcn.cli import BadInput
from reference.recipes import camvid, cvpr, nyud, pami, pascalcontext, shapes, siftflow, voc
from reference.recipes.recipe import Figures, Recipe, Solver

SETS = (voc, nyud, siftflow, pascalcontext, cvpr, pami, camvid, shapes)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for of in SETS for recipe in of.RECIPES}


def find(name: str) -> Recipe:
    """The recipe of that name. Raises BadInput for an unknown one."""
    if name not in RECIPES:
        raise BadInput(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def stages(name: str) -> list[Recipe]:
    """The recipe and those it continues from, each after those that it continues from."""
    recipe = find(name)
    before = [stage for start in recipe.starts.values() if start in RECIPES for stage in stages(start)]
    return list({stage.name: stage for stage in (*before, recipe)}.values())


def narrow(recipe: Recipe) -> Recipe:
    """The recipe of a copy of its VGG-16 at the width of the committed classifier, from whose weights it starts.

    It tries out data and machine at small cost; at the rates of the full width it learns little. Raises BadInput for
    a net on another trunk.
    """
    if not {"vgg16", shapes.CLASSIFIER, *RECIPES}.issuperset(recipe.starts.values()) or recipe.net.endswith("prototxt"):
        raise BadInput(f"{recipe.name}: there are narrow copies of VGG-16 only; leave --narrow out")
    width = {key: value for key, value in shapes.NARROW.items() if key != "classes"}
    start = shapes.CLASSIFIER if recipe.start == "vgg16" else recipe.start
    return replace(recipe, options=recipe.options | width, start=start)


__all__ = ["RECIPES", "Figures", "Recipe", "Solver", "find", "narrow", "stages"]
