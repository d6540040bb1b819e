"""The order in which the authors' nets saw their images."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fcn.cli import BadInput


class AuthorsOrder:
    """Endless image indices, drawn one an iteration *with* replacement, as the authors' data layers drew them.

    They called `random.randint(0, length - 1)` on Python 2 after `random.seed(1337)` (voc_layers.py). There
    randint was int(random() * length); Python 3's draws bits instead, from the same Mersenne Twister. For
    SBD's 8,498 images the order begins 5249, 4531, 3108.

    `start` is the number of draws already made, to go on where a run stopped; skipping costs 0.1 us a draw.
    """

    def __init__(self, length: int, seed: int = 1337, start: int = 0) -> None:
        if length < 1:
            raise BadInput("the training split is empty; give one with images")
        self.length, self.seed, self.start = length, seed, start

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(self.seed)
        for _ in range(self.start):
            generator.random()
        while True:
            yield int(generator.random() * self.length)
