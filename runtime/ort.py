"""ONNX Runtime runs a model file: on CUDA where that provider really loads, else on the CPU."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from fcn.cli import BadInput
from fcn.files import existing
from runtime.metadata import Metadata
from runtime.profiles import Shape

PROVIDERS = ("auto", "cpu", "cuda")
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# Caffe's float32 is float32: TF32 (ONNX Runtime's default from Ampere on) keeps 10 bits of the mantissa.
# Images differ in size, and for every new size the default would search all algorithms exhaustively.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
WARNING, FATAL = 2, 4  # ONNX Runtime's log severities
# Constants that are computed while a model opens may be this many times as large as its file (int8 weights become
# float32); by default each may have a gigabyte, whatever the file's size.
FOLDING = "optimization.constant_folding_max_output_size_in_bytes"
FOLDED = 4
# What a graph may take and give, as ONNX Runtime spells it.
FLOAT = ("tensor(float)",)
BLOB = FLOAT, (None, 3, None, None)
PIXELS = ("tensor(uint8)",), (None, None, None, 3)
IDS = tuple(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64))
MEMORY = re.compile(r"failed to allocate|bad.alloc|alloc_failed|out of memory", re.IGNORECASE)
AGAIN = "export it again with python export/to_onnx.py, or copy it again"


class OrtBackend:
    """An open ONNX model and the provider that runs it. `run` may be called from several threads at once."""

    name: str
    """What really runs: "ONNX Runtime 1.31.1, CPUExecutionProvider"."""
    metadata: Metadata

    def __init__(self, path: str | Path, provider: str = "auto", threads: int | None = None) -> None:
        """Open `path`. threads: CPU threads within one operator; None leaves it to ONNX Runtime (one a core).

        Raises BadInput for a missing, empty, truncated, foreign or unsupported file, and where `provider` is
        "cuda" but CUDA does not load ("auto" then takes the CPU).
        """
        if provider not in PROVIDERS:
            raise BadInput(f"provider {provider!r}: choose one of {', '.join(PROVIDERS)}")
        if threads is not None and threads < 1:
            raise BadInput(f"threads {threads}: give 1 or more")
        self.path = existing(path, hint="write one with python export/to_onnx.py")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL  # a failure is raised: the log would only say it twice
        options.intra_op_num_threads = threads or 0
        # A pattern is one block of memory, which the second run of a size takes beside the first one's pieces: of a
        # narrow FCN-8s at 1024 x 1024 1142 MiB instead of 758, and no time saved.
        options.enable_mem_pattern = False
        options.add_session_config_entry(FOLDING, str(FOLDED * self.path.stat().st_size))
        session, missing = (None, "") if provider == "cpu" else self._on_cuda(options)
        self._session = session or self._on_cpu(options)
        ran = self._session.get_providers()[0]
        if provider == "cuda" and ran != CUDA:
            raise BadInput(f"provider cuda did not load ({missing}); install what is missing, or use auto or cpu")
        self.name = f"ONNX Runtime {onnxruntime.__version__}, {ran}"
        try:
            self.metadata = Metadata.from_properties(self._session.get_modelmeta().custom_metadata_map)
            self._check_tensors()
        except BadInput as problem:
            raise BadInput(f"{path}: {problem}") from problem
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: its names are damaged ({error}); {AGAIN}") from error

    def run(self, x: np.ndarray) -> np.ndarray:
        """What the file takes and gives: N x 3 x H x W float32 (channels in their order, mean subtracted) or N x H x W
        x 3 uint8 RGB -> N x K x H x W float32 scores or N x H x W labels.

        Raises MemoryError where the memory does not suffice, BadInput where the model refuses the input (a
        graph of fixed size, say).
        """
        return self._run([self.metadata.output], x)[0]

    def tops(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """As `run`, every output by name (see `expose` in export/to_onnx.py), float16 as float32."""
        names = [] if self._session is None else [tensor.name for tensor in self._session.get_outputs()]
        tops = dict(zip(names, self._run(names, x), strict=True))
        return {name: top.astype(np.float32) if top.dtype == np.float16 else top for name, top in tops.items()}

    def _run(self, outputs: Sequence[str], x: np.ndarray) -> list[np.ndarray]:
        session = self._session
        if session is None:
            raise ValueError(f"{self.path}: this model has been closed")
        try:
            return session.run(outputs, {self.metadata.input: x})
        except Exception as error:  # ONNX Runtime's errors share no other base class
            if MEMORY.search(str(error)):
                raise MemoryError(_reason(error)) from error
            size = " x ".join(map(str, x.shape))
            raise BadInput(
                f"{self.path}: {self.name} fails on an input of {size}: {_reason(error)}; give another size, or a "
                "model that is not damaged"
            ) from error

    def largest(self, shape: Shape) -> Shape | None:
        """None: a model file sets no limit."""
        return None

    def close(self) -> None:
        """Release the model (runs under way in other threads end first)."""
        self._session = None

    def _on_cpu(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        try:
            return self._session_on([CPU], options)
        except Exception as error:
            reason = _reason(error)
            if "Protobuf parsing failed" in reason or "No graph was found" in reason:
                raise BadInput(f"{self.path}: not an ONNX model, or a truncated one; {AGAIN}") from error
            raise BadInput(
                f"{self.path}: ONNX Runtime {onnxruntime.__version__} cannot open it: {reason}; {AGAIN}"
            ) from error

    def _on_cuda(self, options: onnxruntime.SessionOptions) -> tuple[onnxruntime.InferenceSession | None, str]:
        """A session, and what CUDA lacks if it is not in it: ONNX Runtime takes the CPU and only logs why."""
        if CUDA not in onnxruntime.get_available_providers():
            return None, "this ONNX Runtime lacks it: pip install onnxruntime-gpu instead of onnxruntime"
        missing = _preload()
        # It complains to the process-wide log, whose level can be set but not read: back to the default.
        onnxruntime.set_default_logger_severity(FATAL)
        try:
            return self._session_on([(CUDA, CUDA_OPTIONS), CPU], options), missing
        except Exception as error:  # of CUDA or of the file? opening it on the CPU will tell
            return None, _reason(error)
        finally:
            onnxruntime.set_default_logger_severity(WARNING)

    def _session_on(self, providers: list[Any], options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(self.path), options, providers=providers, enable_fallback=0)

    def _check_tensors(self) -> None:
        """The graph must have the tensors that its metadata promises. Raises BadInput, without the file's name."""
        about = self.metadata
        taken = {tensor.name: tensor for tensor in self._session.get_inputs()}
        given = {tensor.name: tensor for tensor in self._session.get_outputs()}
        image = about.io == "image"
        if list(taken) != [about.input] or not _fits(taken[about.input], *(PIXELS if image else BLOB)):
            what = "N x H x W x 3 uint8" if image else "N x 3 x H x W float32"
            raise BadInput(f"lacks its sole input {about.input!r} of {what}; {AGAIN}")
        kinds, sizes = (FLOAT, (None, len(about.classes), None, None)) if about.io == "scores" else (IDS, (None,) * 3)
        if about.output not in given or not _fits(given[about.output], kinds, sizes):
            what = "scores" if about.io == "scores" else "labels"
            raise BadInput(f"lacks an output {about.output!r} with {what} of {len(about.classes)} classes; {AGAIN}")


def _preload() -> str:
    """Load CUDA and cuDNN from NVIDIA's Python packages, where installed; what is missing, in words.

    ONNX Runtime prints what it misses: it is caught here, since "auto" has nothing to complain about.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        onnxruntime.preload_dlls()
    missing = said.getvalue().splitlines()
    return missing[0] if missing else f"it needs an NVIDIA driver, CUDA {onnxruntime.cuda_version} and cuDNN"


def _fits(tensor: onnxruntime.NodeArg, kinds: Sequence[str], sizes: Sequence[int | None]) -> bool:
    """Whether a tensor is of one of `kinds` and has `sizes`; an axis that is unknown (a name or None) may have any."""
    return (
        tensor.type in kinds
        and len(tensor.shape) == len(sizes)
        and all(
            size is None or not isinstance(axis, int) or axis == size
            for axis, size in zip(tensor.shape, sizes, strict=True)
        )
    )


def _reason(error: Exception) -> str:
    """ONNX Runtime's message on one line, without its error code and the places in its C++ source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", str(error))
    text = re.sub(r"/\S+\.(cc|h):\d+ [^)]*\) ", "", text)
    return " ".join(text.split())
