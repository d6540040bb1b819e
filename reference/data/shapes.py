"""Shapes: a generated segmentation data set, so that training can be shown without downloads or licences.

Eleven classes on cluttered ground. Four are told by texture alone (their outlines are blobs and boxes
alike), five by shape alone (all plain), two hang on parts 3 to 6 pixels wide that a stride of 32 cannot
resolve. Colours are random and tell nothing. Nearer objects hide farther ones, and outlines bear a void
border as in PASCAL VOC.

FROZEN: every pixel is a function of (split, index) alone, on every machine (see figures.py). A change here
makes another data set, and every figure measured on this one void.
"""

from __future__ import annotations

import math

import numpy as np

from fcn.cli import BadInput
from fcn.images import VOID, voc_palette
from reference.data.dataset import INPUT, LABEL, Dataset, Sample
from reference.data.figures import (
    SHAPES,
    TEXTURES,
    THIN,
    Colour,
    Draw,
    Grid,
    cover,
    distance_to_disc,
    distance_to_segment,
    limit,
    patch,
    smooth,
)

CLASSES = ("background", *TEXTURES, *SHAPES)
LENGTHS = {"train": 700, "val": 100, "test": 100}
CROPS = {"train": 60000, "val": 1200}
# Height x width: VOC's proportions at two thirds of its size, odd ones among them.
SIZES = ((240, 320), (320, 240), (256, 336), (251, 333), (333, 251), (225, 300), (300, 225), (288, 384))
SMALLEST, LARGEST = 40.0, 220.0  # diameters in pixels
SMALLEST_THIN = 64.0
VOID_OUTSIDE, VOID_INSIDE = 2.0, 0.5  # pixels either side of an outline
LEAST_VISIBLE = 0.45  # share of an object that nearer ones must leave in sight

Window = tuple[slice, slice]


class Scene:
    """An image under way: `image` H x W x 3 float32, `label` H x W uint8, and what stands where."""

    def __init__(self, draw: Draw, height: int, width: int) -> None:
        self.draw = draw
        self.height, self.width = height, width
        self.label = np.zeros((height, width), np.uint8)
        self.owner = np.zeros((height, width), np.int64)  # the object in sight: 0 is the ground
        self.area, self.visible = [0], [0]
        self.colours: list[Colour] = []
        self.image = self._ground()
        if draw.below(3) == 0:  # a horizon: other ground below a slanted line
            below = self._ground()
            y, x = np.ogrid[:height, :width]
            line = height * draw.between(0.3, 0.8) + (x - width / 2) * draw.between(-0.2, 0.2)
            self.image = np.where((y > line)[..., None], below, self.image)
        self._clutter()

    def _ground(self) -> np.ndarray:
        """A gradient between two colours under smooth noise of three sizes."""
        draw, shape = self.draw, (self.height, self.width)
        a = draw.colour([])
        b = draw.colour([])
        self.colours += [a, b]
        x, y = draw.direction()
        v, u = np.ogrid[: self.height, : self.width]
        ramp: Grid = (u - self.width / 2) * x + (v - self.height / 2) * y
        ramp = limit(ramp / max(shape) + 0.5).astype(np.float32) * draw.between(0.2, 1)
        image = np.empty((*shape, 3), np.float32)
        cells = ((48, 30), (15, 24), (5, 20))  # pixels, levels
        grain = sum(smooth(draw, *shape, cell) * draw.between(0, most) for cell, most in cells)
        for channel in range(3):
            tint = smooth(draw, *shape, 64) * 14
            image[..., channel] = a[channel] + (b[channel] - a[channel]) * ramp + grain + tint
        return image

    def _clutter(self) -> None:
        """Lines, specks and soft stains that belong to no class."""
        draw = self.draw
        for _ in range(draw.below(4)):
            radius = draw.between(30, 110)
            x, y = draw.between(0, self.width), draw.between(0, self.height)
            window, u, v = self._window(x, y, radius)
            alpha = limit(-distance_to_disc(u, v, radius) / radius) * draw.between(0.3, 1)
            self._mix(window, alpha, np.asarray(draw.colour([]), np.float32))
        for _ in range(draw.below(5 + self.height * self.width // 6000)):
            x, y = draw.between(0, self.width), draw.between(0, self.height)
            (du, dv), radius = draw.direction(), draw.between(10, 110)
            thickness = draw.between(1, 4) if draw.below(4) else draw.between(4, 12)
            speck = draw.below(2) == 0
            colour = np.asarray(draw.colour([]), np.float32)
            window, u, v = self._window(x, y, radius)
            if speck:
                sd = distance_to_disc(u, v, 0.6 * thickness)
            else:
                end = (du * radius, dv * radius)
                sd = distance_to_segment(u, v, (-end[0], -end[1]), end, thickness)
            self._mix(window, cover(sd), colour)

    def add(self, kind: int, diameter: float, x: float, y: float) -> bool:
        """Stand an object of class `kind` before all others; False where it would hide one too much."""
        draw, radius, name = self.draw, diameter / 2, CLASSES[kind]
        if name == "stool":  # it stands
            tilt = draw.between(-0.4, 0.4)
            length = math.sqrt(1 + tilt * tilt)
            cosine, sine = 1 / length, tilt / length
        else:
            cosine, sine = draw.direction()
        squeeze = draw.between(0.8, 1)
        window, u, v = self._window(x, y, radius)
        outline = SHAPES.get(name, patch)
        sd = outline(u * cosine + v * sine, (v * cosine - u * sine) / squeeze, radius, draw) * squeeze
        colour = self._fill(name, u, v, radius)
        inside = sd <= -VOID_INSIDE
        touched = sd < VOID_OUTSIDE
        hidden = np.bincount(self.owner[window][touched], minlength=len(self.area))
        for other in range(1, len(self.area)):
            if self.visible[other] - hidden[other] < LEAST_VISIBLE * self.area[other]:
                return False
        self.visible = [seen - int(lost) for seen, lost in zip(self.visible, hidden, strict=True)]
        self.visible.append(int(np.count_nonzero(inside)))
        self.area.append(self.visible[-1])
        self.owner[window][touched] = 0
        self.owner[window][inside] = len(self.area) - 1
        self.label[window][touched] = VOID
        self.label[window][inside] = kind
        self._mix(window, cover(sd), colour)
        return True

    def _fill(self, name: str, u: Grid, v: Grid, radius: float) -> np.ndarray:
        """H x W x 3: two colours in the class's texture, or one colour; shaded."""
        draw = self.draw
        first = draw.colour(self.colours)
        self.colours.append(first)
        (x, y), depth = draw.direction(), draw.between(0, 35)
        shade = ((u * x + v * y) * (depth / radius))[..., None]
        colour = np.asarray(first, np.float32) + shade
        if name in TEXTURES:
            x, y = draw.direction()
            second = np.asarray(draw.colour([first]), np.float32) + shade
            period = draw.between(6, min(16, 6 + radius / 6))
            share = TEXTURES[name](u * x + v * y, v * x - u * y, period, draw)[..., None]
            colour = colour * (1 - share) + second * share
        return colour

    def finish(self) -> np.ndarray:
        """Uneven light and sensor noise; H x W x 3 uint8."""
        draw = self.draw
        light = smooth(draw, self.height, self.width, max(self.height, self.width) // 2)
        light = 1 + light * draw.between(0, 0.3)
        sensor = draw.grid(self.height, self.width, 3) + draw.grid(self.height, self.width, 3)
        image = self.image * light[..., None] + sensor * draw.between(0, 8)
        return np.floor(np.minimum(np.maximum(image, 0), 255) + np.float32(0.5)).astype(np.uint8)

    def _window(self, x: float, y: float, radius: float) -> tuple[Window, Grid, Grid]:
        """The part of the image about `radius` from (x, y), and its pixels' offsets from there."""
        reach = radius + VOID_OUTSIDE + 1
        left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach), self.width)
        top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach), self.height)
        u = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
        v = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
        u, v = np.broadcast_arrays(u, v)
        return (slice(top, bottom), slice(left, right)), u, v

    def _mix(self, window: Window, alpha: Grid, colour: np.ndarray) -> None:
        part = self.image[window]
        part += alpha[..., None] * (colour - part)


