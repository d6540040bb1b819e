"""A lane: what one caller at a time runs an engine with.

It owns a stream, pinned and device buffers, scratch memory, and a few execution contexts, one for each input shape it
met last, with the CUDA graph of that shape. NVIDIA's guide asks for it so: a graph is bound to the state of the context
it was captured from, hence one context a graph, all sharing one piece of scratch memory. Where a buffer moves, contexts
are bound anew and their graphs dropped.

Never executed by us: see engine.py.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcn.cli import BadInput
from runtime.device import Device, Handle
from runtime.library import Library
from runtime.profiles import Shape, text
from runtime.reuse import Recent, Replay, grown

if TYPE_CHECKING:
    import tensorrt

SCRATCH = ""  # what the scratch memory is called among the tensors' buffers: no tensor has this name
SIZES = 8  # contexts, and CUDA graphs, of a lane: images of a data set have few sizes, and the rest take turns


class Slot:
    """An execution context at one input shape, and that shape's CUDA graph."""

    def __init__(self, context: Any) -> None:
        self.context: tensorrt.IExecutionContext = context
        self.profile = -1
        self.outputs: dict[str, Shape] = {}
        self.scratch = 0
        """Bytes of scratch memory that this shape needs."""
        self.replay = Replay()


@dataclass(frozen=True)
class Shared:
    """What all lanes of an engine have in common."""

    path: Path
    """The engine's file, for messages."""
    library: Library
    device: Device
    engine: Any
    """An ICudaEngine. A context belongs to one thread at a time; what the engine makes, it makes under `lock`."""
    input: str
    """The name of the input."""
    dtypes: dict[str, Any]
    """The numpy types of the input and of every output."""
    lock: Any = field(default_factory=threading.Lock)


class Lane:
    """What one caller at a time runs with. All methods need the device's context."""

    def __init__(self, shared: Shared) -> None:
        self._shared, self._device = shared, shared.device
        self._slots: Recent[Shape, Slot] = Recent(SIZES)
        self._stream = self._device.stream()
        self._start, self._end = self._device.event(), self._device.event()
        self._memory: dict[str, Handle] = {}
        self._pinned: dict[str, np.ndarray] = {}
        self._generation = 0

    def run(self, profile: int, x: np.ndarray, measure: bool) -> tuple[dict[str, np.ndarray], float]:
        """One input to every output by name, and if asked the milliseconds in between on the GPU."""
        device, stream = self._device, self._stream
        slot = self._slots.get(x.shape) or self._prepare(profile, x.shape)
        source = self._host(self._shared.input, x.shape)
        results = {name: self._host(name, shape) for name, shape in slot.outputs.items()}
        for name, array in {self._shared.input: source, **results}.items():
            self._reserve(name, array.nbytes)
        self._reserve(SCRATCH, slot.scratch)
        self._bind(slot)
        try:
            np.copyto(source, x, casting="same_kind")
            device.upload(self._memory[self._shared.input], source, stream)
            if measure:
                device.record(self._start, stream)
            self._execute(slot)
            if measure:
                device.record(self._end, stream)
            for name, result in results.items():
                device.download(result, self._memory[name], stream)
        finally:
            device.wait(stream)
        milliseconds = device.milliseconds(self._start, self._end) if measure else math.nan
        return {name: _own(result) for name, result in results.items()}, milliseconds

    def close(self) -> None:
        """Give everything back; the stream is idle."""
        for slot in self._slots.clear():
            self._drop(slot.replay.reshaped())
            slot.context = None
        for memory in self._memory.values():
            self._device.free(memory)
        pinned, self._pinned = self._pinned, {}
        for name in list(pinned):
            self._device.unpin(pinned.pop(name))
        for handle in (self._start, self._end, self._stream):
            self._device.free(handle)

    def _prepare(self, profile: int, shape: Shape) -> Slot:
        """A context for `shape`: that of the size unused for longest, once there are SIZES of them."""
        slot = self._slots.oldest() or Slot(self._context())
        self._drop(slot.replay.reshaped())
        context = slot.context
        self._shared.library.log.clear()
        try:
            if slot.profile != profile:
                slot.profile = -1
                context.set_optimization_profile_async(profile, self._stream.value)
                slot.profile = profile
            missing = not context.set_input_shape(self._shared.input, shape) or context.infer_shapes()
        except RuntimeError as error:  # what these two raise where they fail
            raise self._failure(f"no input of {text(shape)} under profile {profile}") from error
        if missing:
            raise self._failure(f"no input of {text(shape)}")
        outputs = [name for name in self._shared.dtypes if name != self._shared.input]
        slot.outputs = {name: tuple(context.get_tensor_shape(name)) for name in outputs}
        slot.scratch = context.update_device_memory_size_for_shapes()
        self._slots.put(shape, slot)
        return slot

    def _context(self) -> tensorrt.IExecutionContext:
        """A context without scratch memory of its own: that comes with `_bind`."""
        trt, library = self._shared.library.trt, self._shared.library
        engine: tensorrt.ICudaEngine = self._shared.engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with self._shared.lock:
            library.log.clear()
            if library.rtx:  # it captures by itself, and knows when its kernels for a new size are ready
                config: tensorrt.IRuntimeConfig = engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(strategy)
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                context = engine.create_execution_context(config)
            else:
                context = engine.create_execution_context(strategy)
        if context is None:
            raise self._failure("no execution context")
        return context

    def _host(self, name: str, shape: Shape) -> np.ndarray:
        """A view of pinned memory, as an array. It moves nothing that a graph knows."""
        dtype = self._shared.dtypes[name]
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

    def _bind(self, slot: Slot) -> None:
        """Give the context the addresses of the buffers, where they have moved; its graph has the old ones."""
        if slot.replay.generation == self._generation:
            return
        self._drop(slot.replay.rebound(-1))
        context, memory = slot.context, self._memory
        context.set_device_memory(memory[SCRATCH].value, memory[SCRATCH].size)
        for name in self._shared.dtypes:
            if not context.set_tensor_address(name, memory[name].value):
                raise self._failure(f"no address for {name}")
        slot.replay.rebound(self._generation)

    def _execute(self, slot: Slot) -> None:
        """Put the net on the stream, as a graph from the third run of a shape on. TensorRT-RTX captures by itself."""
        replay, graphs = slot.replay, not self._shared.library.rtx
        if graphs and replay.step() == "capture":
            replay.captured(self._device.capture(self._stream, lambda: self._enqueue(slot)))
        if graphs and replay.step() == "launch":
            self._device.launch(replay.graph, self._stream)
            return
        if not self._enqueue(slot):
            raise self._failure("the run fails")
        replay.ran()

    def _enqueue(self, slot: Slot) -> bool:
        return slot.context.execute_async_v3(self._stream.value)

    def _drop(self, graph: Handle | None) -> None:
        if graph is not None:
            self._device.drop(graph)

    def _failure(self, what: str) -> Exception:
        library, path = self._shared.library, self._shared.path
        reason = library.log.reason()
        if "out of memory" in reason.lower():
            return MemoryError(reason)
        return BadInput(f"{path}: {library}: {what} ({reason}); build it again with python runtime/build.py")


def _own(result: np.ndarray) -> np.ndarray:
    """A copy out of the pinned memory; float16 as float32."""
    return result.astype(np.float32 if result.dtype == np.float16 else result.dtype, copy=True)
