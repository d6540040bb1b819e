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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.interleave import interleave
from benchmarks.subject import Subject
from fcn.cli import BadInput
from reference.net import Net
from runtime.ort import OrtBackend
from runtime.segmenter import Segmenter, labels

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TENSOR, IMAGE = "tensor", "image"  # what a call begins with


class Absent(Exception):
    """A contender that cannot run here; the message says why, and what to install."""


@dataclass(frozen=True)
class Contender:
    """One way to run the net on one input."""

    name: str
    settings: str
    provider: str
    """What really runs, as the library itself says."""
    run: Callable[[], np.ndarray | Tensor]
    """The timed call."""
    begins_with: str = TENSOR
    """TENSOR, or IMAGE: N x H x W x 3 uint8 pictures in, labels out."""


@dataclass(frozen=True)
class Task:
    """The subject, one input in both forms, and what all contenders share."""

    subject: Subject
    images: np.ndarray  # N x H x W x 3 uint8
    x: np.ndarray  # N x 3 x H x W float32
    device: torch.device
    threads: int


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
    net, calls = _net(task), {}
    for name, layout in LAYOUTS.items():
        module = Answer(copy.deepcopy(net), task.subject.metadata.io)
        calls[name] = _call(module.to(task.device).to(memory_format=layout), task, layout)  # type: ignore[call-overload]
    tried = {name: min(runs) * 1e3 for name, runs in interleave(calls, 3, 1, title="trying layouts").items()}
    best = min(tried, key=lambda name: tried[name])
    took = ", ".join(f"{name} {ms:.4g} ms" for name, ms in tried.items())
    return Contender(
        "PyTorch eager", f"inference_mode, {best} (tried: {took}){_cuda(task)}", _device(task), calls[best]
    )


def compiled(task: Task) -> Contender:
    """torch.compile for exactly this input size. No graph break is tolerated: part of it would run eagerly."""
    net = _net(task)
    _need_compiler(task.device)
    # On CPUs max-autotune adds templates for matrix products. An FCN's convolutions are oneDNN's either way (tried:
    # no gain); what counts there is freezing, which packs their weights and chooses their layout.
    mode = "max-autotune" if task.device.type == "cuda" else "default"
    torch.compiler.reset()
    module = Answer(copy.deepcopy(net), task.subject.metadata.io).to(task.device)
    frozen = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)
    run = _call(frozen, task, torch.contiguous_format)
    import torch._inductor.config as inductor  # slow to import, and needed here only

    try:
        with inductor.patch(freezing=True):
            run()
    except Exception as error:  # the compiler's errors have no common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # What the C++ compiler complains of (a missing Python.h, say) stands in the middle of a long log.
        raise Absent(f"fails here: {next((line for line in lines if 'error: ' in line), lines[0])}") from error
    return Contender(
        "torch.compile", f"inductor, mode {mode}, frozen weights, static size{_cuda(task)}", _device(task), run
    )


def onnx_runtime(task: Task) -> list[Contender]:
    """The file in ONNX Runtime, and through the runtime's face: from pictures to label maps, with one session."""
    try:
        backend = OrtBackend(task.subject.model, task.device.type, task.threads)
    except BadInput as problem:
        raise Absent(str(problem)) from problem
    segmenter, provider = Segmenter(backend), backend.name.rpartition(", ")[2]
    settings = "all graph optimizations" + (", no TF32" if task.device.type == "cuda" else "")
    given, begins = (task.images, IMAGE) if backend.metadata.io == "image" else (task.x, TENSOR)
    return [
        Contender("ONNX Runtime", settings, provider, lambda: backend.run(given), begins),
        Contender("runtime.Segmenter", "image to labels", provider, lambda: segmenter.batch(task.images), IMAGE),
    ]


def tensorrt(task: Task) -> Contender:
    raise Absent("not timed yet: this version builds engines, and its benchmark does not run them")


def gather(task: Task) -> tuple[list[Contender], dict[str, str]]:
    """All contenders that can run here, and why each other one cannot."""
    present: list[Contender] = []
    absent: dict[str, str] = {}
    builders: dict[str, Callable[[Task], Contender | list[Contender]]] = {
        "PyTorch eager": eager,
        "torch.compile": compiled,
        "ONNX Runtime": onnx_runtime,
        "TensorRT": tensorrt,
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


def _net(task: Task) -> Net:
    if task.subject.net is None:
        raise Absent(task.subject.missing)
    return task.subject.net


def _call(module: Callable[[Tensor], Tensor], task: Task, layout: torch.memory_format) -> Callable[[], Tensor]:
    x = torch.from_numpy(task.x)

    def run() -> Tensor:
        with torch.inference_mode():
            data = x.to(task.device).contiguous(memory_format=layout)
            return module(data).cpu()  # on a GPU this waits for the result

    return run


def _need_compiler(device: torch.device) -> None:
    """Raises Absent where inductor lacks what it generates code with."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise Absent("needs Triton: pip install triton")
        return
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise Absent(f"needs a C++ compiler, and there is no {compiler}: apt-get install g++ (or name one in CXX)")


def _device(task: Task) -> str:
    return torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else "PyTorch CPU"


def _cuda(task: Task) -> str:
    return ", cudnn.benchmark, no TF32" if task.device.type == "cuda" else ""
