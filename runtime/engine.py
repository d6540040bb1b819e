"""TensorRT and TensorRT-RTX run an engine: the same face as ONNX Runtime's backend.

Each concurrent caller has a lane: a stream, pinned and device buffers, scratch memory, and a few execution contexts,
one for each size it met last, with the CUDA graph of that size. NVIDIA's guide asks for it so: a graph is bound to
the state of the context it was captured from, hence one context a graph, all sharing one piece of scratch memory.
A lane's copies run beside the other lanes' kernels.

Never executed by us: no machine with a GPU was at hand. Calls and orders follow NVIDIA's documentation of TensorRT
10.16, 11.4 and TensorRT-RTX 1.7; what needs no GPU is tested (profiles.py, reuse.py, sidecar.py), and tests/test_gpu.py
holds the rest for whoever has a card.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import math
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcn.cli import BadInput
from fcn.files import existing, sha256
from runtime import profiles, sidecar
from runtime.device import Device, Handle, open_device
from runtime.library import Library, load
from runtime.metadata import Metadata
from runtime.profiles import Profile, Shape, text
from runtime.reuse import Pool, Recent, grown

if TYPE_CHECKING:
    import tensorrt

    from runtime.segmenter import Backend

LANES = 4  # callers at once; more wait. Each has buffers of its own.
SIZES = 8  # contexts, and CUDA graphs, of a lane: images of a data set have few sizes, and the rest take turns
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
            self._runtime, self._engine = _deserialize(self.path, about, self.library, plan)
        self._pool: Pool[_Lane] = Pool(self._lane, LANES)
        self._closed = False
        _OPEN.add(self)
        try:
            self._check_tensors()
        except BadInput:
            self.close()
            raise

    def run(self, x: np.ndarray) -> np.ndarray:
        """What the ONNX file takes and gives: N x 3 x H x W float32 or N x H x W x 3 uint8 -> float32 scores
        N x K x H x W or N x H x W labels.

        Raises BadInput for a size outside the profiles, MemoryError where the GPU's memory does not suffice.
        """
        if self._fallback and not self.covers(x.shape):
            return self._fallback.run(x)
        return self._timed(x)[0]

    def gpu_milliseconds(self, x: np.ndarray) -> float:
        """Time on the GPU of one run, copies left out."""
        return self._timed(x, measure=True)[1]

    def covers(self, shape: tuple[int, ...]) -> bool:
        """Whether a profile holds an input of `shape`."""
        return profiles.choose(self.profiles, shape) is not None

    def close(self) -> None:
        """Release everything, once runs under way have ended. Graphs, contexts, buffers and streams go first."""
        if self._closed:
            return
        self._closed = True
        if self._fallback:
            self._fallback.close()
        with self.device.current():
            for lane in self._pool.close():
                lane.close()
            self._engine = None  # a plan's weights are freed with the last context and the engine
            self._runtime = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half-opened, or the interpreter is going
            self.close()

    def _timed(self, x: np.ndarray, measure: bool = False) -> tuple[np.ndarray, float]:
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

    def _lane(self) -> _Lane:
        with self.device.current():
            return _Lane(self)

    def _check_tensors(self) -> None:
        """The plan must have the tensors and profiles that the sidecar promises. Raises BadInput."""
        trt, engine = self.library.trt, self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {self.metadata.input, self.metadata.output}
        if not wanted <= found or engine.get_tensor_mode(self.metadata.input) != trt.TensorIOMode.INPUT:
            raise BadInput(f"{self.path}: has {sorted(found)}, not {sorted(wanted)}; {self.about.rebuild(self.path)}")
        actual = [
            Profile(*map(tuple, engine.get_tensor_profile_shape(self.metadata.input, index)))
            for index in range(engine.num_optimization_profiles)
        ]
        if actual != self.profiles:
            raise BadInput(f"{self.path}: other profiles than its sidecar has; {self.about.rebuild(self.path)}")


@cache
def _close_at_exit() -> None:
    """Close what is still open when the process ends, while the device's context still is. Called once it is."""

    def close_all() -> None:
        for backend in list(_OPEN):
            backend.close()

    atexit.register(close_all)


