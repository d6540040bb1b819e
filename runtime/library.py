"""TensorRT 10 or 11, or TensorRT-RTX: found, named and imported here; everything else takes it as a `Library`.

The three share one interface in Python. What only one of them has stands behind `Library.rtx`, and a test looks
every name up in the lists of the versions that must have it (tests/runtime/test_trt_names.py).
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from fcn.cli import BadInput

BACKENDS = ("auto", "tensorrt", "tensorrt-rtx")
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-cu13"}
KEPT = 200_000  # lines of the library's log: a verbose build writes half as many, a run next to none


@dataclass(frozen=True)
class Library:
    """One of the libraries, imported. Its engines are opened by no other."""

    backend: str
    """"tensorrt" or "tensorrt-rtx"."""
    version: str
    trt: Any
    """The module."""
    log: Any
    """The one logger of this process (an ILogger): the library takes the first that it is given for good."""

    @property
    def rtx(self) -> bool:
        """Whether this is TensorRT-RTX: its engines are finished on the card where they run."""
        return self.backend == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{NAMES[self.backend]} {self.version}"


def load(backend: str = "auto", version: str | None = None) -> Library:
    """Import a library; "auto" takes TensorRT where it is installed, else TensorRT-RTX.

    version: what an installation command should ask for. Raises BadInput where it is not installed or not whole.
    """
    if backend not in BACKENDS:
        raise BadInput(f"backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    problems = []
    for name in MODULES if backend == "auto" else (backend,):
        try:
            return _library(name)
        except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
            problems.append(f"{NAMES[name]}: {error}")
    package = PACKAGES["tensorrt" if backend == "auto" else backend]
    wanted = f"{package}=={version}" if version else package
    other = f" (or {PACKAGES['tensorrt-rtx']}, for RTX cards)" if backend == "auto" else ""
    raise BadInput(f"not installed, or not whole ({'; '.join(problems)}): pip install {wanted}{other}")


@cache
def _library(backend: str) -> Library:
    trt = importlib.import_module(MODULES[backend])
    return Library(backend, trt.__version__, trt, _log(trt))


def _log(trt: Any) -> Any:
    """A logger that keeps the last KEPT lines, and prints none: what matters is raised, or written to a file."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: "error",
        trt.ILogger.ERROR: "error",
        trt.ILogger.WARNING: "warning",
        trt.ILogger.INFO: "info",
        trt.ILogger.VERBOSE: "verbose",
    }

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[tuple[str, str]] = deque(maxlen=KEPT)
            self.verbose = False

        def log(self, severity: Any, msg: str) -> None:  # called from the library's own threads too
            level = levels.get(severity, "error")
            if self.verbose or level != "verbose":
                self.lines.append((level, msg))

        def clear(self) -> None:
            self.lines.clear()

        def reason(self) -> str:
            """The errors since `clear` as one text, each once."""
            errors = dict.fromkeys(text for level, text in list(self.lines) if level == "error")
            return "; ".join(errors) or "the library gives no reason"

        def text(self) -> str:
            """All lines since `clear`."""
            return "".join(f"{level}: {text}\n" for level, text in list(self.lines))

    return Log()
