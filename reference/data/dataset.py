"""What every data set is: samples with class names, a palette and the mean that the net subtracts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcn.classes import BGR
from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import VOID, preprocess, read_image, read_label

Mean = tuple[float, float, float]
# What the authors call the input of a net that has one, and its label.
INPUT, LABEL = "data", "label"


@dataclass(frozen=True)
class Sample:
    """One image in every modality that a net takes, and its ground truth, by the names of the net's inputs.

    inputs: H x W x 3 uint8 (RGB, or as the file has them), or H x W (depth); labels: H x W uint8 class ids, or 255
    for void. The first of each is `image`, which pictures show, and `label`, which the metrics are of.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    @property
    def image(self) -> np.ndarray:
        return next(iter(self.inputs.values()))

    @property
    def label(self) -> np.ndarray:
        return next(iter(self.labels.values()))


class Dataset(ABC):
    """Samples in file order. `mean` is what the authors subtract, in `channel_order`, on the 0-255 scale.

    labelled_only: classes without a labelled pixel are left out of the means (see score.metrics).
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray  # K x 3 uint8 RGB
    mean: Mean
    channel_order: str = BGR
    void: int = VOID
    labelled_only: bool = False

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of every label by its name; `classes` are those of the first."""
        return {LABEL: self.classes}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Sample `index` as it lies on disk, unchecked."""

    @abstractmethod
    def origin(self, index: int, name: str = LABEL) -> str:
        """What to name in a complaint about an input or a label of sample `index`."""

    def prepare(self, name: str, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images of one size as the net takes them as its input `name`: N x C x H x W float32, here minus mean."""
        return preprocess(images, self.mean, self.channel_order)

    def batch(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """What a net is given for samples of one size, by name: inputs as by `prepare`, labels N x 1 x H x W uint8."""
        first = samples[0]
        inputs = {name: self.prepare(name, [sample.inputs[name] for sample in samples]) for name in first.inputs}
        return inputs | {name: np.stack([sample.labels[name][None] for sample in samples]) for name in first.labels}

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises BadInput where a label does not fit the image or the classes."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, no number {index}")
        sample = self.read(index)
        for problem in self.problems(index, sample):
            raise BadInput(problem)
        return sample

    def problems(self, index: int, sample: Sample) -> Iterator[str]:
        """Whatever does not fit together in sample `index`: the sizes of its images, and its labels' sizes and ids."""
        height, width = sample.image.shape[:2]
        for name, other in sample.inputs.items():
            if other.shape[:2] != (height, width):
                yield (
                    f"{self.origin(index, name)}: is {other.shape[1]}x{other.shape[0]}, the image of {sample.name} "
                    f"is {width}x{height}; fetch {self.name} again"
                )
        for task, classes in self.tasks.items():
            label = sample.labels[task]
            if label.shape != (height, width):
                yield (
                    f"{self.origin(index, task)}: the label is {label.shape[1]}x{label.shape[0]}, its image "
                    f"{sample.name} is {width}x{height}; give the label made for that image"
                )
            wrong = [k for k in np.unique(label).tolist() if k >= len(classes) and k != self.void]
            if wrong:
                yield (
                    f"{self.origin(index, task)}: holds class id {wrong[0]}, but {self.name} has ids "
                    f"0 to {len(classes) - 1} and {self.void} for void; map it to one of these"
                )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Entry:
    """Where a sample's files lie, by the names of the net's inputs."""

    inputs: Mapping[str, Path]
    labels: Mapping[str, Path]

    @property
    def name(self) -> str:
        return next(iter(self.inputs.values())).stem

    @property
    def files(self) -> Mapping[str, Path]:
        return {**self.inputs, **self.labels}

    @classmethod
    def pair(cls, image: Path, label: Path) -> Entry:
        """An image and its label, for nets of one input."""
        return cls({INPUT: image}, {LABEL: label})


class Files(Dataset):
    """Samples that lie in files. `hint` says what to do where one is missing."""

    def __init__(self, entries: Sequence[Entry], hint: str) -> None:
        self.entries, self.hint = entries, hint

    def require(self) -> None:
        """Raises BadInput where any file is missing."""
        for entry in self.entries:
            for path in entry.files.values():
                existing(path, hint=self.hint)

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int) -> Sample:
        entry = self.entries[index]
        return Sample(
            entry.name,
            {name: self.read_input(name, path) for name, path in entry.inputs.items()},
            {name: self.read_label(name, path) for name, path in entry.labels.items()},
        )

    def read_input(self, name: str, path: Path) -> np.ndarray:
        """H x W x 3 uint8 RGB; a data set with inputs of other kinds overrides this."""
        return read_image(path)

    def read_label(self, task: str, path: Path) -> np.ndarray:
        """H x W uint8; a data set whose labels are not stored as plain ids overrides this."""
        return read_label(path)

    def origin(self, index: int, name: str = LABEL) -> str:
        return str(self.entries[index].files[name])


def float32(*mean: float) -> Mean:
    """A mean in single precision, as all data layers of the authors hold it but voc_layers.py, which has doubles.

    `fcn.images.preprocess` then rounds once, as they do: the difference of two float32 is exact in double.
    """
    blue, green, red = (float(np.float32(value)) for value in mean)
    return blue, green, red


class NoSplit(BadInput):
    """The list of a split is not there, nor can it be derived."""


def read_list(path: Path, hint: str) -> list[str]:
    """The lines of a split's list file, without blank ones. Raises NoSplit without it, BadInput where it is empty."""
    try:
        path.stat()
    except (OSError, ValueError):  # the name may be one that no file system takes
        raise NoSplit(f"{path}: no such file; {hint}") from None
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
