"""The ways to run a net, each at its best documented settings, all with the same weights and threads.

Timed is one call: N x 3 x H x W float32 in host memory -> what the ONNX file gives (N x K x H x W float32 scores
or N x H x W labels) in host memory; a file that takes pixels (--io image) gets those. So a GPU's copies there and back
are in it, and it is synchronised.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.interleave import WARM_UP, interleave
from benchmarks.subject import Subject
from export.border import ELIDE
from fcn.cli import BadInput
from reference.net import Net
from runtime.ort import OrtBackend
from runtime.segmenter import Segmenter, labels

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TENSOR, IMAGE = "tensor", "image"  # what a call begins with
FAILS = "fails here:"  # how the reason begins where a contender is installed and does not work
Run = Callable[[], Tensor]


class Absent(Exception):
    """A contender that cannot run here; the message says why, and what to install."""


@dataclass(frozen=True)
class Origin:
    """Whose figures a contender's are: no library's may be taken for another's."""

    backend: str
    """The library and its version, as it says them itself: "ONNX Runtime 1.31.1"."""
    provider: str
    """What it really runs on, as the library itself says: "CPUExecutionProvider", or the card."""
    precision: str
    """"float32", "float16", or something else where TF32 is allowed."""
    engine_sha256: str | None = None
    build_s: float | None = None
    """Seconds that compiling or building it took, once for all runs."""


@dataclass(frozen=True)
class Contender:
    """One way to run the net on one input."""

    name: str
    settings: str
    origin: Origin
    run: Callable[[], np.ndarray | Tensor]
    """The timed call."""
    begins_with: str = TENSOR
    """TENSOR, or IMAGE: N x H x W x 3 uint8 pictures in, labels out."""
    gpu_milliseconds: Callable[[], float] | None = None
    """One run's time on the GPU alone, copies left out, where the library tells."""
    shared: bool = False
    """Whether several threads may call `run` at once."""


@dataclass(frozen=True)
class Task:
    """The subject, one input in both forms, and what all contenders share."""

    subject: Subject
    images: np.ndarray  # N x H x W x 3 uint8
    x: np.ndarray  # N x 3 x H x W float32
    device: torch.device
    threads: int
    alone: str | None = None
    """Of LAYOUTS, where nothing else runs in this process: then the net itself is used, in this layout, not a copy."""

    def answer(self) -> Answer:
        """The subject's net, giving what the file gives. Raises Absent where there is none."""
        if self.subject.net is None:
            raise Absent(self.subject.missing)
        net = self.subject.net if self.alone else copy.deepcopy(self.subject.net)
        return Answer(net, self.subject.metadata.io).to(self.device)


class Answer(nn.Module):
    """The net, giving what the ONNX file gives."""

    def __init__(self, net: Net, io: str) -> None:
        super().__init__()
        self.net, self.io = net, io

    def forward(self, data: Tensor) -> Tensor:
        score = self.net(data)
        return score if self.io == "scores" else score.argmax(1).to(torch.uint8)


def eager(task: Task) -> Contender:
    """PyTorch as it is, in the memory layout that proves faster on this input."""
    run, layout = _fastest(task, _call)
    return Contender("PyTorch eager", f"inference_mode, {layout}{_cuda(task)}", _torch(task), run)


def cuda_graph(task: Task) -> Contender:
    """PyTorch's kernels, captured once and replayed as one CUDA graph: no cost of Python or of launches."""
    if task.device.type != "cuda":
        if task.subject.net is None:
            raise Absent(task.subject.missing)
        raise Absent("needs a GPU and a CUDA build of torch, which pytorch.org tells how to install")
    run, layout = _fastest(task, _captured)
    return Contender("PyTorch CUDA graph", f"captured eagerly, {layout}{_cuda(task)}", _torch(task), run)


def compiled(task: Task) -> Contender:
    """torch.compile for exactly this input size. No graph break is tolerated: part of it would run eagerly."""
    module = task.answer()
    _need_compiler(task.device)
    # On CPUs max-autotune adds templates for matrix products. An FCN's convolutions are oneDNN's either way (tried:
    # no gain); what counts there is freezing, which packs their weights and chooses their layout.
    mode = "max-autotune" if task.device.type == "cuda" else "default"
    torch.compiler.reset()
    frozen = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)
    run = _call(frozen, task, torch.contiguous_format)
    import torch._inductor.config as inductor  # slow to import, and needed here only

    start = time.perf_counter()
    try:
        with inductor.patch(freezing=True):
            run()
    except Exception as error:  # the compiler's errors have no common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # What the C++ compiler complains of (a missing Python.h, say) stands in the middle of a long log.
        raise Absent(f"{FAILS} {next((line for line in lines if 'error: ' in line), lines[0])}") from error
    settings = f"inductor, mode {mode}, frozen weights, static size{_cuda(task)}"
    origin = replace(_torch(task), build_s=round(time.perf_counter() - start, 1))
    return Contender("torch.compile", settings, origin, run)


