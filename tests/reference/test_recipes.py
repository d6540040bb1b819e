"""Recipes name nets that can be built, and the definition that lies beside them fits its own claims."""

from __future__ import annotations

import pytest
import torch

from reference.coordinates import crop_offset
from reference.layers import Crop
from reference.net import Net
from reference.recipes import RECIPES, stages
from reference.runs import net_of
from reference.surgery import transplant

STAGES = ("camvid-squeezenet-16s", "camvid-squeezenet-8s")


@pytest.fixture(scope="module")
def squeezenets() -> dict[str, Net]:
    torch.manual_seed(0)
    return {name: net_of(RECIPES[name]).eval() for name in STAGES}


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("voc-")])
def test_a_recipe_continues_the_one_before(name: str) -> None:
    """Its net takes every weight that the stage before ends with, but for the last upsampling."""
    *before, recipe = stages(name)
    net = net_of(recipe)
    if before:
        report = transplant(net, net_of(before[-1]))
        assert {key.split(".")[0] for key in report.dropped} <= {"upscore", "upscore16", "fc8"}
        assert report.copied


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.net.endswith(".prototxt")])
def test_written_crops_are_the_derived_ones(name: str) -> None:
    layers = net_of(RECIPES[name]).spec.layers
    crops = [layer for layer in layers if isinstance(layer, Crop)]
    assert crops
    for layer in crops:
        assert layer.offset == (crop_offset(layers, *layer.bottoms),), layer.name


@pytest.mark.parametrize("name", STAGES)
def test_any_size_down_to_one_pixel(squeezenets: dict[str, Net], name: str) -> None:
    """The padding of 10 is enough for all phases of the stride, and 9 would not be (the definition's comment)."""
    spec = squeezenets[name].spec
    for side in (*range(1, 66), 360, 480):
        shapes = spec.shapes(data=(1, 3, side, 500), label=(1, 1, side, 500))
        assert shapes["score"] == (1, 11, side, 500)
    torch.manual_seed(1)
    assert squeezenets[name](torch.randn(1, 3, 1, 1)).shape == (1, 11, 1, 1)


def test_the_finer_net_continues_the_coarser_one(squeezenets: dict[str, Net]) -> None:
    """With its new score layer still zero, only the kernel of the upsampling differs between the two."""
    coarse, fine = squeezenets[STAGES[0]], squeezenets[STAGES[1]]
    report = transplant(fine, coarse)
    assert set(report.missing) == {"upscore2.weight", "upscore8.weight", "score_pool4.weight", "score_pool4.bias"}
    with torch.no_grad():
        coarse.layer("score_fr").weight.normal_(0, 0.1)
        transplant(fine, coarse)
        x = torch.randn(1, 3, 90, 120) * 50
        a, b = coarse(x), fine(x)
    # Bilinear twice then eight times is nearly bilinear sixteen times.
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.98
