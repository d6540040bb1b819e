"""Images and label maps, read and written with Pillow, as the authors did (its decoder decides the pixels)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fcn.classes import BGR
from fcn.cli import BadInput
from fcn.files import atomic, existing

VOID = 255
MAX_PIXELS = 2**27  # a decoded image of 400 MB: Pillow's own guard only warns
# Pillow would go by a file's content, not its name, and hand PostScript, for one, to Ghostscript to execute.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_image(path: str | Path) -> np.ndarray:
    """H x W x 3 uint8 RGB. Grey, palette and alpha images are converted; no EXIF rotation, no resizing.

    Raises BadInput for a missing, empty, truncated or unknown file.
    """
    with _opened(path) as image:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def preprocess(images: Sequence[np.ndarray] | np.ndarray, mean: Sequence[float], order: str = BGR) -> np.ndarray:
    """N images of one size, H x W x 3 uint8 RGB -> N x 3 x H x W float32: the channels in `order`, of ORDERS in
    fcn/classes.py, minus the mean (in that order); nothing is resized.

    Bit for bit what the authors' data layers (`load_image` in voc_layers.py) and infer.py compute: they subtract a mean
    in double precision from float32 and round once. A float32 mean would round twice: a third of all values differ.
    """
    x = np.empty((len(images), 3, *images[0].shape[:2]), np.float32)
    step = -1 if order == BGR else 1
    ordered_mean = np.array(mean, np.float64)[:, None, None]
    for image, chw in zip(images, x, strict=True):
        np.subtract(image[:, :, ::step].transpose(2, 0, 1), ordered_mean, out=chw, casting="same_kind")
    return x


def read_label(path: str | Path, palette: np.ndarray | None = None) -> np.ndarray:
    """H x W uint8 class ids of a palette or grey image (VOC's palette PNG holds the ids themselves).

    palette: up to 256 x 3 uint8 RGB; with it an RGB picture in exactly its colours is read too.
    Raises BadInput for a broken file and for one that holds other colours instead of ids.
    """
    with _opened(path) as image:
        mode, pixels = image.mode, np.array(image)
    if mode == "RGB" and palette is not None:
        try:
            return ids(pixels, palette)
        except ValueError as error:
            raise BadInput(f"{path}: {error}; give ids, or a lossless picture in the palette's colours") from error
    if mode not in ("P", "L", "1"):
        raise BadInput(f"{path}: holds {mode} values, not class ids; give the palette or grey label image")
    return pixels.astype(np.uint8)


def ids(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 RGB as H x W uint8 ids: the undoing of `colour`.

    Raises ValueError for a colour that the palette (up to 256 x 3 uint8, all different) does not hold.
    """
    weights = np.array([1 << 16, 1 << 8, 1])
    colours, codes = picture @ weights, palette @ weights
    order = np.argsort(codes)
    places = order[np.searchsorted(codes, colours, sorter=order).clip(max=len(codes) - 1)]
    wrong = np.argwhere(codes[places] != colours)
    if len(wrong):
        row, column = wrong[0].tolist()
        shown = ", ".join(map(str, picture[row, column].tolist()))
        raise ValueError(f"the colour ({shown}) in row {row}, column {column} is no class's")
    return places.astype(np.uint8)


def read_depth(path: str | Path) -> np.ndarray:
    """H x W uint16 or int32 of a grey image of more than 8 bits, as depth is stored.

    Raises BadInput for a broken file and for one of another kind.
    """
    with _opened(path) as image:
        mode, pixels = image.mode, np.asarray(image)
    if not mode.startswith("I"):
        raise BadInput(f"{path}: holds {mode} values, not depth; give the 16-bit grey image")
    return pixels


def write_label(path: str | Path, label: np.ndarray, palette: np.ndarray) -> None:
    """Write H x W uint8 ids as a palette PNG. palette: up to 256 x 3 uint8 RGB."""
    image = Image.fromarray(np.ascontiguousarray(label, np.uint8), mode=None)
    image.putpalette(np.ascontiguousarray(palette, np.uint8).tobytes())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write H x W x 3 uint8 RGB; the format follows the suffix."""
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image, np.uint8)).save(temporary)


def voc_palette() -> np.ndarray:
    """PASCAL VOC's 256 x 3 uint8 RGB palette: each id's bits are dealt to R, G, B from the highest bit down."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
    return palette


def colour(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """H x W ids as H x W x 3 uint8 RGB; ids beyond the palette (void) are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: min(len(palette), 256)] = palette[:256]
    return table[label]


def overlay(image: np.ndarray, label: np.ndarray, palette: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """The image with every class but background (0) and void laid over it in its colour; H x W x 3 uint8."""
    result = np.empty_like(image)
    for row, ids, out in zip(image, label, result, strict=True):  # row by row: in floats a large image takes gigabytes
        mixed = (1 - opacity) * row + opacity * colour(ids, palette)
        shown = ((ids != 0) & (ids != VOID))[:, None]
        out[:] = np.where(shown, mixed.round(), row)
    return result


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The image, of which the body decodes the pixels. Whatever goes wrong in it is the file's fault: BadInput."""
    path = existing(path)
    try:
        # Pillow warns of odd metadata, which does not change the pixels, and of the size, which is checked here.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            yield image
    except BadInput:
        raise
    except UnidentifiedImageError as error:
        raise BadInput(
            f"{path}: not an image of a known format ({', '.join(FORMATS)}); convert or remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path}: has no pixel or more than {MAX_PIXELS} ({error}); give a smaller image") from error
    except MemoryError as error:
        raise BadInput(f"{path}: not enough memory for its pixels; give a smaller image") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds, without a common base
        raise BadInput(f"{path}: broken image ({error}); fetch it again") from error
