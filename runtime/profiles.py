"""Optimization profiles: the ranges of input shapes that an engine was built for, and which one an input takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fcn.cli import BadInput

Shape = tuple[int, ...]
# PASCAL VOC: any image up to 1024 x 1024, four at a time, fastest for one of 375 x 500. N x 3 x H x W.
VOC = ((1, 3, 1, 1), (1, 3, 375, 500), (4, 3, 1024, 1024))


@dataclass(frozen=True)
class Profile:
    """The least, the tuned and the greatest shape of the one input. Raises BadInput where they are in no order."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.min) == len(self.opt) == len(self.max) == 4:
            raise BadInput(f"shapes {self}: each has four axes, such as 1x3x375x500")
        if not all(1 <= low <= mid <= high for low, mid, high in zip(self.min, self.opt, self.max, strict=True)):
            raise BadInput(f"shapes {self}: on every axis 1 <= min <= opt <= max")

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether an input of `shape` may run under this profile."""
        return len(shape) == 4 and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        return f"{text(self.min)} to {text(self.max)}"


def text(shape: Sequence[int]) -> str:
    """A shape as trtexec writes it: 1x3x375x500."""
    return "x".join(map(str, shape))


def parse(given: str) -> Shape:
    """The shape that `text` writes, with or without the input's name and a colon before it. Raises BadInput."""
    digits = given.rpartition(":")[2]
    if not re.fullmatch(r"\d{1,9}(x\d{1,9})*", digits):
        raise BadInput(f"shape {given!r}: write it like 1x3x375x500")
    return tuple(map(int, digits.split("x")))


def from_options(
    least: Sequence[str], tuned: Sequence[str], greatest: Sequence[str], declared: Sequence[int]
) -> list[Profile]:
    """Profiles as trtexec's --minShapes, --optShapes, --maxShapes give them, or VOC's without any.

    declared: the input's shape in the network, -1 where free: N x 3 x H x W, or N x H x W x 3 of pixels.
    Raises BadInput where the three differ in number, or a profile leaves an axis that the network fixes.
    """
    if not len(least) == len(tuned) == len(greatest):
        raise BadInput("--minShapes, --optShapes and --maxShapes: give each of them once a profile")
    made = [Profile(*map(parse, shapes)) for shapes in zip(least, tuned, greatest, strict=True)]
    return made or [default(declared)]


def default(declared: Sequence[int]) -> Profile:
    """VOC's profile, with the axes in the order of `declared` and cut to what it fixes."""
    pixels = len(declared) == 4 and declared[3] == 3 and declared[1] != 3
    order = (0, 2, 3, 1) if pixels else (0, 1, 2, 3)
    return Profile(*(fixed([shape[axis] for axis in order], declared) for shape in VOC))


def fixed(shape: Sequence[int], declared: Sequence[int]) -> Shape:
    """`shape` with the sizes that `declared` fixes (it has -1 where an axis is free)."""
    return tuple(size if free < 0 else free for size, free in zip(shape, declared, strict=True))


def check(profiles: Sequence[Profile], declared: Sequence[int]) -> None:
    """Raises BadInput for a profile of shapes that a network whose input is `declared` (-1: free) does not take."""
    for profile in profiles:
        for shape in (profile.min, profile.opt, profile.max):
            if len(declared) != len(shape) or fixed(shape, declared) != shape:
                wanted = "x".join("?" if size < 0 else str(size) for size in declared)
                raise BadInput(f"shape {text(shape)}: the network takes {wanted}")


def choose(profiles: Sequence[Profile], shape: Sequence[int]) -> int | None:
    """Index of the profile for an input of `shape`: of those that hold it, the one tuned nearest; None without any.

    Nearest is by the ratio of sizes, axis by axis: kernels were chosen for the tuned shape. The first of equals.
    """
    holding = [index for index, profile in enumerate(profiles) if profile.holds(shape)]
    return min(holding, key=lambda index: _distance(profiles[index].opt, shape), default=None)


def largest(profiles: Sequence[Profile], shape: Sequence[int]) -> Shape | None:
    """The greatest shape that runs of a batch as large as that of `shape`: this itself where a profile holds it.

    None where no profile takes that many images.
    """
    if choose(profiles, shape) is not None:
        return tuple(shape)
    greatest = [profile.max for profile in profiles if profile.min[0] <= shape[0] <= profile.max[0]]
    return max(greatest, key=lambda each: math.prod(each[1:]), default=None)


def _distance(tuned: Sequence[int], shape: Sequence[int]) -> float:
    return sum(abs(math.log(size / best)) for size, best in zip(shape, tuned, strict=True))
