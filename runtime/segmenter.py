"""The face of the runtime: open a model file, give it an image, get its label map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing
from fcn.images import preprocess
from runtime.metadata import Metadata

ENGINES = (".engine", ".plan")
Images: TypeAlias = Sequence[np.ndarray] | np.ndarray
"""N images of one size, H x W x 3 uint8 RGB each: a list of arrays, or one array of N x H x W x 3."""


class Backend(Protocol):
    """What runs a model file: ONNX Runtime (ort.py), TensorRT or TensorRT-RTX (engine.py)."""

    name: str
    path: Path
    metadata: Metadata

    def run(self, x: np.ndarray) -> np.ndarray:
        """The model's input to its output. Raises MemoryError, or BadInput for an input that it does not take."""

    def tops(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """As `run`, every output of the file by name."""

    def close(self) -> None:
        """Release the model."""


class Segmenter:
    """A deployed net. One object serves several threads; use it in a `with` block or `close` it.

    with Segmenter.open("voc-fcn8s.onnx") as seg:
        labels = seg(image)              # H x W x 3 uint8 RGB -> H x W uint8 class ids
        print(seg.metadata.classes[labels[0, 0]], seg.backend)
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.metadata = backend.metadata

    @classmethod
    def open(
        cls,
        path: str | Path,
        provider: str = "auto",
        threads: int | None = None,
        fallback: str | Path | None = None,
    ) -> Segmenter:
        """Open a model file written by this project's export, or an engine that runtime/build.py made of one.

        provider: of ONNX Runtime: "auto" (CUDA where it loads, else the CPU), "cpu" or "cuda".
        threads: CPU threads; None leaves it to ONNX Runtime: one a core.
        fallback: for an engine, the .onnx file that it was built from: inputs outside the engine's profiles, which
        are refused otherwise, run on ONNX Runtime.
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
            return cls(OrtBackend(path, provider, threads))
        from runtime.engine import EngineBackend

        return cls(EngineBackend(path, OrtBackend(fallback, provider, threads) if fallback else None))

    @property
    def backend(self) -> str:
        """What really runs: "ONNX Runtime 1.31.1, CPUExecutionProvider"."""
        return self._backend.name

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """H x W x 3 uint8 RGB -> H x W uint8 class ids. The first of equal scores wins, as in numpy's argmax.

        Raises BadInput for another shape or type, or an image that does not fit in memory.
        """
        return self.batch([image])[0]

    def batch(self, images: Images) -> np.ndarray:
        """N images of one size -> N x H x W uint8 class ids. Raises BadInput as for one image."""
        out = self._run(images)
        return labels(out) if self.metadata.io == "scores" else out.astype(np.uint8, copy=False)

    def scores(self, image: np.ndarray) -> np.ndarray:
        """H x W x 3 uint8 RGB -> K x H x W float32: what the net says before the softmax.

        Raises BadInput where the model gives labels only.
        """
        self.require_scores()
        return self._run([image])[0]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """H x W x 3 uint8 RGB -> K x H x W float32 softmax over the K classes. Raises as `scores`."""
        return softmax(self.scores(image))

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

    def _run(self, images: Images) -> np.ndarray:
        check(images)
        height, width = images[0].shape[:2]
        try:
            pixels = self.metadata.io == "image"
            out = self._backend.run(np.asarray(images) if pixels else preprocess(images, self.metadata.mean))
        except MemoryError as error:
            many = f"{'an image' if len(images) == 1 else f'{len(images)} images'} of {height} x {width}"
            raise BadInput(
                f"{self._backend.path}: not enough memory for {many}; reduce the image or the batch"
            ) from error
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
