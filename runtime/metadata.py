"""What a model file says of itself: all that the runtime needs to know of training travels inside the file.

In ONNX it is a handful of `metadata_props`, one for each field, under keys that start with `fcn.`; text
stands as it is, everything else as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from fcn.classes import BGR, ORDERS, check
from fcn.cli import BadInput

FORMAT = 1
PREFIX = "fcn."
# Fields that files of earlier versions lack; their defaults stand for that.
LATER = ("tiling",)
FOREIGN = "not a model written by this project's export; use python export/to_onnx.py"


class Tiling(NamedTuple):
    """How an image may be cut on one axis so that its parts give what the whole gives; all in pixels.

    A part that begins at a multiple of `stride`, and ends at one or with the image, gives the whole's labels from `low`
    pixels after its beginning until `high` before its end, and up to its end where that is the image's.
    """

    stride: int
    low: int
    high: int

    @property
    def least(self) -> int:
        """The shortest part that is of use: the next one begins a stride later."""
        return (-(-(self.low + self.high) // self.stride) + 1) * self.stride


@dataclass(frozen=True)
class Metadata:
    """The names, numbers and origin of a deployed net. Sequences may be given as lists; they become tuples.

    Raises ValueError where the values contradict one another or this version cannot honour them.
    """

    net: str
    """Name of the net, such as "voc-fcn8s"."""
    classes: tuple[str, ...]
    """Names of the classes, by id."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB colours 0-255, by id: one a class at least, 256 at most."""
    mean: tuple[float, float, float]
    """What is subtracted from a 0-255 image, in `channel_order`, in double precision as the authors did."""
    io: str
    """"scores": N x K x H x W float32 comes out; "labels": N x H x W integer class ids; "image": labels, of pixels."""
    input: str
    """Name of the tensor that takes N x 3 x H x W float32; where `io` is "image", N x H x W x 3 uint8 RGB."""
    output: str
    """Name of the tensor that `io` describes."""
    weights_sha256: str
    """SHA-256 of the weights that were exported."""
    definition: str = ""
    """The net as Caffe's prototxt, without losses: what the file claims to compute; "" where nobody knows."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the weights come from: recipe, iteration, command, date, versions... anything that JSON holds."""
    channel_order: str = BGR
    """Of fcn.classes.ORDERS."""
    void: int = 255
    """The label that means "no class" in ground truth; a net never gives it."""
    tiling: tuple[Tiling, Tiling] | None = None
    """For height and width; None where a label depends on the whole image, or nobody knows."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        check(self.classes, self.palette, self.mean)
        for name, value in (
            ("classes", tuple(self.classes)),
            ("palette", tuple(tuple(colour) for colour in self.palette)),
            ("mean", tuple(self.mean)),
        ):
            object.__setattr__(self, name, value)
        if self.channel_order not in ORDERS:
            raise ValueError(f"channel_order {self.channel_order!r}: only {' and '.join(ORDERS)} are supported")
        if self.io not in ("scores", "labels", "image"):
            raise ValueError(f'io {self.io!r}: only "scores", "labels" and "image" are supported')
        if self.void not in range(len(self.classes), 256):
            raise ValueError(f"void {self.void!r}: a label above the class ids, 255 at most")
        if self.tiling is not None:
            object.__setattr__(self, "tiling", tuple(Tiling(*axis) for axis in self.tiling))
            if len(self.tiling) != 2 or not all(type(n) is int and n >= 0 for axis in self.tiling for n in axis):
                raise ValueError("tiling: for height and width a stride and two numbers of pixels")
            if not all(axis.stride for axis in self.tiling):
                raise ValueError("tiling: a stride of 0")
        if not isinstance(self.provenance, dict):
            raise ValueError("provenance: a dictionary")

    def to_properties(self) -> dict[str, str]:
        """One entry for each field, ready for ONNX's metadata_props."""
        values = {PREFIX + entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Metadata:
        """Read back what `to_properties` wrote; other keys are ignored.

        Raises BadInput for a model without these entries, with broken ones, or with those of a newer format.
        The message does not name the file: the caller knows it.
        """
        if PREFIX + "format" not in properties:
            raise BadInput(FOREIGN)
        try:
            version = int(properties[PREFIX + "format"])
            if version < 1:
                raise ValueError(f"format {version}")
            if version > FORMAT:
                raise BadInput(
                    f"written by a newer version of this project (format {version}, this one reads up to "
                    f"{FORMAT}); update this installation"
                )
            values: dict[str, Any] = {}
            for entry in fields(cls):
                if entry.name in LATER and PREFIX + entry.name not in properties:
                    continue
                text = properties[PREFIX + entry.name]
                values[entry.name] = text if entry.type == "str" else json.loads(text)
            return cls(**values)
        except KeyError as error:
            raise BadInput(f"its metadata lacks {error}; export it again with python export/to_onnx.py") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise BadInput(
                f"its metadata is broken ({error}); export it again with python export/to_onnx.py"
            ) from error
