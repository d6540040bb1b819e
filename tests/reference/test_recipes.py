"""Recipes say what the authors ran, name nets that can be built, and lead from stage to stage on every data set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fcn.cli import BadInput
from fcn.record import ROOT
from reference import NETS, build, checkpoint, cost, save_caffemodel, train
from reference.coordinates import crop_offset
from reference.data.places import PLACES
from reference.data.sources import PRETRAINED
from reference.layers import Crop, Deconvolution, Param, SoftmaxWithLoss
from reference.net import Net
from reference.progress import read_table, settings_of
from reference.recipes import RECIPES, Figures, Recipe, narrow, stages
from reference.runs import net_of, start_from
from reference.surgery import transplant
from tests.reference import folders

STAGES = ("camvid-squeezenet-16s", "camvid-squeezenet-8s")
# The authors' solver.prototxt and solve.py: rate, momentum, iter_size, iterations, and how often they scored.
AUTHORS = {
    "voc-fcn32s": (1e-10, 0.99, 1, 100_000, 4000),
    "voc-fcn16s": (1e-12, 0.99, 1, 100_000, 4000),
    "voc-fcn8s": (1e-14, 0.99, 1, 100_000, 4000),
    "voc-fcn8s-atonce": (1e-10, 0.99, 1, 300_000, 4000),
    "voc-fcn-alexnet": (1e-4, 0.9, 20, 100_000, 4000),
    "nyud-fcn32s-color": (1e-10, 0.99, 1, 100_000, 2000),
    "nyud-fcn32s-hha": (1e-10, 0.99, 1, 100_000, 2000),
    "nyud-fcn32s-color-d": (1e-10, 0.99, 1, 100_000, 2000),
    "nyud-fcn32s-color-hha": (1e-12, 0.99, 1, 100_000, 2000),
    "siftflow-fcn32s": (1e-10, 0.99, 1, 100_000, 2000),
    "siftflow-fcn16s": (1e-12, 0.99, 1, 100_000, 2000),
    "siftflow-fcn8s": (1e-12, 0.99, 1, 100_000, 2000),
    "pascalcontext-fcn32s": (1e-10, 0.99, 1, 400_000, 8000),
    "pascalcontext-fcn16s": (1e-12, 0.99, 1, 400_000, 8000),
    "pascalcontext-fcn8s": (1e-14, 0.99, 1, 400_000, 8000),
}
# The CVPR version (section 4.3), and PAMI's study. Images: iterations times batch, as the paper counts.
PAPERS = {
    "cvpr-alexnet": (1e-3, 0.9, 20, 175 * 1112),
    "cvpr-vgg16": (1e-4, 0.9, 20, 175 * 1112),
    "cvpr-googlenet": (5e-5, 0.9, 20, 175 * 1112),
    "cvpr-fcn32s-fixed": (1e-4, 0.9, 20, 500_000),
    "cvpr-fcn32s": (1e-4, 0.9, 20, 500_000),
    "cvpr-fcn16s": (1e-6, 0.9, 20, 160_000),
    "cvpr-fcn8s": (1e-8, 0.9, 20, 160_000),
    "pami-batch20": (2e-9, 0.9, 20, 100_000),
    "pami-batch1": (1e-10, 0.9, 1, 100_000),
}


def small(name: str) -> Net:
    """The recipe's net, a sixteenth as wide."""
    recipe = RECIPES[name]
    width = {} if recipe.net.endswith(".prototxt") else {"width": 1 / 16}
    return net_of(replace(recipe, options=recipe.options | width))


@pytest.fixture(scope="module")
def squeezenets() -> dict[str, Net]:
    torch.manual_seed(0)
    return {name: net_of(RECIPES[name]).eval() for name in STAGES}


def test_every_net_of_the_authors_has_its_recipe() -> None:
    assert {*AUTHORS, "voc-fcn-googlenet"} == NETS.keys() - {"vgg16"}
    for name in NETS.keys() - {"vgg16"}:
        assert RECIPES[name].net == name


