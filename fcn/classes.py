"""What weights and models say of their classes and of their images, checked wherever a file says it."""

from __future__ import annotations

from collections.abc import Sequence

ORDERS = BGR, RGB = "BGR", "RGB"
"""In which order a net takes the channels of an image that is decoded as RGB: reversed (colours, as OpenCV gave them to
Caffe), or as they are (HHA)."""


def check(classes: Sequence[str], palette: Sequence[Sequence[int]], mean: Sequence[float]) -> None:
    """classes: names by id. palette: RGB 0-255 by id. mean: what is subtracted from the three channels of an image.

    Raises ValueError for values that are not so, TypeError for some that are no sequences.
    """
    if isinstance(classes, str) or not 1 <= len(classes) <= 255:
        raise ValueError("classes: 1 to 255 names")
    if not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise ValueError("classes: names that can be printed")
    if not len(classes) <= len(palette) <= 256:
        raise ValueError("palette: a colour for each class, 256 at most")
    if not all(len(rgb) == 3 and all(value in range(256) for value in rgb) for rgb in palette):
        raise ValueError("palette: three values 0-255 a colour")
    if len(mean) != 3 or not all(0 <= value <= 255 for value in mean):
        raise ValueError("mean: three numbers from 0 to 255")
