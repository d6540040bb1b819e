"""Caffe's SGD (src/caffe/solvers/sgd_solver.cpp)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from reference.layers import Param
from reference.net import Net

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


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
        self.base_lr, self.momentum, self.weight_decay = base_lr, momentum, weight_decay
        self.lr_policy, self.iter_size = lr_policy, iter_size
        self.gamma, self.power, self.stepsize = gamma, power, stepsize
        self.stepvalue, self.max_iter, self.clip_gradients = tuple(stepvalue), max_iter, clip_gradients
        self.iteration = 0
        parameters = dict(net.named_parameters())
        self.history: dict[str, Tensor] = {key: torch.zeros_like(p) for key, p in parameters.items()}
        self._groups: dict[Param, list[str]] = defaultdict(list)
        for key, param in net.multipliers().items():
            if param.lr_mult != 0:
                self._groups[param].append(key)

    def rate(self) -> float:
        """The learning rate of the current iteration (SGDSolver::GetLearningRate).

        Caffe's settings are float32: after 100,000 iterations of "exp" that makes a thousandth.
        """
        lr, gamma, power = torch.tensor([self.base_lr, self.gamma, self.power], dtype=torch.float32).tolist()
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
        """Update the weights from the gradients that stand in `.grad`, all of a kind in one fused call.

        A parameter that no loss reached counts as gradient 0, as Caffe's cleared diff does.
        """
        rate = self.rate()
        parameters: dict[str, Tensor] = dict(self.net.named_parameters())
        learned = [parameters[key] for keys in self._groups.values() for key in keys]
        for weight in learned:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if self.clip_gradients >= 0:
            self._clip([weight.grad for weight in learned if weight.grad is not None])
        for param, keys in self._groups.items():
            weights = [parameters[key] for key in keys]
            gradients: list[Tensor] = [weight.grad for weight in weights if weight.grad is not None]
            history = [self.history[key] for key in keys]
            if self.iter_size > 1:
                torch._foreach_mul_(gradients, 1.0 / self.iter_size)
            decay = self.weight_decay * param.decay_mult
            if decay:
                torch._foreach_add_(gradients, weights, alpha=decay)
            torch._foreach_mul_(history, self.momentum)
            torch._foreach_add_(history, gradients, alpha=rate * param.lr_mult)
            torch._foreach_sub_(weights, history)
        self.iteration += 1

    def _clip(self, gradients: list[Tensor]) -> None:
        """SGDSolver::ClipGradients."""
        norm = float(torch.stack(torch._foreach_norm(gradients)).norm())
        if norm > self.clip_gradients:
            torch._foreach_mul_(gradients, self.clip_gradients / norm)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.net.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """The history by parameter key, and the iteration: all that a snapshot needs beside the weights."""
        return {**self.history, "iteration": torch.tensor(self.iteration)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError where it belongs to another net."""
        keys = set(self.history) | {"iteration"}
        if set(state) != keys or any(state[k].shape != v.shape for k, v in self.history.items()):
            raise ValueError(f"this solver state belongs to another net than {self.net.spec.name}")
        for key, value in self.history.items():
            value.copy_(state[key])
        self.iteration = int(state["iteration"])
