"""What the shapes data set is drawn with: repeatable random choices, outlines and textures.

Only add, multiply, divide, square root, floor and comparisons are used, which IEEE 754 rounds alike
everywhere, on bytes and doubles of NumPy's frozen RandomState: no pixel depends on a library's sine or
drawing routine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

Colour = tuple[float, float, float]
Grid = np.ndarray  # H x W float32
Drawn = Callable[[Grid, Grid, float, "Draw"], Grid]  # offsets u and v, radius or period


class Draw:
    """Random choices that are the same on every machine."""

    def __init__(self, *key: object) -> None:
        self.state = np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()) & 0x7FFFFFFF)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.state.random_sample())

    def below(self, n: int) -> int:
        return int(self.state.random_sample() * n)

    def grid(self, *shape: int) -> np.ndarray:
        """float32 in -1 to 1, in 256 steps."""
        raw = np.frombuffer(self.state.bytes(math.prod(shape)), np.uint8)
        return (raw.astype(np.float32) / np.float32(127.5) - np.float32(1)).reshape(shape)

    def direction(self) -> tuple[float, float]:
        """A unit vector, without sine or cosine."""
        while True:
            x, y = self.between(-1, 1), self.between(-1, 1)
            length = math.sqrt(x * x + y * y)
            if 0.1 < length <= 1:
                return x / length, y / length

    def colour(self, avoid: list[Colour]) -> Colour:
        """Of ten random colours the one farthest from those in `avoid`."""
        found = [(self.between(15, 240), self.between(15, 240), self.between(15, 240)) for _ in range(10)]
        return max(found, key=lambda c: min((_distance(c, other) for other in avoid), default=0.0))


def _distance(a: Colour, b: Colour) -> float:
    """Brightness counts most, as it does to the eye."""
    red, green, blue = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return abs(red) + abs(green) + abs(blue) + abs(red + 2 * green + blue)


def limit(values: Grid) -> Grid:
    """Between 0 and 1."""
    return np.minimum(np.maximum(values, 0), 1)


def cover(distance: Grid) -> Grid:
    """The share of a pixel that an outline covers, from its signed distance."""
    return limit(0.5 - distance)


# Outlines: signed distance in pixels (negative inside) at offsets (u, v) from the centre, within the radius.


def distance_to_disc(u: Grid, v: Grid, radius: float) -> Grid:
    return np.sqrt(u * u + v * v) - radius


def distance_to_box(u: Grid, v: Grid, width: float, height: float) -> Grid:
    """`width` and `height` are half of the box's."""
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def distance_to_segment(u: Grid, v: Grid, a: tuple[float, float], b: tuple[float, float], thickness: float) -> Grid:
    du, dv = b[0] - a[0], b[1] - a[1]
    along = limit(((u - a[0]) * du + (v - a[1]) * dv) / (du * du + dv * dv))
    return distance_to_disc(u - a[0] - along * du, v - a[1] - along * dv, thickness / 2)


