"""One entry a model: net, data, solver, where it starts from, the paper's figures, hours, command."""

from __future__ import annotations

from fcn.cli import BadInput
from reference.recipes.camvid import RECIPES as CAMVID
from reference.recipes.recipe import Recipe, Solver
from reference.recipes.shapes import RECIPES as SHAPES
from reference.recipes.voc import RECIPES as VOC

RECIPES: dict[str, Recipe] = {r.name: r for r in (*VOC, *CAMVID, *SHAPES)}


def find(name: str) -> Recipe:
    """The recipe of that name. Raises BadInput for an unknown one."""
    if name not in RECIPES:
        raise BadInput(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def stages(name: str) -> list[Recipe]:
    """The recipe and those it continues from, first stage first."""
    chain = [find(name)]
    while chain[0].start in RECIPES:
        chain.insert(0, RECIPES[chain[0].start])
    return chain


__all__ = ["RECIPES", "Recipe", "Solver", "find", "stages"]