def _check(split: str, lengths: dict[str, int]) -> None:
    if split not in lengths:
        raise BadInput(f"shapes has no split {split!r}; there are {', '.join(lengths)}")


class Shapes(Dataset):
    """Scenes of up to six objects. split: train, val or test."""

    name = "shapes"
    classes = CLASSES
    palette = voc_palette()[: len(CLASSES)]
    # Of the training split, rounded; python -c "import numpy as np; from reference.data.shapes import Shapes;
    # print(np.concatenate([s.image.reshape(-1, 3) for s in Shapes('train')]).mean(0)[::-1])"
    mean = (129.034, 126.382, 127.16)

    def __init__(self, split: str) -> None:
        _check(split, LENGTHS)
        self.split = split

    def __len__(self) -> int:
        return LENGTHS[self.split]

    def origin(self, index: int, name: str = LABEL) -> str:
        return f"{self.name} {self.split} {index}"

    def read(self, index: int) -> Sample:
        draw = Draw("shapes", self.split, index)
        height, width = SIZES[draw.below(len(SIZES))]
        scene = Scene(draw, height, width)
        for _ in range(3 + draw.below(4)):
            kind = 1 + draw.below(len(CLASSES) - 1)
            size = draw.between(0, 1)
            if CLASSES[kind] in THIN:
                diameter = SMALLEST_THIN + (LARGEST - SMALLEST_THIN) * size
            else:
                diameter = SMALLEST + (LARGEST - SMALLEST) * size * (size + 1) / 2
            x = draw.between(0.3 * diameter, width - 0.3 * diameter)
            y = draw.between(0.3 * diameter, height - 0.3 * diameter)
            scene.add(kind, diameter, x, y)
        return Sample(f"{self.split}{index:05}", {INPUT: scene.finish()}, {LABEL: scene.label})


class Crops(Dataset):
    """One object an image, for the classifier that a segmentation net starts from (paper, section 3.1).

    Samples are size x size; the label is 1 x 1, the class; classes take turns, and 0 is ground and clutter alone.
    """

    name = "shapes-crops"
    classes = CLASSES
    palette = Shapes.palette
    mean = Shapes.mean

    def __init__(self, split: str, size: int = 224) -> None:
        _check(split, CROPS)
        self.split, self.size = split, size

    def __len__(self) -> int:
        return CROPS[self.split]

    def origin(self, index: int, name: str = LABEL) -> str:
        return f"{self.name} {self.split} {index}"

    def read(self, index: int) -> Sample:
        draw = Draw("shapes-crops", self.split, self.size, index)
        kind = index % len(CLASSES)
        scene = Scene(draw, self.size, self.size)
        if kind:
            diameter = self.size * draw.between(0.2, 1)  # at 224 pixels: as in the scenes
            x, y = self.size * draw.between(0.42, 0.58), self.size * draw.between(0.42, 0.58)
            scene.add(kind, diameter, x, y)
        label = np.full((1, 1), kind, np.uint8)
        return Sample(f"{self.split}{index:05}", {INPUT: scene.finish()}, {LABEL: label})

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)  # a class for the whole image: nothing to check against its size
