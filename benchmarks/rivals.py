"""What the training step is timed against, and the clock that times it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from reference.layers import Param
from reference.net import Net
from reference.solver import CaffeSGD


class PlainSGD(CaffeSGD):
    """Caffe's rule as it is usually written: parameter by parameter, operation by operation."""

    @torch.no_grad()
    def step(self) -> None:
        rate, multipliers, gradients = self.rate(), self.net.multipliers(), gradients_of(self.net)
        scale = 1 / self.iter_size
        if self.clip_gradients >= 0:
            norm = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in gradients.values()))
            scale *= min(1.0, self.clip_gradients / norm)
        for key, gradient in gradients.items():
            param, weight, velocity = multipliers[key], self.net.get_parameter(key), self.history.scaled[key]
            if scale != 1:
                gradient = gradient * scale
            if param.decay_mult:
                gradient = gradient.add(weight, alpha=self.weight_decay * param.decay_mult)
            velocity.mul_(self.momentum).add_(gradient, alpha=rate * param.lr_mult)
            weight.sub_(velocity)
        self.iteration += 1


class TorchSGD:
    """torch.optim.SGD(fused=True) on the weights and present gradients of a solver's net, at that solver's settings.

    It agrees while the rate is constant. It is given each tensor as one row in the order of memory: of channels last
    tensors its CPU version makes a copy first, which takes ten times as long as the update.
    """

    def __init__(self, solver: CaffeSGD) -> None:
        self.clip = solver.clip_gradients
        self.weights = dict(solver.net.named_parameters())
        self.rows: dict[str, nn.Parameter] = {}
        multipliers, groups = solver.net.multipliers(), defaultdict[Param, list[nn.Parameter]](list)
        for key, gradient in gradients_of(solver.net).items():
            self.rows[key] = nn.Parameter(_row(self.weights[key].detach()))
            self.rows[key].grad = _row(gradient)
            groups[multipliers[key]].append(self.rows[key])
        self.optimizer = torch.optim.SGD(
            [
                {
                    "params": rows,
                    "lr": solver.rate() * param.lr_mult / solver.iter_size,
                    "weight_decay": solver.weight_decay * param.decay_mult * solver.iter_size,
                }
                for param, rows in groups.items()
            ],
            momentum=solver.momentum,
            fused=True,
        )

    def step(self) -> None:
        if self.clip >= 0:
            nn.utils.clip_grad_norm_(self.rows.values(), self.clip, foreach=True)
        self.optimizer.step()

    @property
    def history(self) -> dict[str, Tensor]:
        """Caffe's V: the rate times torch's momentum buffer."""
        rates = {row: group["lr"] for group in self.optimizer.param_groups for row in group["params"]}
        found = {}
        for key, row in self.rows.items():
            velocity = self.optimizer.state[row]["momentum_buffer"] * rates[row]
            found[key] = velocity.as_strided(self.weights[key].shape, self.weights[key].stride())
        return found


def gradients_of(net: Net) -> dict[str, Tensor]:
    """The gradients that a backward pass left, by parameter key; each lies in memory as its weight does."""
    return {key: weight.grad for key, weight in net.named_parameters() if weight.grad is not None}


def _row(values: Tensor) -> Tensor:
    return values.as_strided((values.numel(),), (1,))


def disagreement(ours: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of two histories, relative to the largest entry of each parameter."""
    worst = 0.0
    for key, theirs in other.items():
        if largest := float(theirs.abs().max()):
            worst = max(worst, float((ours[key] - theirs).abs().max()) / largest)
    return worst


class Stopwatch:
    """Seconds of each part of the step.

    On a GPU they are those of its own timeline: nothing waits for the clock, work queued ahead counts where it is
    done, and what counts as "data" is the copy and the time in which the GPU had nothing to do because of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self.laps: list[tuple[str, Any]] = []
        self.lap("start")

    def lap(self, part: str) -> None:
        """`part` ends here (or on a GPU: where its work ends)."""
        mark = self.stream.record_event(torch.cuda.Event(enable_timing=True)) if self.stream else time.perf_counter()
        self.laps.append((part, mark))

    def seconds(self) -> dict[str, float]:
        """Sums by part."""
        if self.stream:
            self.stream.synchronize()
        parts: dict[str, float] = defaultdict(float)
        for (_, before), (part, after) in pairwise(self.laps):
            parts[part] += before.elapsed_time(after) / 1e3 if self.stream else after - before
        return dict(parts)