def _deserialize(path: Path, about: sidecar.Sidecar, library: Library, plan: bytes) -> tuple[Any, Any]:
    """The runtime and the engine of a plan. Raises BadInput."""
    trt = library.trt
    library.log.clear()
    runtime: tensorrt.Runtime = trt.Runtime(library.log)
    if about.version_compatible and not library.rtx:
        runtime.engine_host_code_allowed = True  # such a plan brings its own runtime, as a program
    if library.rtx:
        validity, _ = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            raise BadInput(f"{path}: {library} refuses it here ({library.log.reason()}); {about.rebuild(path)}")
    engine: tensorrt.ICudaEngine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = library.log.reason()
        if "out of memory" in reason.lower():
            raise BadInput(f"{path}: not enough GPU memory to load it; free some (nvidia-smi lists who holds it)")
        raise BadInput(f"{path}: {library} cannot load it ({reason}); {about.rebuild(path)}")
    return runtime, engine


class _Slot:
    """An execution context at one input shape, and that shape's CUDA graph."""

    def __init__(self, context: Any) -> None:
        self.context: tensorrt.IExecutionContext = context
        self.profile = -1
        self.output: Shape = ()
        self.scratch = 0
        """Bytes of scratch memory that this shape needs."""
        self.bound = -1
        """Generation of the lane's buffers whose addresses the context has."""
        self.warm = False
        """Whether it ran since the shape or an address changed: before, nothing may be captured."""
        self.graph: Handle | None = None
        self.capturable = True


