"""The paper's tables: which recipes stand in each, on what they are scored, and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fcn.cli import BadInput
from reference.cost import home
from reference.data.sources import PRETRAINED
from reference.recipes import Recipe, find, stages


@dataclass(frozen=True)
class Group:
    """The rows of one table. split: what they are scored on, if not on what their recipes look at while training."""

    name: str
    title: str
    rows: tuple[str, ...]
    split: str = ""

    def chosen(self, only: Sequence[str]) -> list[Recipe]:
        """Its rows, or those of `only`. Raises BadInput for a name that is none."""
        if unknown := sorted(set(only) - set(self.rows)):
            raise BadInput(f"--only {unknown[0]}: {self.name} has {', '.join(self.rows)}")
        return [find(name) for name in self.rows if not only or name in only]


GROUPS = {
    group.name: group
    for group in (
        Group(
            "voc",
            "PASCAL VOC 2011, seg11valid: the authors' nets",
            ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"),
        ),
        Group(
            "nyud",
            "NYUDv2: colour, depth, HHA, and their fusion",
            ("nyud-fcn32s-color", "nyud-fcn32s-color-d", "nyud-fcn32s-hha", "nyud-fcn32s-color-hha"),
        ),
        Group(
            "siftflow",
            "SIFT Flow: semantic and geometric classes at once",
            ("siftflow-fcn32s", "siftflow-fcn16s", "siftflow-fcn8s"),
        ),
        Group(
            "context",
            "PASCAL-Context: 59 classes and background",
            ("pascalcontext-fcn32s", "pascalcontext-fcn16s", "pascalcontext-fcn8s"),
        ),
        Group(
            "cvpr-table1",
            "CVPR 2015, table 1: three trunks on VOC 2011's train",
            ("cvpr-alexnet", "cvpr-vgg16", "cvpr-googlenet"),
        ),
        Group(
            "cvpr-table2",
            "CVPR 2015, table 2: what fine-tuning and skips bring",
            ("cvpr-fcn32s-fixed", "cvpr-fcn32s", "cvpr-fcn16s", "cvpr-fcn8s"),
        ),
        Group(
            "pami-optimization",
            "PAMI 2016: batch size and momentum, 100,000 images each",
            ("pami-batch20", "pami-batch1", "voc-fcn32s"),
        ),
        Group(
            "camvid",
            "CamVid, which is not in the paper: staged, and what pretrained weights bring",
            (
                *("camvid-fcn32s", "camvid-fcn16s", "camvid-fcn8s"),
                *("camvid-squeezenet-random-16s", "camvid-squeezenet-random-8s"),
                *("camvid-squeezenet-16s", "camvid-squeezenet-8s"),
                *("camvid-vgg16-32s", "camvid-vgg16-16s", "camvid-vgg16-8s"),
            ),
            split="test",
        ),
    )
}


def chain(recipes: Sequence[Recipe]) -> list[Recipe]:
    """All that has to be trained for `recipes`, each after what it continues from; what is committed is left out."""
    found = {stage.name: stage for recipe in recipes for stage in stages(recipe.name) if not stage.committed}
    return list(found.values())


def data_of(recipes: Sequence[Recipe], training: bool = True) -> list[str]:
    """The data sets, as `fcn data` calls them, to train on and to score on, or to score on alone."""
    names = [(recipe.data if training else "", recipe.val_data or recipe.data) for recipe in recipes]
    return list(dict.fromkeys(home(name) for pair in names for name in pair if name))


def pretrained_of(recipe: Recipe) -> str:
    """The pretrained weights that its first stages start from (of PRETRAINED), or nothing."""
    starts = (start for stage in stages(recipe.name) for start in stage.starts.values())
    return next((start for start in starts if start in PRETRAINED), "")
