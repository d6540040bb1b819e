"""What every data set is: samples with class names, a palette and the mean that the net subtracts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import VOID, read_image, read_label

Mean = tuple[float, float, float]


@dataclass(frozen=True)
class Sample:
    """One image and its ground truth."""

    name: str
    image: np.ndarray  # H x W x 3 uint8 RGB
    label: np.ndarray  # H x W uint8: class ids, or 255 for void


class Dataset(ABC):
    """Samples in file order. `mean` is BGR on the 0-255 scale, as the authors subtract it."""

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray  # K x 3 uint8 RGB
    mean: Mean
    void: int = VOID

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Sample `index` as it lies on disk, unchecked."""

    @abstractmethod
    def label_file(self, index: int) -> str:
        """What to name in a complaint about the label of sample `index`."""

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises BadInput where the label does not fit the image or the classes."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, no number {index}")
        sample = self.read(index)
        height, width = sample.label.shape
        if sample.image.shape[:2] != (height, width):
            raise BadInput(
                f"{self.label_file(index)}: the label is {width}x{height}, its image {sample.name} is "
                f"{sample.image.shape[1]}x{sample.image.shape[0]}; give the label made for that image"
            )
        wrong = [k for k in np.unique(sample.label).tolist() if k >= len(self.classes) and k != self.void]
        if wrong:
            raise BadInput(
                f"{self.label_file(index)}: holds class id {wrong[0]}, but {self.name} has ids "
                f"0 to {len(self.classes) - 1} and {self.void} for void; map it to one of these"
            )
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class Files(Dataset):
    """Pairs of an image file and a label file. Raises BadInput at once where any is missing."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], hint: str) -> None:
        for pair in pairs:
            for path in pair:
                existing(path, hint=hint)
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        image, label = self.pairs[index]
        return Sample(image.stem, read_image(image), self.read_label(label))

    def read_label(self, path: Path) -> np.ndarray:
        """H x W uint8; a data set whose labels are not stored as plain ids overrides this."""
        return read_label(path)

    def label_file(self, index: int) -> str:
        return str(self.pairs[index][1])


def read_list(path: Path, hint: str) -> list[str]:
    """The lines of a split's list file, without blank ones. Raises BadInput where there are none."""
    try:
        lines = existing(path, hint=hint).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file ({error.reason}); {hint}") from error
    if not (names := [line.strip() for line in lines if line.strip()]):
        raise BadInput(f"{path}: the list is empty; {hint}")
    return names


def list_file(folder: Path, split: str) -> Path:
    """The list of a split: `folder`/SPLIT.txt, or the split itself where it is the path of a .txt file."""
    return Path(split) if split.endswith(".txt") else folder / f"{split}.txt"
