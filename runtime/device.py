"""One GPU through the CUDA driver: memory, pinned memory, streams, events, copies and graphs, and nothing else.

pycuda does it, or NVIDIA's cuda-bindings where pycuda is missing. CUDA graphs always go through cuda-bindings (pycuda
has no call for them): with pycuda alone everything runs, without graphs.

Everything happens in the device's primary context, the one that torch, ONNX Runtime and TensorRT use in the same
process. It is pushed and popped around each use, thread by thread, and never made current for good (as
`pycuda.autoinit` would do with a context of its own). It stays retained until the process ends, as torch keeps it:
the next engine needs it again.

No line below `open_device` has ever been executed by us: no machine with a GPU was at hand.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fcn.cli import BadInput

INSTALL = "pip install pycuda (it compiles: the CUDA toolkit must be there), or pip install cuda-bindings"
NO_DRIVER = "install NVIDIA's driver (nvidia-smi must list the GPU), or run the .onnx file, which needs none"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no waiting for the legacy default stream, which others may use


@dataclass
class Handle:
    """A stream, an event, a graph or a piece of device memory; `Device.free` gives it back."""

    value: int
    """What TensorRT takes: a device address or a CUstream."""
    owner: Any
    """What the binding knows it by; None once it is freed."""
    size: int = 0
    """Bytes of device memory."""


class Device(ABC):
    """A GPU. All methods but `current` need its context: call them within `with device.current():`."""

    name: str
    """"NVIDIA GeForce RTX 4090"."""
    capability: str
    """Compute capability, such as "8.9"."""
    cuda: str
    """The CUDA version that the driver supports, such as "13.0"."""
    binding: str
    """"pycuda 2026.1" or "cuda-bindings 13.5.0"."""

    def __init__(self, graphs: Any) -> None:
        self._graphs = graphs  # cuda.bindings.driver, or None
        self.launches_graphs = graphs is not None

    @abstractmethod
    def current(self) -> Any:
        """A context manager: the primary context is this thread's current one within the block."""

    @abstractmethod
    def allocate(self, size: int) -> Handle:
        """`size` bytes of device memory, aligned to 256. Raises MemoryError."""

    @abstractmethod
    def pin(self, size: int) -> np.ndarray:
        """`size` bytes of page-locked host memory as uint8: copies from and to it are asynchronous. MemoryError."""

    @abstractmethod
    def unpin(self, array: np.ndarray) -> None:
        """Give back what `pin` gave; no view of it may be used after."""

    @abstractmethod
    def stream(self) -> Handle:
        """A stream that does not wait for the default one."""

    @abstractmethod
    def event(self) -> Handle:
        """A point in a stream that `record` sets and `milliseconds` measures between."""

    @abstractmethod
    def record(self, event: Handle, stream: Handle) -> None:
        """Set `event` behind all that `stream` has to do so far."""

    @abstractmethod
    def milliseconds(self, start: Handle, end: Handle) -> float:
        """GPU time between two events that have passed."""

    @abstractmethod
    def upload(self, memory: Handle, array: np.ndarray, stream: Handle) -> None:
        """Start copying `array` (pinned, contiguous) to the device."""

    @abstractmethod
    def download(self, array: np.ndarray, memory: Handle, stream: Handle) -> None:
        """Start copying device memory into all of `array` (pinned, contiguous)."""

    @abstractmethod
    def wait(self, stream: Handle) -> None:
        """Until `stream` has done everything; raises where something in it failed. Other threads run meanwhile."""

    @abstractmethod
    def free(self, handle: Handle) -> None:
        """Give a handle back, once. Memory must not be in use: `wait` first."""

    def capture(self, stream: Handle, work: Callable[[], bool]) -> Handle | None:
        """What `work` puts on `stream` as a graph, not executed; None where that is impossible.

        work: returns whether it could. Other threads go on allocating and copying: only this one is watched.
        """
        if self._graphs is None:
            return None
        driver = self._graphs
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call(driver, driver.cuStreamBeginCapture, stream.value, mode)
        done = False
        try:
            done = work()
        finally:  # a stream that is left capturing can do nothing else any more
            status, graph = driver.cuStreamEndCapture(stream.value)
        if not done or status != driver.CUresult.CUDA_SUCCESS:
            return None
        try:
            executable = _call(driver, driver.cuGraphInstantiate, graph, 0)
        finally:
            _call(driver, driver.cuGraphDestroy, graph)
        return Handle(int(executable), executable)

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Start a captured graph."""
        _call(self._graphs, self._graphs.cuGraphLaunch, graph.owner, stream.value)

    def drop(self, graph: Handle) -> None:
        """Give a captured graph back, once it runs no more."""
        _call(self._graphs, self._graphs.cuGraphExecDestroy, graph.owner)


@cache
def open_device() -> Device:
    """The first GPU that CUDA lists (CUDA_VISIBLE_DEVICES chooses which that is).

    Raises BadInput, with what to install, where there is no binding, no driver or no GPU.
    """
    problems, installed = [], False
    for package, kind in (("pycuda", _PyCuda), ("cuda-bindings", _CudaBindings)):
        try:
            return kind()
        except ModuleNotFoundError:
            problems.append(f"{package} is not installed")
        except Exception as error:  # each binding has its own: no driver, no device, a driver too old
            problems.append(f"{package}: {error}")
            installed = True
    raise BadInput(f"no GPU can be used ({'; '.join(problems)}): {NO_DRIVER if installed else INSTALL}")


def driver_version() -> str | None:
    """NVIDIA's driver, such as "580.95.05"; None where nvidia-smi cannot tell."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


