"""The face of the runtime: open a model file, give it an image, get its label map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import preprocess
from runtime.metadata import Metadata
from runtime.profiles import Shape
from runtime.tiles import Tile, tiles

ENGINES = (".engine", ".plan")
SIDE = 2048  # pixels of a pass where no other limit is known: FCN-8s at full width takes 3.9 GiB then
Images: TypeAlias = Sequence[np.ndarray] | np.ndarray
"""N images of one size, H x W x 3 uint8 RGB each: a list of arrays, or one array of N x H x W x 3."""
Progress: TypeAlias = Callable[[Sequence[Tile]], Iterable[Tile]]
"""What the tiles of a large image pass through, such as tqdm.tqdm."""


class Backend(Protocol):
    """What runs a model file: ONNX Runtime (ort.py), TensorRT or TensorRT-RTX (engine.py)."""

    name: str
    path: Path
    metadata: Metadata

    def run(self, x: np.ndarray) -> np.ndarray:
        """The model's input to its output. Raises MemoryError, or BadInput for an input that it does not take."""

    def tops(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """As `run`, every output of the file by name."""

    def largest(self, shape: Shape) -> Shape | None:
        """The greatest input that it takes in place of one of `shape`; None without a limit."""

    def close(self) -> None:
        """Release the model."""


class Segmenter:
    """A deployed net. One object serves several threads; use it in a `with` block or `close` it.

    with Segmenter.open("voc-fcn8s.onnx") as seg:
        labels = seg(image)              # H x W x 3 uint8 RGB -> H x W uint8 class ids
        print(seg.metadata.classes[labels[0, 0]], seg.backend)
    """

    def __init__(self, backend: Backend, tile: int | None = None) -> None:
        """tile: as in `open`. Raises BadInput for one that the net cannot do with."""
        self._backend, self._tile = backend, tile
        self.metadata = backend.metadata
        if tile is not None and self.metadata.tiling is None:
            raise BadInput(
                f"{backend.path}: knows no tiles: leave out --tile, or, if it is of an older version, export it again"
            )
        if tile is not None and tile < (least := max(axis.least for axis in self.metadata.tiling or ())):
            raise BadInput(f"--tile {tile}: too small for what a pixel of {backend.path} sees; give {least} or more")

    @classmethod
    def open(
        cls,
        path: str | Path,
        provider: str = "auto",
        threads: int | None = None,
        fallback: str | Path | None = None,
        tile: int | None = None,
    ) -> Segmenter:
        """Open a model file written by this project's export, or an engine that runtime/build.py made of one.

        provider: of ONNX Runtime: "auto" (CUDA where it loads, else the CPU), "cpu" or "cuda".
        threads: CPU threads; None leaves it to ONNX Runtime: one a core.
        fallback: for an engine, the .onnx file that it was built from: what neither the engine's profiles nor tiles
        of their size hold, and is refused otherwise, runs on ONNX Runtime.
        tile: the longest side, in pixels, of what is run at once. Larger images are run in overlapping tiles and give
        what one pass gives. None: SIDE, or what an engine's profiles take.
        Raises BadInput for a file that cannot serve, and where what it needs does not load.
        """
        path = existing(path, hint="write one with python export/to_onnx.py")
        kind = path.suffix.lower()
        if kind not in (".onnx", *ENGINES):
            raise BadInput(f"{path}: not a model file; give the .onnx file that python export/to_onnx.py wrote")
        if kind == ".onnx" and fallback is not None:
            raise BadInput(f"{path}: takes inputs of any size; --fallback is for engines")
        if kind in ENGINES and provider == "cpu":
            raise BadInput(f"{path}: an engine runs on its GPU only; give the .onnx file to run on the CPU")
        # Imported where used: each is slow, and needs what the other does not.
        from runtime.ort import OrtBackend

        if kind == ".onnx":
            return cls(OrtBackend(path, provider, threads), tile)
        from runtime.engine import EngineBackend

        return cls(EngineBackend(path, OrtBackend(fallback, provider, threads) if fallback else None), tile)

    @property
    def backend(self) -> str:
        """What really runs: "ONNX Runtime 1.31.1, CPUExecutionProvider"."""
        return self._backend.name

    def __call__(self, image: np.ndarray, progress: Progress = iter) -> np.ndarray:
        """H x W x 3 uint8 RGB -> H x W uint8 class ids. The first of equal scores wins, as in numpy's argmax.

        progress: sees the tiles pass of an image that is run in several.
        Raises BadInput for another shape or type, or an image that does not fit in memory.
        """
        return self.batch([image], progress)[0]

    def batch(self, images: Images, progress: Progress = iter) -> np.ndarray:
        """N images of one size -> N x H x W uint8 class ids. Raises BadInput as for one image."""
        return self._run(images, self._labels, progress)

    def scores(self, image: np.ndarray, progress: Progress = iter) -> np.ndarray:
        """H x W x 3 uint8 RGB -> K x H x W float32: what the net says before the softmax.

        Raises BadInput where the model gives labels only.
        """
        self.require_scores()
        return self._run([image], lambda out: out, progress)[0]

    def probabilities(self, image: np.ndarray, progress: Progress = iter) -> np.ndarray:
        """H x W x 3 uint8 RGB -> K x H x W float32 softmax over the K classes. Raises as `scores`."""
        return softmax(self.scores(image, progress))

    def require_scores(self) -> None:
        """Raises BadInput where the model gives labels only."""
        if self.metadata.io != "scores":
            raise BadInput(
                f"{self._backend.path}: gives labels, not scores; export it with "
                "python export/to_onnx.py ... --io scores"
            )

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _labels(self, out: np.ndarray) -> np.ndarray:
        return labels(out) if self.metadata.io == "scores" else out.astype(np.uint8, copy=False)

    def _run(self, images: Images, finish: Callable[[np.ndarray], np.ndarray], progress: Progress) -> np.ndarray:
        """What `finish` makes of the model's output for the images, whole or put together from tiles."""
        check(images)
        height, width = images[0].shape[:2]
        try:
            parts = self._tiles(len(images), height, width)
            if len(parts) == 1:
                return finish(self._pass(images))
            whole = np.empty(0)
            for tile in progress(parts):
                found = finish(self._pass([image[tile.taken] for image in images]))
                if not whole.size:
                    whole = np.empty((*found.shape[:-2], height, width), found.dtype)
                whole[(..., *tile.kept)] = found[(..., *tile.used)]
            return whole
        except MemoryError as error:
            many = f"{'an image' if len(images) == 1 else f'{len(images)} images'} of {height} x {width}"
            raise BadInput(
                f"{self._backend.path}: not enough memory for {many}; reduce the image, the batch or the tile"
            ) from error

    def _tiles(self, count: int, height: int, width: int) -> list[Tile]:
        """The parts of `count` images that are run one by one: the image, where it is no larger or has to be whole."""
        pixels = self.metadata.io == "image"
        limit = self._backend.largest((count, height, width, 3) if pixels else (count, 3, height, width))
        tile = self._tile or SIDE
        most = (tile, tile) if limit is None else limit[1:3] if pixels else limit[2:]
        largest = [min(side, self._tile or side) for side in most]
        return tiles((height, width), largest, self.metadata.tiling)

    def _pass(self, images: Images) -> np.ndarray:
        """The model's output, from one run."""
        height, width = images[0].shape[:2]
        pixels = self.metadata.io == "image"
        about = self.metadata
        x = np.asarray(images) if pixels else preprocess(images, about.mean, about.channel_order)
        out = self._backend.run(x)
        classes = (len(self.metadata.classes),) if self.metadata.io == "scores" else ()
        if out.shape != (expected := (len(images), *classes, height, width)):
            given, wanted = (" x ".join(map(str, shape)) for shape in (out.shape, expected))
            raise BadInput(f"{self._backend.path}: gives {given} where {wanted} is due; export it whole")
        return out


def check(images: Images) -> None:
    """Raises BadInput unless `images` are one or more H x W x 3 uint8 arrays of one size."""
    if not len(images):
        raise BadInput("no images: give at least one")
    for image in images:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            what = f"{image.dtype} of {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise BadInput(f"an image is an H x W x 3 uint8 RGB array, not {what}")
        if image.shape != images[0].shape:
            raise BadInput(f"the images of a batch are of one size: got {images[0].shape} and {image.shape}")


def labels(scores: np.ndarray) -> np.ndarray:
    """... x K x H x W scores -> ... x H x W uint8: the best class, the first of equal ones."""
    return scores.argmax(axis=-3).astype(np.uint8)


def softmax(scores: np.ndarray) -> np.ndarray:
    """K x H x W float32 scores -> probabilities; each pixel's sum to 1 within float32's rounding."""
    shares = scores - scores.max(axis=0)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    return shares
