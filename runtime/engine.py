"""TensorRT and TensorRT-RTX run an engine: the same face as ONNX Runtime's backend.

Each concurrent caller has a lane of its own (lane.py), whose copies run beside the other lanes' kernels.

Never executed by us: no machine with a GPU was at hand. Calls and orders follow NVIDIA's documentation of TensorRT
10.16, 11.4 and TensorRT-RTX 1.7. What needs no GPU is tested (profiles.py, reuse.py, sidecar.py);
tests/runtime/test_engine_gpu.py holds the rest for whoever has a card.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing, sha256
from runtime import profiles, sidecar
from runtime.device import open_device
from runtime.lane import Lane, Shared
from runtime.library import Library, load
from runtime.metadata import Metadata
from runtime.profiles import Profile, Shape, text
from runtime.reuse import Pool

if TYPE_CHECKING:
    import tensorrt

    from runtime.segmenter import Backend

LANES = 4  # callers at once; more wait. Each has buffers of its own.
DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}
_OPEN: weakref.WeakSet[EngineBackend] = weakref.WeakSet()


class EngineBackend:
    """An open engine. `run` may be called from several threads at once."""

    name: str
    """What really runs: "TensorRT 10.16.1.11 on NVIDIA L4, CUDA graphs"."""
    metadata: Metadata

    def __init__(self, path: str | Path, fallback: Backend | None = None) -> None:
        """Open `path` and its sidecar. fallback: runs inputs outside the profiles, on the file that was built.

        Raises BadInput for a plan without a sidecar, or changed since; built by another library or version, or for
        another card; and where the library, the driver, a GPU or memory is missing.
        """
        self.path = existing(path, hint="build one with python runtime/build.py MODEL.onnx")
        about = sidecar.read(self.path)
        plan = self.path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != about.plan_sha256:
            raise BadInput(f"{path}: changed since its sidecar was written; {about.rebuild(self.path)}")
        if fallback and sha256(fallback.path) != about.onnx_sha256:
            raise BadInput(f"{fallback.path}: not the file that {path} was built from; {about.rebuild(self.path)}")
        self.about, self._fallback = about, fallback
        self.metadata = about.described()
        self.profiles = about.ranges()
        self.library = load(about.backend, about.version)
        about.check_library(self.path, self.library.version)
        self.device = open_device()
        _close_at_exit()
        about.check_gpu(self.path, self.device.name, self.device.capability)
        graphs = self.library.rtx or self.device.launches_graphs
        what = "CUDA graphs" if graphs else "no CUDA graphs (pip install cuda-bindings)"
        beyond = f"; beyond its profiles {fallback.name}" if fallback else ""
        self.name = f"{self.library} on {self.device.name}, {what}{beyond}"
        with self.device.current():
            self._shared: Shared | None = self._load(plan)
        self._pool: Pool[Lane] = Pool(self._lane, LANES)
        self._closed = False
        _OPEN.add(self)

    def run(self, x: np.ndarray) -> np.ndarray:
        """What the ONNX file takes and gives: N x 3 x H x W float32 or N x H x W x 3 uint8 -> float32 scores
        N x K x H x W or N x H x W labels.

        Raises BadInput for a size outside the profiles, MemoryError where the GPU's memory does not suffice.
        """
        if self._fallback and not self.covers(x.shape):
            return self._fallback.run(x)
        return self._timed(x)[0][self.metadata.output]

    def tops(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """As `run`, every output by name (see `expose` in export/to_onnx.py), float16 as float32."""
        return self._timed(x)[0]

    def gpu_milliseconds(self, x: np.ndarray) -> float:
        """Time on the GPU of one run, copies left out."""
        return self._timed(x, measure=True)[1]

    def covers(self, shape: tuple[int, ...]) -> bool:
        """Whether a profile holds an input of `shape`."""
        return profiles.choose(self.profiles, shape) is not None

    def largest(self, shape: Shape) -> Shape | None:
        """The greatest input that the profiles take in place of `shape`, if any."""
        return profiles.largest(self.profiles, shape)

    def close(self) -> None:
        """Release everything, once runs under way have ended. Graphs, contexts, buffers and streams go first."""
        if self._closed:
            return
        self._closed = True
        if self._fallback:
            self._fallback.close()
        with self.device.current():
            lanes = self._pool.close()
            while lanes:
                lanes.pop().close()
            self._shared = None  # the last reference to the engine, which holds the weights, and by it to the runtime

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half-opened, or the interpreter is going
            self.close()

    def _timed(self, x: np.ndarray, measure: bool = False) -> tuple[dict[str, np.ndarray], float]:
        if self._closed:
            raise ValueError(f"{self.path}: this model has been closed")
        profile = profiles.choose(self.profiles, x.shape)
        if profile is None:
            ranges = "; ".join(map(str, self.profiles))
            wider = self.about.rebuild(self.path)
            raise BadInput(
                f"{self.path}: an input of {text(x.shape)} is outside its profiles ({ranges}): rebuild it with a "
                f"profile that holds it ({wider}), or give --fallback {self.about.onnx} to run such on ONNX Runtime"
            )
        with self._pool.take() as lane, self.device.current():
            return lane.run(profile, x, measure)

    def _lane(self) -> Lane:
        if self._shared is None:
            raise ValueError(f"{self.path}: this model has been closed")
        with self.device.current():
            return Lane(self._shared)

    def _load(self, plan: bytes) -> Shared:
        """The engine, which must have the tensors and profiles that the sidecar promises. Raises BadInput."""
        trt, rebuild = self.library.trt, self.about.rebuild(self.path)
        engine: tensorrt.ICudaEngine = _deserialize(self.path, self.about, self.library, plan)
        tensors = (self.metadata.input, self.metadata.output)
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if not found >= set(tensors) or engine.get_tensor_mode(tensors[0]) != trt.TensorIOMode.INPUT:
            raise BadInput(f"{self.path}: has {', '.join(sorted(found))}, not {' and '.join(tensors)}; {rebuild}")
        types = {}
        for name in found:
            dtype: tensorrt.DataType = engine.get_tensor_dtype(name)
            if dtype.name not in DTYPES:
                raise BadInput(f"{self.path}: {name} is {dtype.name}, which numpy has not; export it with float32 ends")
            types[name] = DTYPES[dtype.name]
        ranges = [
            Profile(*map(tuple, engine.get_tensor_profile_shape(tensors[0], index)))
            for index in range(engine.num_optimization_profiles)
        ]
        if ranges != self.profiles:
            raise BadInput(f"{self.path}: other profiles than its sidecar has; {rebuild}")
        return Shared(self.path, self.library, self.device, engine, tensors[0], types)


@cache
def _close_at_exit() -> None:
    """Close what is still open when the process ends, while the device's context still is. Called once it is."""

    def close_all() -> None:
        for backend in list(_OPEN):
            backend.close()

    atexit.register(close_all)


def _deserialize(path: Path, about: sidecar.Sidecar, library: Library, plan: bytes) -> tensorrt.ICudaEngine:
    """The engine of a plan; it keeps its runtime. Raises BadInput."""
    trt = library.trt
    library.log.clear()
    try:
        runtime: tensorrt.Runtime = trt.Runtime(library.log)
    except TypeError as error:  # it returns no runtime, and says why in the log only
        raise BadInput(f"{library} cannot start ({library.log.reason()}): see the driver with nvidia-smi") from error
    if library.rtx:
        validity, _ = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            raise BadInput(f"{path}: {library} refuses it here ({library.log.reason()}); {about.rebuild(path)}")
    elif about.version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan brings its own runtime, as a program
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = library.log.reason()
        if "out of memory" in reason.lower():
            raise BadInput(f"{path}: not enough GPU memory to load it; free some (nvidia-smi lists who holds it)")
        raise BadInput(f"{path}: {library} cannot load it ({reason}); {about.rebuild(path)}")
    return engine
