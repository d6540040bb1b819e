"""Caffe's SGD (src/caffe/solvers/sgd_solver.cpp)."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from reference.layers import Param
from reference.net import Net

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
# A rate is a unit, a power of two, times a number from 1/2 to 1. Units end here, so that V / unit stays finite where
# a rate falls to nothing while V still moves the weights; the digits of any float32 rate are safe down to here.
LEAST_UNIT = 2.0**-100


class History(Mapping[str, Tensor]):
    """Caffe's V by parameter key; what is read is a copy.

    It is held as `scaled` = V / unit. Units are powers of two, so nothing is lost either way, except digits of a V
    below float32's normal range (1e-38).
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.scaled = {key: torch.zeros_like(parameter) for key, parameter in parameters.items()}
        self.unit = dict.fromkeys(parameters, 1.0)

    def __getitem__(self, key: str) -> Tensor:
        return self.scaled[key] * self.unit[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scaled)

    def __len__(self) -> int:
        return len(self.scaled)


class CaffeSGD:
    """SGD with momentum as Caffe does it; rate and decay multipliers come from the net's layers.

    Each step, from gradients g summed over iter_size passes, for weight w and history V:

        g = g / iter_size + weight_decay * decay_mult * w
        V = momentum * V + rate * lr_mult * g
        w = w - V

    The rate stands inside V, so torch.optim.SGD agrees only while the rate is constant. As in Caffe, a blob
    whose lr_mult is 0 gets no gradient, no decay and no update.

    lr_policy: fixed, step, exp, inv, multistep, poly, sigmoid, with gamma, power, stepsize, stepvalue and
    max_iter as in Caffe's SolverParameter. clip_gradients: gradients are scaled down together where their L2
    norm, summed over iter_size passes, is larger; off below 0. Raises ValueError for an unknown policy.
    """

    def __init__(
        self,
        net: Net,
        base_lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        lr_policy: str = "fixed",
        iter_size: int = 1,
        gamma: float = 0.1,
        power: float = 1.0,
        stepsize: int = 1,
        stepvalue: Sequence[int] = (),
        max_iter: int = 0,
        clip_gradients: float = -1.0,
    ) -> None:
        if lr_policy not in POLICIES:
            raise ValueError(f"lr_policy {lr_policy!r} is none of {', '.join(POLICIES)}")
        if lr_policy == "poly" and max_iter < 1:
            raise ValueError(f"lr_policy poly needs max_iter, not {max_iter}")
        if iter_size < 1:
            raise ValueError(f"iter_size must be at least 1, not {iter_size}")
        self.net = net
        # Caffe's settings are float32: after 100,000 iterations of "exp" that makes a thousandth.
        settings = torch.tensor([base_lr, momentum, weight_decay, gamma, power, clip_gradients], dtype=torch.float32)
        self.base_lr, self.momentum, self.weight_decay, self.gamma, self.power, self.clip_gradients = settings.tolist()
        self.lr_policy, self.iter_size = lr_policy, iter_size
        self.stepsize, self.stepvalue, self.max_iter = stepsize, tuple(stepvalue), max_iter
        self.iteration = 0
        parameters = dict(net.named_parameters())
        self.history = History(parameters)
        self._groups: dict[Param, dict[str, nn.Parameter]] = defaultdict(dict)
        for key, param in net.multipliers().items():
            if param.lr_mult != 0:
                self._groups[param][key] = parameters[key]

    def rate(self) -> float:
        """The learning rate of the current iteration (SGDSolver::GetLearningRate)."""
        lr, gamma, power = self.base_lr, self.gamma, self.power
        t = self.iteration
        match self.lr_policy:
            case "fixed":
                return lr
            case "step":
                return lr * gamma ** (t // self.stepsize)
            case "exp":
                return lr * gamma**t
            case "inv":
                return lr * (1 + gamma * t) ** -power
            case "multistep":
                return lr * gamma ** sum(t >= value for value in self.stepvalue)
            case "poly":
                if t > self.max_iter:
                    raise ValueError(f"lr_policy poly ends at max_iter {self.max_iter}: there is no iteration {t}")
                return lr * (1 - t / self.max_iter) ** power
        # Where Caffe's exp overflows to infinity, the rate is 0; Python's would raise.
        return lr / (1 + math.exp(min(-gamma * (t - self.stepsize), 700)))

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights from the gradients that stand in `.grad`.

        A parameter that no loss reached counts as gradient 0, as Caffe's cleared diff does.

        torch's fused SGD does the work in one pass over memory, B = momentum * B + (1 - dampening) * (g + decay * w)
        and w = w - lr * B. With B = V / unit and lr = unit that is Caffe's rule, to the bit. (B = V would need the
        rate for 1 - dampening, and near 1 a double has steps of 1e-16: two digits would be left of a rate of 1e-14.)
        """
        rate = self.rate()
        if self.clip_gradients >= 0:
            self._clip()
        history = self.history
        for param, group in self._groups.items():
            # The gradient is a sum of iter_size passes; the division stands in the rate, and is undone in the decay.
            local = rate * param.lr_mult / self.iter_size
            unit = max(math.ldexp(1, math.frexp(local)[1]), LEAST_UNIT)
            before = history.unit[next(iter(group))]
            history.unit.update(dict.fromkeys(group, unit))
            history.scaled.update({key: _laid_out_as(weight, history.scaled[key]) for key, weight in group.items()})
            torch._fused_sgd_(
                [_row(weight) for weight in group.values()],
                [_row(_laid_out_as(weight, weight.grad)) for weight in group.values()],
                [_row(history.scaled[key]) for key in group],
                weight_decay=self.weight_decay * param.decay_mult * self.iter_size,
                momentum=self.momentum * before / unit or sys.float_info.min,  # at 0 torch would keep no B
                lr=unit,
                dampening=1 - local / unit,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
        self.iteration += 1

    def _clip(self) -> None:
        """SGDSolver::ClipGradients."""
        gradients = [w.grad for group in self._groups.values() for w in group.values() if w.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients, foreach=True))
        if norm > self.clip_gradients:
            torch._foreach_mul_(gradients, self.clip_gradients / norm)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.net.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """The history by parameter key, and the iteration: all that a snapshot needs beside the weights."""
        return {**self.history, "iteration": torch.tensor(self.iteration)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError where it belongs to another net, or is no state at all."""
        scaled = self.history.scaled
        if set(state) != {*scaled, "iteration"} or any(state[k].shape != v.shape for k, v in scaled.items()):
            raise ValueError(f"this solver state belongs to another net than {self.net.spec.name}")
        if (iteration := int(state["iteration"])) < 0:
            raise ValueError(f"this solver state stands at iteration {iteration}")
        for key, value in scaled.items():
            value.copy_(state[key])
            self.history.unit[key] = 1.0
        self.iteration = iteration


def _laid_out_as(weight: Tensor, values: Tensor | None) -> Tensor:
    """`values` in the memory layout of `weight`, for the fused update does not look; zeros where there are none."""
    if values is None:
        return torch.zeros_like(weight)
    return values if values.stride() == weight.stride() else torch.empty_like(weight).copy_(values)


def _row(values: Tensor) -> Tensor:
    """All entries in the order of memory (on CPUs torch's fused update is ten times slower on channels last)."""
    return values.as_strided((values.numel(),), (1,))
