"""Which parts of a large image are run one by one, and which pixels of each are kept: the whole image's, exactly.

What a net allows is derived at export (export/tiling.py) and stands in the model file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.metadata import Tiling


@dataclass(frozen=True)
class Span:
    """On one axis: pixels start..end of the image are run, and of the result first..last are kept (ends excluded)."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Tile:
    """A part of an image."""

    rows: Span
    columns: Span

    @property
    def taken(self) -> tuple[slice, slice]:
        """Of the image: what is run."""
        return slice(self.rows.start, self.rows.end), slice(self.columns.start, self.columns.end)

    @property
    def kept(self) -> tuple[slice, slice]:
        """Of the image: the pixels that this tile decides."""
        return slice(self.rows.first, self.rows.last), slice(self.columns.first, self.columns.last)

    @property
    def used(self) -> tuple[slice, slice]:
        """The same pixels in what the tile's run gives."""
        rows, columns = (slice(span.first - span.start, span.last - span.start) for span in (self.rows, self.columns))
        return rows, columns


def tiles(size: Sequence[int], largest: Sequence[int], tiling: Sequence[Tiling] | None) -> list[Tile]:
    """Tiles no larger than `largest` that together keep every pixel of an image of `size` (height and width) once.

    In the order of reading. One tile, the image, where it has to be whole (None), or `largest` is too small for tiling.
    """
    if tiling is None or any(
        most < min(pixels, axis.least) for pixels, most, axis in zip(size, largest, tiling, strict=True)
    ):
        return [Tile(*(Span(0, pixels, 0, pixels) for pixels in size))]
    rows, columns = (spans(*axis) for axis in zip(size, largest, tiling, strict=True))
    return [Tile(row, column) for row in rows for column in columns]


def spans(size: int, most: int, tiling: Tiling) -> list[Span]:
    """The parts of an axis of `size` pixels, none longer than `most`: `size`, `tiling.least`, or more."""
    if size <= most:
        return [Span(0, size, 0, size)]
    stride, low, high = tiling
    length = most // stride * stride
    step = (length - low - high) // stride * stride
    found = [Span(0, length, 0, length - high)]
    while found[-1].end < size:
        start = found[-1].start + step
        end = min(start + length, size)
        found.append(Span(start, end, found[-1].last, end if end == size else end - high))
    return found
