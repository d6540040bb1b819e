"""TensorRT and TensorRT-RTX as contenders: one engine that is given, or one of each, built of the .onnx file.

What is built here has a profile for each shape that is timed, and for that shape alone. All of it needs a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contenders import FAILS, IMAGE, TENSOR, Absent, Contender, Origin, Task
from benchmarks.subject import Subject
from fcn.cli import BadInput
from fcn.files import read_json
from runtime import build, sidecar
from runtime.device import open_device
from runtime.engine import EngineBackend
from runtime.library import NAMES, load
from runtime.profiles import Shape, text
from runtime.segmenter import Segmenter

INSTALL = "engines need all of requirements-gpu.txt: see docs/deploy.md"


@dataclass(frozen=True)
class Engine:
    """An open engine, and the seconds that its build took if its sidecar has them."""

    backend: EngineBackend
    build_s: float | None

    def contenders(self, task: Task) -> list[Contender]:
        """The engine as the .onnx file's equal, and through the runtime's face."""
        backend, about = self.backend, self.backend.about
        name, precision = NAMES[about.backend], task.subject.precision + (", TF32 allowed" if about.tf32 else "")
        origin = Origin(str(backend.library), backend.device.name, precision, about.plan_sha256, self.build_s)
        layers = ", ".join(f"{count} layers {kind}" for kind, count in about.precision.items())
        given, begins = (task.images, IMAGE) if backend.metadata.io == "image" else (task.x, TENSOR)
        segment = Segmenter(backend).batch
        return [
            Contender(
                name,
                f"{backend.name.partition(', ')[2]}; {layers}",
                origin,
                lambda: backend.run(given),
                begins,
                gpu_milliseconds=lambda: backend.gpu_milliseconds(given),
            ),
            Contender(
                f"Segmenter, {name}", "image to labels", origin, lambda: segment(task.images), IMAGE, shared=True
            ),
        ]


@contextmanager
def opened(
    subject: Subject, shapes: Sequence[Shape], folder: Path, wanted: bool
) -> Iterator[tuple[list[Engine], dict[str, str]]]:
    """The engines to time, and by library's name why there is none; they are closed in the end.

    shapes: N x H x W of what will be timed. folder: for what is built here. wanted: whether the GPU may be used.
    Raises BadInput for an engine that was given and cannot run here.
    """
    engines: list[Engine] = []
    absent: dict[str, str] = {}
    try:
        if subject.engine:
            engines.append(_open(subject.engine, [input_shape(subject, shape) for shape in shapes]))
        else:
            for backend, name in NAMES.items():
                try:
                    if not wanted:
                        raise Absent("runs on a GPU only, and --device cpu was asked for")
                    engines.append(_built(subject, backend, shapes, folder))
                except Absent as reason:
                    absent[name] = str(reason)
        yield engines, absent
    finally:
        for engine in engines:
            engine.backend.close()


def present(backend: str) -> None:
    """Raises Absent where a library, or a GPU for it, is missing, with what to install."""
    try:
        open_device()
        load(backend)
    except BadInput as missing:
        raise Absent(f"{missing}; {INSTALL}") from missing


def any_present() -> bool:
    """Whether a library and a GPU for it are here."""
    for backend in NAMES:
        with contextlib.suppress(Absent):
            present(backend)
            return True
    return False


def _built(subject: Subject, backend: str, shapes: Sequence[Shape], folder: Path) -> Engine:
    """An engine of the subject's .onnx file, tried once. Raises Absent where the library is missing, or fails at it."""
    present(backend)
    path = folder / f"{backend}.engine"
    inputs = [input_shape(subject, shape) for shape in dict.fromkeys(shapes)]
    words = [str(subject.model), "-o", str(path), "--backend", backend]
    words += [word for end in ("min", "opt", "max") for word in (f"--{end}Shapes", *map(text, inputs))]
    print(f"building an engine with {load(backend)} ...", flush=True)
    try:
        build.build(build.parse(words), path, load(backend))
        engine = _open(path, inputs)
        engine.backend.run(np.zeros(inputs[0], np.uint8 if subject.metadata.io == "image" else np.float32))
    except (BadInput, MemoryError, RuntimeError) as problem:  # RuntimeError: what CUDA itself reports
        raise Absent(f"{FAILS} {problem}") from problem
    return engine


def _open(path: Path, inputs: Sequence[Shape]) -> Engine:
    backend = EngineBackend(path)
    for shape in inputs:
        if not backend.covers(shape):
            backend.close()
            ranges = "; ".join(map(str, backend.profiles))
            raise BadInput(f"{path}: {text(shape)} is outside its profiles ({ranges}); give other --sizes or --batch")
    seconds = read_json(sidecar.beside(path)).get("build_seconds")  # which runtime/ neither reads nor checks
    return Engine(backend, seconds if isinstance(seconds, float) else None)


def input_shape(subject: Subject, shape: Shape) -> Shape:
    """The shape of the file's input for N x H x W images."""
    batch, height, width = shape
    return (batch, height, width, 3) if subject.metadata.io == "image" else (batch, 3, height, width)
