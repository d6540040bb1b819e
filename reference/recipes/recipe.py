"""What a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Solver:
    """The authors' solver.prototxt: a fixed rate, momentum 0.99 and decay 5e-4, one image an iteration."""

    base_lr: float
    momentum: float = 0.99
    weight_decay: float = 5e-4
    lr_policy: str = "fixed"
    iter_size: int = 1
    gamma: float = 0.1
    power: float = 1.0
    stepsize: int = 1
    stepvalue: tuple[int, ...] = ()
    max_iter: int = 0
    clip_gradients: float = -1.0


@dataclass(frozen=True)
class Figures:
    """What was published of a net, in percent; None where it was not.

    geometric: pixel accuracy of SIFT Flow's second task. certain: False where quoted from memory.
    """

    source: str
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    mean_iu: float | None = None
    fw_iu: float | None = None
    geometric: float | None = None
    certain: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class Recipe:
    """One trained model.

    net: a name that reference.build knows, with its options; or a Caffe definition beside the recipes (NAME.prototxt),
    whose options are load_prototxt's.
    start: the recipe whose weights this one continues from, or the pretrained weights by their name in
    `reference.data.sources`, or nothing. branches: of a net with several trunks instead, the recipe that each continues
    from, by the end of its layers' names. widened: layers whose weights come from another with fewer channels, by name
    (`surgery.widen`).
    batch: samples a pass (1 in the paper: images differ in size). committed: the file beside the recipes that
    holds its trained weights, where they come with the project.
    published: the figures to compare with first. note: what is our reading or choice. cost: hours, and on what, where
    it was ever run (`reference.cost` estimates the others).
    """

    name: str
    net: str
    data: str
    train_split: str
    val_split: str
    solver: Solver
    iterations: int
    start: str = ""
    branches: Mapping[str, str] = field(default_factory=dict)
    widened: Mapping[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    evaluate_every: int = 4000
    val_data: str = ""
    committed: str = ""
    published: tuple[Figures, ...] = ()
    note: str = ""
    cost: str = ""

    @property
    def starts(self) -> Mapping[str, str]:
        """What it starts from, by the end of the names of the layers that take it ("" for all)."""
        return self.branches or ({"": self.start} if self.start else {})

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the weights: a run is another where these differ."""
        told = asdict(self)
        for of_readers in ("published", "note", "cost"):
            del told[of_readers]
        return told

    @property
    def command(self) -> str:
        """What to type."""
        return f"python reference/train.py {self.name} --staged"


def online(
    name: str, data: str, splits: tuple[str, str], base_lr: float, iterations: int, every: int, **more: Any
) -> Recipe:
    """As the authors train all nets but FCN-AlexNet: an image an iteration at momentum 0.99, the loss a sum.

    The net bears the recipe's name. splits: to train and to score on. every: iterations between two evaluations.
    """
    return Recipe(name, name, data, *splits, Solver(base_lr), iterations, evaluate_every=every, **more)