@pytest.mark.parametrize("name", [*AUTHORS, *PAPERS])
def test_solvers_are_the_authors(name: str) -> None:
    recipe = RECIPES[name]
    solver = recipe.solver
    rate, momentum, batch, amount, *every = (AUTHORS | PAPERS)[name]
    assert solver.base_lr == pytest.approx(rate, rel=1e-12)
    assert (solver.momentum, solver.iter_size, recipe.batch) == (momentum, batch, 1)
    assert (solver.lr_policy, solver.weight_decay, solver.clip_gradients) == ("fixed", 5e-4, -1)
    if every:
        assert (recipe.iterations, recipe.evaluate_every) == (amount, *every)
    else:
        assert recipe.iterations * batch == pytest.approx(amount, abs=batch)
    assert (recipe.published and recipe.published[0].source) or name in ("siftflow-fcn32s",)


@pytest.mark.parametrize(
    ("name", "normalization"),
    [("voc-fcn32s", "batch_size"), ("voc-fcn-alexnet", "valid"), ("voc-fcn-googlenet", "valid")]
    + [(name, "valid") for name in PAPERS if name.startswith("cvpr")]
    + [(name, "batch_size") for name in PAPERS if name.startswith("pami")],
)
def test_losses_are_normalized_where_the_rates_ask_for_it(name: str, normalization: str) -> None:
    (loss,) = (layer for layer in small(name).spec.layers if isinstance(layer, SoftmaxWithLoss))
    assert loss.normalization == normalization


def test_what_learns_in_the_cvpr_version() -> None:
    """Of 32s-fixed the scores alone; of the finer nets the inner deconvolutions too, never the last."""
    learning = {key for key, parameter in small("cvpr-fcn32s-fixed").named_parameters() if parameter.requires_grad}
    assert learning == {"score_fr.weight", "score_fr.bias"}
    for name in ("cvpr-fcn32s", "cvpr-fcn16s", "cvpr-fcn8s"):
        ups = [layer for layer in small(name).spec.layers if isinstance(layer, Deconvolution)]
        assert [up.param(0).lr_mult for up in ups] == [1] * (len(ups) - 1) + [0]
    assert small("cvpr-fcn32s").multipliers()["conv1_1.bias"] == Param(2, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_continues_those_before(name: str) -> None:
    """Its net takes every weight that the stages before end with, but for the last upsampling."""
    recipe = RECIPES[name]
    assert recipe.data.split("-")[0] in {*PLACES, "shapes"}
    net = small(name)
    for suffix, start in recipe.starts.items():
        if start in RECIPES:
            report = transplant(net, small(start), suffix)
            assert all(key.startswith(("upscore", "fc8")) for key in report.dropped)
            assert report.copied
        else:
            assert start in PRETRAINED or start.startswith("VGG-16 weights of conv1_1")
    *before, last = stages(name)
    assert last == recipe and all(
        start in [r.name for r in before] or start not in RECIPES for start in recipe.starts.values()
    )


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.net.endswith(".prototxt")])
def test_written_crops_are_the_derived_ones(name: str) -> None:
    layers = net_of(RECIPES[name]).spec.layers
    crops = [layer for layer in layers if isinstance(layer, Crop)]
    assert crops
    for layer in crops:
        assert layer.offset == (crop_offset(layers, *layer.bottoms),), layer.name


def test_a_changed_comment_is_no_other_run() -> None:
    recipe = RECIPES["voc-fcn32s"]
    assert settings_of(replace(recipe, note="x", published=(), cost="y"), 1) == settings_of(recipe, 1)
    assert settings_of(replace(recipe, iterations=1), 1) != settings_of(recipe, 1)


def test_early_fusion_starts_depth_with_the_mean_of_the_colours(tmp_path: Path) -> None:
    """From a caffemodel and from a checkpoint; a net that has the wide layer already keeps it."""
    recipe = RECIPES["nyud-fcn32s-color-d"]
    torch.manual_seed(0)
    vgg = build("vgg16", width=1 / 16)
    save_caffemodel(vgg, tmp_path / "vgg.caffemodel")
    net = small(recipe.name)
    start_from(net, tmp_path / "vgg.caffemodel", "vgg16", widened=recipe.widened)
    wide, first = net.get_parameter("conv1_1_bgrd.weight"), vgg.get_parameter("conv1_1.weight")
    assert torch.equal(wide[:, :3], first) and torch.equal(wide[:, 3], first.mean(1))
    with torch.no_grad():
        wide[:, 3] = 7
    save_caffemodel(net, tmp_path / "wide.caffemodel")
    start_from(net, tmp_path / "wide.caffemodel", "vgg16", widened=recipe.widened)
    assert bool((net.get_parameter("conv1_1_bgrd.weight")[:, 3] == 7).all())