class _PyCuda(Device):
    """Through pycuda. Its objects free themselves only where their context is current: `free` is not optional."""

    def __init__(self) -> None:
        import pycuda
        import pycuda.driver as cuda

        cuda.init()
        try:
            graphs = importlib.import_module("cuda.bindings.driver")
        except ImportError:
            graphs = None
        super().__init__(graphs)
        device = cuda.Device(0)
        self._cuda = cuda
        self._context = device.retain_primary_context()
        atexit.register(self._context.detach)  # else pycuda's destructor takes it for a context of its own, and warns
        self.name = device.name()
        self.capability = "{}.{}".format(*device.compute_capability())
        self.cuda = _dotted(cuda.get_driver_version())
        self.binding = f"pycuda {pycuda.VERSION_TEXT}"

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int) -> Handle:
        with self._memory():
            owner = self._cuda.mem_alloc(size)
        return Handle(int(owner), owner, size)

    def pin(self, size: int) -> np.ndarray:
        with self._memory():
            return self._cuda.pagelocked_empty(size, np.uint8)

    def unpin(self, array: np.ndarray) -> None:
        owner: Any = array.base
        owner.free()

    def stream(self) -> Handle:
        owner = self._cuda.Stream(NON_BLOCKING)
        return Handle(owner.handle, owner)

    def event(self) -> Handle:
        return Handle(0, self._cuda.Event())

    def record(self, event: Handle, stream: Handle) -> None:
        event.owner.record(stream.owner)

    def milliseconds(self, start: Handle, end: Handle) -> float:
        return start.owner.time_till(end.owner)

    def upload(self, memory: Handle, array: np.ndarray, stream: Handle) -> None:
        self._cuda.memcpy_htod_async(memory.value, array, stream.owner)

    def download(self, array: np.ndarray, memory: Handle, stream: Handle) -> None:
        self._cuda.memcpy_dtoh_async(array, memory.value, stream.owner)

    def wait(self, stream: Handle) -> None:
        with self._memory():
            stream.owner.synchronize()

    def free(self, handle: Handle) -> None:
        if handle.size:
            handle.owner.free()
        handle.owner = None  # the last reference: a stream or an event is destroyed by it

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """pycuda's MemoryError is none of Python's."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise MemoryError(str(error)) from error


class _CudaBindings(Device):
    """Through cuda-bindings: the driver's C functions, each of which returns its status first."""

    def __init__(self) -> None:
        driver = importlib.import_module("cuda.bindings.driver")
        version = importlib.import_module("cuda.bindings").__version__
        super().__init__(driver)
        self._driver = driver
        self._call(driver.cuInit, 0)
        device = self._call(driver.cuDeviceGet, 0)
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        self.name = self._call(driver.cuDeviceGetName, 256, device).split(b"\0")[0].decode()
        attribute = driver.CUdevice_attribute
        numbers = (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
        self.capability = ".".join(str(self._call(driver.cuDeviceGetAttribute, each, device)) for each in numbers)
        self.cuda = _dotted(self._call(driver.cuDriverGetVersion))
        self.binding = f"cuda-bindings {version}"

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._driver.cuCtxPopCurrent)

    def allocate(self, size: int) -> Handle:
        owner = self._call(self._driver.cuMemAlloc, size)
        return Handle(int(owner), owner, size)

    def pin(self, size: int) -> np.ndarray:
        address = int(self._call(self._driver.cuMemAllocHost, size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def unpin(self, array: np.ndarray) -> None:
        self._call(self._driver.cuMemFreeHost, array.ctypes.data)

    def stream(self) -> Handle:
        owner = self._call(self._driver.cuStreamCreate, NON_BLOCKING)
        return Handle(int(owner), owner)

    def event(self) -> Handle:
        owner = self._call(self._driver.cuEventCreate, 0)
        return Handle(int(owner), owner)

    def record(self, event: Handle, stream: Handle) -> None:
        self._call(self._driver.cuEventRecord, event.owner, stream.owner)

    def milliseconds(self, start: Handle, end: Handle) -> float:
        return self._call(self._driver.cuEventElapsedTime, start.owner, end.owner)

    def upload(self, memory: Handle, array: np.ndarray, stream: Handle) -> None:
        self._call(self._driver.cuMemcpyHtoDAsync, memory.owner, array.ctypes.data, array.nbytes, stream.owner)

    def download(self, array: np.ndarray, memory: Handle, stream: Handle) -> None:
        self._call(self._driver.cuMemcpyDtoHAsync, array.ctypes.data, memory.owner, array.nbytes, stream.owner)

    def wait(self, stream: Handle) -> None:
        self._call(self._driver.cuStreamSynchronize, stream.owner)

    def free(self, handle: Handle) -> None:
        driver, owner, handle.owner = self._driver, handle.owner, None
        if handle.size:
            self._call(driver.cuMemFree, owner)
        elif isinstance(owner, driver.CUstream):
            self._call(driver.cuStreamDestroy, owner)
        else:
            self._call(driver.cuEventDestroy, owner)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _call(self._driver, function, *arguments)


def _call(driver: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function of cuda.bindings.driver. Raises MemoryError, or RuntimeError with CUDA's name for it."""
    status, *results = function(*arguments)
    if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise MemoryError(f"{function.__name__}: {status.name}")
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function.__name__}: {status.name}")
    return results[0] if results else None


def _dotted(version: int) -> str:
    """CUDA's 13000 as "13.0"."""
    return f"{version // 1000}.{version % 1000 // 10}"