def onnx_runtime(task: Task) -> list[Contender]:
    """The file in ONNX Runtime, and through the runtime's face: from pictures to label maps, with one session."""
    if task.subject.model is None:
        raise Absent(task.subject.missing)
    try:
        backend = OrtBackend(task.subject.model, task.device.type, task.threads)
    except BadInput as problem:
        raise Absent(str(problem)) from problem
    version, _, provider = backend.name.rpartition(", ")
    origin = Origin(version, provider, task.subject.precision)
    settings = "all graph optimizations" + (", no TF32" if task.device.type == "cuda" else "")
    settings += ", border elided" if task.subject.border == ELIDE else ""
    given, begins = (task.images, IMAGE) if backend.metadata.io == "image" else (task.x, TENSOR)
    segment = Segmenter(backend).batch
    return [
        Contender("ONNX Runtime", settings, origin, lambda: backend.run(given), begins),
        Contender(
            "Segmenter, ONNX Runtime", "image to labels", origin, lambda: segment(task.images), IMAGE, shared=True
        ),
    ]


def gather(task: Task) -> tuple[list[Contender], dict[str, str]]:
    """All contenders but engines that can run here, and why each other one cannot."""
    present: list[Contender] = []
    absent: dict[str, str] = {}
    builders: dict[str, Callable[[Task], Contender | list[Contender]]] = {
        "PyTorch eager": eager,
        "torch.compile": compiled,
        "PyTorch CUDA graph": cuda_graph,
        "ONNX Runtime": onnx_runtime,
    }
    for name, build in builders.items():
        try:
            built = build(task)
            present += built if isinstance(built, list) else [built]
        except Absent as reason:
            absent[name] = str(reason)
    return present, absent


def label_map(out: np.ndarray | Tensor) -> np.ndarray:
    """N x H x W uint8 of what a contender gave: scores or labels."""
    values = out.numpy() if isinstance(out, Tensor) else out
    return labels(values) if values.ndim == 4 else values.astype(np.uint8, copy=False)


def _fastest(task: Task, make: Callable[[nn.Module, Task, torch.memory_format], Run]) -> tuple[Run, str]:
    """The net in the layout whose call, as `make` gives it, proves faster; and how long each took, in words."""
    calls = {}
    for name in [task.alone] if task.alone else LAYOUTS:
        module, layout = task.answer(), LAYOUTS[name]
        calls[name] = make(module.to(memory_format=layout), task, layout)  # type: ignore[call-overload]
    if task.alone:
        return calls[task.alone], task.alone
    tried = {name: min(runs) * 1e3 for name, runs in interleave(calls, 3, 1, title="trying layouts").items()}
    best = min(tried, key=lambda name: tried[name])
    return calls[best], f"{best} (tried: {', '.join(f'{name} {ms:.4g} ms' for name, ms in tried.items())})"


def _call(module: Callable[[Tensor], Tensor], task: Task, layout: torch.memory_format) -> Run:
    x = torch.from_numpy(task.x)

    def run() -> Tensor:
        with torch.inference_mode():
            data = x.to(task.device).contiguous(memory_format=layout)
            return module(data).cpu()  # on a GPU this waits for the result

    return run


def _captured(module: Callable[[Tensor], Tensor], task: Task, layout: torch.memory_format) -> Run:
    x = torch.from_numpy(task.x)
    with torch.inference_mode(), torch.cuda.device(task.device):
        data = x.to(task.device).contiguous(memory_format=layout)
        side = torch.cuda.Stream()  # what is not captured yet runs on a stream of its own: torch's documentation
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                module(data)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = module(data)
    return partial(_replay, module, graph, x, data, result)


def _replay(_module: object, graph: torch.cuda.CUDAGraph, x: Tensor, data: Tensor, result: Tensor) -> Tensor:
    """_module: whose weights the graph reads, so that they live as long as it."""
    with torch.inference_mode():
        data.copy_(x)
        graph.replay()
        return result.cpu()


def _need_compiler(device: torch.device) -> None:
    """Raises Absent where inductor lacks what it generates code with."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise Absent("needs Triton: pip install triton")
        return
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise Absent(f"needs a C++ compiler, and there is no {compiler}: apt-get install g++ (or name one in CXX)")


def _torch(task: Task) -> Origin:
    """PyTorch computes in the checkpoint's own float32, whatever the file does."""
    device = torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else "PyTorch CPU"
    return Origin(f"PyTorch {torch.__version__}", device, "float32")


def _cuda(task: Task) -> str:
    return ", cudnn.benchmark, no TF32" if task.device.type == "cuda" else ""