def row(recipe: Recipe) -> str:
    """A recipe's line in docs/recipes.md."""
    solver, (first, *_) = recipe.solver, (*recipe.published, Figures(""))
    start = ", ".join(f"`{start}`" for start in recipe.starts.values())
    known = first.mean_iu is not None
    figure = f"{first.mean_iu:g} ({first.source})" if known else "none"
    cells = (
        f"`{recipe.name}`",
        start,
        f"{recipe.data} {recipe.train_split}; {recipe.val_data or recipe.data} {recipe.val_split}",
        f"{solver.base_lr:g}, {solver.momentum:g}, {solver.iter_size}",
        f"{recipe.iterations:,}",
        f"{cost.hours(recipe):.0f}",
        figure,
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", [*AUTHORS, "voc-fcn-googlenet", *PAPERS])
def test_the_page_of_recipes_is_of_these_recipes(name: str) -> None:
    assert row(RECIPES[name]) in (ROOT / "docs" / "recipes.md").read_text().splitlines()


# --- every kind of data, from files to figures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets of the paper, tiny."""
    root = tmp_path_factory.mktemp("data")
    lists = folders.voc(root / "VOC2011") / "ImageSets" / "Segmentation"
    for split in ("train", "seg11valid"):
        shutil.copy(lists / "val.txt", lists / f"{split}.txt")
    folders.sbd(root / "sbd")
    folders.nyud(root / "nyud")
    folders.siftflow(root / "siftflow")
    folders.pascalcontext(root / "pascalcontext", root / "VOC2010")
    return root


@pytest.mark.parametrize(
    "name",
    [
        "voc-fcn32s",
        "cvpr-vgg16",
        "nyud-fcn32s-color-d",
        "nyud-fcn32s-color-hha",
        "siftflow-fcn16s",
        "pascalcontext-fcn32s",
    ],
)
def test_recipes_train_on_files(name: str, data: Path, tmp_path: Path) -> None:
    """Two iterations a stage, and the figures of every label."""
    words = ["--staged", "--narrow", "--data", str(data), "--out", str(tmp_path), "--iterations", "2", "--workers", "0"]
    assert train.main([name, *words]) == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == sorted(recipe.name for recipe in stages(name))
    (line,) = read_table(tmp_path / name / "log.csv")
    assert (line["loss"] == line["loss_per_pixel"]) == name.startswith("cvpr") and line["loss_per_pixel"] < 10
    (row,) = read_table(tmp_path / name / "scores.csv")
    assert 0 <= row["mean_iu"] <= 1 and ("geo_pixel_accuracy" in row) == name.startswith("siftflow")
    if name == "nyud-fcn32s-color-hha":
        fused, *parts = (
            checkpoint.load(tmp_path / folder / "weights.safetensors").net.state_dict()
            for folder in (name, "nyud-fcn32s-color", "nyud-fcn32s-hha")
        )
        for modality, part in zip(("color", "hha"), parts, strict=True):  # two steps at 1e-12 move little
            assert torch.allclose(fused[f"conv1_1{modality}.weight"], part["conv1_1.weight"], rtol=1e-3)
            assert fused[f"score_fr{modality}.weight"].abs().max() > 0


def test_narrow_copies_are_of_vgg16_alone() -> None:
    assert narrow(RECIPES["voc-fcn16s"]).start == "voc-fcn32s"
    assert narrow(RECIPES["voc-fcn32s"]).start == "shapes-vgg16"
    for name in ("voc-fcn-alexnet", "camvid-squeezenet-8s", "camvid-vgg-32s"):
        with pytest.raises(BadInput, match="leave --narrow out"):
            narrow(RECIPES[name])


# --- SqueezeNet ---------------------------------------------------------------------------------------------------


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