class _Lane:
    """What one caller at a time runs with. All methods need the device's context."""

    def __init__(self, backend: EngineBackend) -> None:
        self._device: Device = backend.device
        self._library = backend.library
        self._trt = backend.library.trt
        self._engine: tensorrt.ICudaEngine = backend._engine
        self._path = backend.path
        self._input, self._output = backend.metadata.input, backend.metadata.output
        self._dtypes = tuple(self._dtype(name) for name in (self._input, self._output))
        self._slots: Recent[Shape, _Slot] = Recent(SIZES)
        self._stream = self._device.stream()
        self._start, self._end = self._device.event(), self._device.event()
        self._memory: dict[str, Handle] = {}
        self._pinned: dict[str, np.ndarray] = {}
        self._generation = 0

    def run(self, profile: int, x: np.ndarray, measure: bool) -> tuple[np.ndarray, float]:
        """One input to its output, and if asked the milliseconds in between on the GPU."""
        device, stream = self._device, self._stream
        slot = self._slots.get(x.shape) or self._prepare(profile, x.shape)
        source = self._host("input", self._dtypes[0], x.shape)
        result = self._host("output", self._dtypes[1], slot.output)
        self._reserve("input", source.nbytes)
        self._reserve("output", result.nbytes)
        self._reserve("scratch", slot.scratch)
        self._bind(slot)
        try:
            np.copyto(source, x, casting="same_kind")
            device.upload(self._memory["input"], source, stream)
            if measure:
                device.record(self._start, stream)
            self._execute(slot)
            if measure:
                device.record(self._end, stream)
            device.download(result, self._memory["output"], stream)
        finally:
            device.wait(stream)
        milliseconds = device.milliseconds(self._start, self._end) if measure else math.nan
        return result.astype(np.float32 if result.dtype == np.float16 else result.dtype, copy=True), milliseconds

    def close(self) -> None:
        """Give everything back; the stream is idle."""
        for slot in self._slots.clear():
            self._forget(slot)
            slot.context = None
        for memory in self._memory.values():
            self._device.free(memory)
        pinned, self._pinned = self._pinned, {}
        for name in list(pinned):
            self._device.unpin(pinned.pop(name))
        for handle in (self._start, self._end, self._stream):
            self._device.free(handle)
        self._engine = None

    def _dtype(self, name: str) -> Any:
        dtype: tensorrt.DataType = self._engine.get_tensor_dtype(name)
        return DTYPES[dtype.name]

    def _prepare(self, profile: int, shape: Shape) -> _Slot:
        """A context for `shape`: that of the size unused for longest, once there are SIZES of them."""
        slot = self._slots.oldest() or _Slot(self._context())
        self._forget(slot)
        context, log = slot.context, self._library.log
        log.clear()
        if slot.profile != profile:
            slot.profile = -1
            if not context.set_optimization_profile_async(profile, self._stream.value):
                raise self._failure(f"no profile {profile}")
            slot.profile = profile
        if not context.set_input_shape(self._input, shape) or context.infer_shapes():
            raise self._failure(f"no input of {text(shape)}")
        slot.output = tuple(context.get_tensor_shape(self._output))
        slot.scratch = context.update_device_memory_size_for_shapes()
        slot.bound, slot.capturable = -1, True
        self._slots.put(shape, slot)
        return slot

    def _context(self) -> tensorrt.IExecutionContext:
        """A context without scratch memory of its own: that comes with `_bind`."""
        trt, engine = self._trt, self._engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._library.log.clear()
        if self._library.rtx:  # it captures by itself, and knows when its kernels for a new size are ready
            config: tensorrt.IRuntimeConfig = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            raise self._failure("no execution context")
        return context

    def _host(self, name: str, dtype: Any, shape: Shape) -> np.ndarray:
        """A view of pinned memory, as an array. It moves nothing that a graph knows."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        held = self._pinned[name].nbytes if name in self._pinned else 0
        if size > held:
            if held:
                self._device.unpin(self._pinned.pop(name))
            self._pinned[name] = self._device.pin(grown(held, size))
        return self._pinned[name][:size].view(dtype).reshape(shape)

    def _reserve(self, name: str, size: int) -> None:
        """Have `size` bytes of device memory. Where it moves, every context must be bound anew."""
        held = self._memory[name].size if name in self._memory else 0
        if size > held or name not in self._memory:
            if name in self._memory:
                self._device.free(self._memory.pop(name))
            self._generation += 1
            self._memory[name] = self._device.allocate(grown(held, max(size, 1)))

    def _bind(self, slot: _Slot) -> None:
        """Give the context the addresses of the buffers, where they have moved; its graph has the old ones."""
        if slot.bound == self._generation:
            return
        self._forget(slot)
        context, memory = slot.context, self._memory
        context.set_device_memory(memory["scratch"].value, memory["scratch"].size)
        for name, role in ((self._input, "input"), (self._output, "output")):
            if not context.set_tensor_address(name, memory[role].value):
                raise self._failure(f"no address for {name}")
        slot.bound = self._generation

    def _execute(self, slot: _Slot) -> None:
        """Put the net on the stream: as a graph from the third run of a size on, kernel by kernel before.

        The first run lets the library do what a change of shape or address left to do: that cannot be captured.
        """
        if slot.graph is None and slot.warm and slot.capturable and not self._library.rtx:
            slot.graph = self._device.capture(self._stream, lambda: self._enqueue(slot))
            slot.capturable = slot.graph is not None
        if slot.graph is not None:
            self._device.launch(slot.graph, self._stream)
        elif not self._enqueue(slot):
            raise self._failure("the run fails")
        slot.warm = True

    def _enqueue(self, slot: _Slot) -> bool:
        return slot.context.execute_async_v3(self._stream.value)

    def _forget(self, slot: _Slot) -> None:
        """Drop a slot's graph: what it was captured from changes."""
        if slot.graph is not None:
            self._device.drop(slot.graph)
        slot.graph, slot.warm = None, False

    def _failure(self, what: str) -> Exception:
        reason = self._library.log.reason()
        if "out of memory" in reason.lower():
            return MemoryError(reason)
        return BadInput(
            f"{self._path}: {self._library}: {what} ({reason}); build it again with python runtime/build.py"
        )
