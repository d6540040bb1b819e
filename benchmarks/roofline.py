"""The roofline: what a net costs by its graph, and how fast this machine computes and moves at all.

No run of this graph can take less than its multiply-adds at the fastest matrix product, nor less than its memory
traffic at the fastest copy (Williams, Waterman, Patterson, "Roofline", CACM 2009). Both rates are measured, in the same
run, on what runs the net. The graph is Caffe's, layer by layer, zeros of its bilinear deconvolutions and of its padding
included: an algorithm that spares those, or fuses layers, may beat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.interleave import interleave
from reference.layers import Crop, Input
from reference.net import NetSpec
from reference.summary import summarise

BYTES = {"float32": 4, "float16": 2}
SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices
COPIED = {"cuda": 2**30, "cpu": 2**27}  # bytes: far more than any cache holds
RUNS = 5  # of each; the best one counts


@dataclass(frozen=True)
class Costs:
    """Of one call of a net."""

    multiply_adds: int
    values: int
    """Numbers that cross memory: each layer reads its bottoms and blobs and writes its top. In-place layers (ReLU,
    Dropout) ride along, and a Crop reads only what it keeps.
    """


@dataclass(frozen=True)
class Rates:
    """What this machine reaches."""

    device: str
    flops: dict[str, float]
    """By precision, "float32" (never TF32) and on a GPU "float16": operations a second, two a multiply-add."""
    bytes_per_s: float
    """Read and written."""

    def bound_ms(self, costs: Costs, precision: str) -> float | None:
        """Milliseconds that one call takes at least; None for a precision whose rate is not known here."""
        if precision not in self.flops:
            return None
        computing = 2 * costs.multiply_adds / self.flops[precision]
        moving = costs.values * BYTES[precision] / self.bytes_per_s
        return 1e3 * max(computing, moving)


def costs(spec: NetSpec, batch: int, height: int, width: int) -> Costs:
    """Of `batch` images. Raises ValueError for a size that the net cannot take."""
    spec = spec.deploy()
    channels = spec.shapes()[spec.inputs[0]][1]
    shapes = spec.shapes(**{spec.inputs[0]: (batch, channels, height, width)})
    size = {top: math.prod(shape) for top, shape in shapes.items()}
    values = 0
    for layer in spec.layers:
        if isinstance(layer, Input) or layer.in_place:
            continue
        written = sum(size[top] for top in layer.tops)
        read = written if isinstance(layer, Crop) else sum(size[bottom] for bottom in layer.bottoms)
        blobs = layer.blob_shapes(*(shapes[bottom] for bottom in layer.bottoms))
        values += read + written + sum(map(math.prod, blobs.values()))
    return Costs(batch * summarise(spec, (height, width)).multiply_adds, values)


def measure(device: torch.device) -> Rates:
    """Time square matrix products and a large copy on `device`; on a CPU with the threads that torch has now."""
    torch.set_float32_matmul_precision("highest")  # torch's default: no TF32
    best = {name: min(runs) for name, runs in _times(device).items()}
    moved = 2 * COPIED[device.type] / best.pop("copy")
    where = f"CPU, threads {torch.get_num_threads()}"
    if device.type == "cuda":
        torch.cuda.empty_cache()  # other libraries need the memory
        where = torch.cuda.get_device_name(device)
    return Rates(where, {name: 2 * SIDE[device.type] ** 3 / seconds for name, seconds in best.items()}, moved)


def _times(device: torch.device) -> dict[str, list[float]]:
    """Seconds of each run, by precision, and of "copy"."""
    types = ("float32", "float16") if device.type == "cuda" else ("float32",)
    side = SIDE[device.type]
    factors = {name: torch.rand(side, side, device=device).to(getattr(torch, name)) for name in types}
    products = {name: torch.empty_like(factor) for name, factor in factors.items()}
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def multiply(name: str) -> None:
        torch.mm(factors[name], factors[name], out=products[name])
        wait()

    def copy() -> None:
        target.copy_(source)
        wait()

    calls: dict[str, Callable[[], None]] = {name: partial(multiply, name) for name in types} | {"copy": copy}
    return interleave(calls, RUNS, warm_up=1, title="roofline")
