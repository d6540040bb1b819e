"""What a recipe says."""

from __future__ import annotations

from dataclasses import dataclass, field
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
class Recipe:
    """One trained model.

    net: a name that reference.build knows, with its options; or a Caffe definition beside the recipes (NAME.prototxt),
    whose options are load_prototxt's.
    start: the recipe whose weights this one continues from, or words that say which file to give.
    figures: pixel accuracy, mean accuracy, mean IU, frequency-weighted IU in percent, None where not published.
    batch: samples a pass (1 in the paper: images differ in size). committed: the file beside the recipes that
    holds its trained weights, where they come with the project. cost: hours, and on what.
    """

    name: str
    net: str
    data: str
    train_split: str
    val_split: str
    solver: Solver
    iterations: int
    start: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    evaluate_every: int = 4000
    val_data: str = ""
    figures: tuple[float | None, ...] = ()
    source: str = ""
    cost: str = ""
    committed: str = ""

    @property
    def command(self) -> str:
        """What to type."""
        return f"python reference/train.py {self.name} --staged"