def blob(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    """Four discs melted together by a polynomial smooth minimum."""
    sd = distance_to_disc(u, v, radius * draw.between(0.45, 0.6))
    melt = radius * 0.35
    for _ in range(3):
        (x, y), reach = draw.direction(), radius * draw.between(0.3, 0.55)
        size = radius * 0.95 - reach
        other = distance_to_disc(u - x * reach, v - y * reach, size)
        h = np.maximum(melt - np.abs(sd - other), 0) / melt
        sd = np.minimum(sd, other) - h * h * (melt / 4)
    return sd


def box(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    side = draw.between(0.55, 0.83)
    return distance_to_box(u, v, radius * side, radius * math.sqrt(1 - side * side))


def patch(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    """The outline of every texture class."""
    return (blob, box)[draw.below(2)](u, v, radius, draw)


def disc(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    return distance_to_disc(u, v, radius)


def ring(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    half = radius * draw.between(0.11, 0.2)
    return np.abs(distance_to_disc(u, v, radius - half)) - half


def triangle(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    return np.maximum(np.abs(u) * math.sqrt(0.75) - v * 0.5, v) - radius / 2


def star(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    """Five points, folded into one: mirrored at the axis and at lines 36 degrees either side."""
    cosine = (1 + math.sqrt(5)) / 4  # of 36 degrees
    sine = math.sqrt(1 - cosine * cosine)
    u = np.abs(u)
    for x, y in ((cosine, -sine), (-cosine, -sine)):
        behind = np.maximum(u * x + v * y, 0) * 2
        u, v = u - behind * x, v - behind * y
    u, v = np.abs(u), v - radius
    inner = draw.between(0.38, 0.5) * radius
    # The edge runs from the point, now at the origin, to the inner corner 36 degrees away.
    a, b = inner * sine, inner * cosine - radius
    length = math.sqrt(a * a + b * b)
    return u * (-b / length) + v * (a / length)


def cross(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    arm = draw.between(0.2, 0.34)
    reach = math.sqrt(1 - arm * arm)
    return np.minimum(
        distance_to_box(u, v, radius * arm, radius * reach),
        distance_to_box(u, v, radius * reach, radius * arm),
    )


def _thin(radius: float, draw: Draw) -> float:
    return draw.between(3, min(6, 3 + radius / 25))


def wheel(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    """A thin rim, a hub, and six or eight spokes."""
    thin = _thin(radius, draw)
    rim = np.abs(distance_to_disc(u, v, radius - thin / 2)) - thin / 2
    sd = np.minimum(rim, distance_to_disc(u, v, radius * 0.14))
    third, quarter = (0.5, math.sqrt(0.75)), (math.sqrt(0.5), math.sqrt(0.5))
    six = ((1.0, 0.0), third, (-third[0], third[1]))
    eight = ((1.0, 0.0), (0.0, 1.0), quarter, (-quarter[0], quarter[1]))
    for x, y in (six, eight)[draw.below(2)]:
        sd = np.minimum(sd, np.maximum(np.abs(u * y - v * x) - thin / 2, distance_to_disc(u, v, radius)))
    return sd


def stool(u: Grid, v: Grid, radius: float, draw: Draw) -> Grid:
    """A seat on two to four thin legs, tied by a bar."""
    thin = _thin(radius, draw)
    wide, top, foot = draw.between(0.45, 0.7), draw.between(-0.7, -0.45), draw.between(0.6, 0.7)
    sd = distance_to_box(u, v - radius * top, radius * wide, max(radius * draw.between(0.08, 0.16), 3.5))
    legs, splay = 2 + draw.below(3), draw.between(0.75, 1.05)
    for leg in range(legs):
        x = (2 * leg / (legs - 1) - 1) * radius
        start, end = (x * wide * 0.8, radius * top), (x * splay * 0.7, radius * foot)
        sd = np.minimum(sd, distance_to_segment(u, v, start, end, thin))
    bar = radius * draw.between(0.0, 0.3)
    reach = radius * wide * 0.8
    return np.minimum(sd, distance_to_segment(u, v, (-reach, bar), (reach, bar), thin))


# The classes that shape alone tells, and those of them that hang on thin parts.
SHAPES: dict[str, Drawn] = {
    "disc": disc,
    "ring": ring,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "wheel": wheel,
    "stool": stool,
}
THIN = ("wheel", "stool")


# Textures: 0 to 1, the share of the second colour.


def _bars(u: Grid, period: float) -> Grid:
    """Half of each period 0, half 1, with edges one pixel wide."""
    phase = u / period
    saw = np.abs(phase - np.floor(phase) - 0.5)
    return limit((saw - 0.25) * period + 0.5)


def stripes(u: Grid, v: Grid, period: float, draw: Draw) -> Grid:
    return _bars(u, period)


def checks(u: Grid, v: Grid, period: float, draw: Draw) -> Grid:
    across, along = _bars(u, period * 1.5), _bars(v, period * 1.5)
    return across + along - 2 * across * along


def dots(u: Grid, v: Grid, period: float, draw: Draw) -> Grid:
    x, y = u / period, v / period
    x, y = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return cover(distance_to_disc(x * period, y * period, period * 0.31))


def noise(u: Grid, v: Grid, period: float, draw: Draw) -> Grid:
    """Random cells."""
    cell = period / 3
    table = draw.grid(97, 89)
    row, column = np.floor(u / cell).astype(np.int64) % 97, np.floor(v / cell).astype(np.int64) % 89
    return limit(table[row, column] * 1.2 + 0.5)


# The classes that texture alone tells; all wear the outline `patch`.
TEXTURES: dict[str, Drawn] = {"stripes": stripes, "checks": checks, "dots": dots, "noise": noise}


def smooth(draw: Draw, height: int, width: int, cell: int) -> Grid:
    """Noise in -1 to 1 that varies over `cell` pixels (bilinear between random corners)."""
    corners = draw.grid(height // cell + 2, width // cell + 2)
    y, x = np.arange(height), np.arange(width)
    fy = ((y % cell).astype(np.float32) / np.float32(cell))[:, None]
    fx = ((x % cell).astype(np.float32) / np.float32(cell))[None, :]
    rows = corners[y // cell] * (1 - fy) + corners[y // cell + 1] * fy
    return rows[:, x // cell] * (1 - fx) + rows[:, x // cell + 1] * fx
