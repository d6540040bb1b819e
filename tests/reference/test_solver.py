"""The solver against sgd_solver.cpp, written out parameter by parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from benchmarks import records as golden
from reference.builder import Builder
from reference.layers import Convolution, Param
from reference.net import Net
from reference.solver import POLICIES, CaffeSGD
from tests import tolerances

f32 = np.float32


def small() -> Net:
    """Parameters with every kind of multiplier: learned, at 2/0, at 0.5/3, and frozen."""
    n = Builder("small")
    top = n.conv("learned", n.input("data", 2, (6, 6)), 3, 3)
    layer = Convolution(name="odd", bottoms=(top,), tops=("odd",), num_output=2, kernel_size=(1, 1),
                        params=(Param(0.5, 3), Param(0.25, 1)))  # fmt: skip
    n.add(layer)
    n.upscore("frozen", "odd", 2, kernel=4, stride=2)
    net = Net(n.spec())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator)
    return net


def gradients(net: Net, passes: int, seed: int) -> dict[str, Tensor]:
    """The sum of the gradients of `passes` passes, with values of many sizes."""
    generator = torch.Generator().manual_seed(seed)
    draw = {key: torch.randn(passes, *p.shape, generator=generator) for key, p in net.named_parameters()}
    return {key: (value * 10 ** (seed % 3)).sum(0) for key, value in draw.items()}


# --- Caffe, plainly -----------------------------------------------------------------------------------------


def rates(policy: str, count: int, *, base_lr: float, gamma: float = 0, power: float = 0, stepsize: int = 0,
          stepvalue: tuple[int, ...] = (), max_iter: int = 0) -> Iterator[np.float32]:  # fmt: skip
    """SGDSolver<float>::GetLearningRate of iterations 0, 1, ... with its float32 and float64 as in C++."""
    lr, gamma_, power_ = f32(base_lr), f32(gamma), f32(power)
    current_step = 0
    for t in range(count):
        match policy:
            case "fixed":
                yield lr
            case "step":
                yield f32(float(lr) * math.pow(float(gamma_), t // stepsize))
            case "exp":
                yield f32(float(lr) * math.pow(float(gamma_), t))
            case "inv":
                yield f32(lr * np.power(f32(1) + gamma_ * f32(t), -power_))
            case "multistep":
                if current_step < len(stepvalue) and t >= stepvalue[current_step]:
                    current_step += 1
                yield f32(float(lr) * math.pow(float(gamma_), current_step))
            case "poly":
                yield f32(lr * np.power(f32(1) - f32(t) / f32(max_iter), power_))
            case "sigmoid":
                with np.errstate(over="ignore"):
                    yield f32(lr * (f32(1) / (f32(1) + np.exp(-gamma_ * (f32(t) - f32(stepsize))))))


class Plain:
    """Normalize, Regularize, ComputeUpdateValue and Update of sgd_solver.cpp for one float32 blob."""

    def __init__(self, weight: np.ndarray, lr_mult: float, decay_mult: float) -> None:
        self.weight, self.history = weight.copy(), np.zeros_like(weight)
        self.lr_mult, self.decay_mult = f32(lr_mult), f32(decay_mult)

    def step(self, diff: np.ndarray, rate: np.float32, momentum: float, decay: float, iter_size: int) -> None:
        diff = diff.astype(f32)
        if iter_size != 1:
            diff = diff * f32(1 / iter_size)
        local_decay = f32(decay) * self.decay_mult
        if local_decay:
            diff = diff + local_decay * self.weight
        self.history = f32(momentum) * self.history + rate * self.lr_mult * diff
        self.weight = self.weight - self.history


SCHEDULES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "step": {"gamma": 0.1, "stepsize": 4},
    "exp": {"gamma": 0.97},
    "inv": {"gamma": 0.01, "power": 0.75},
    "multistep": {"gamma": 0.5, "stepvalue": (2, 3, 9)},
    "poly": {"power": 0.9, "max_iter": 40},
    "sigmoid": {"gamma": 0.3, "stepsize": 6},
}


def test_poly_ends_at_max_iter() -> None:
    net = reference.build("voc-fcn32s", width=1 / 64)
    with pytest.raises(ValueError, match="poly needs max_iter"):
        CaffeSGD(net, 1.0, lr_policy="poly")
    solver = CaffeSGD(net, 1.0, lr_policy="poly", max_iter=2)
    solver.iteration = 2
    assert solver.rate() == 0
    solver.iteration = 3
    with pytest.raises(ValueError, match="there is no iteration 3"):
        solver.rate()


def test_every_policy_is_tested() -> None:
    assert set(SCHEDULES) == set(POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
def test_rates(policy: str) -> None:
    options = SCHEDULES[policy]
    solver = CaffeSGD(small(), base_lr=1e-10, lr_policy=policy, **options)
    for t, rate in enumerate(rates(policy, 30, base_lr=1e-10, **options)):
        solver.iteration = t
        assert solver.rate() == pytest.approx(float(rate), rel=tolerances.RATE)


@pytest.mark.parametrize(("policy", "options", "expected"), [
    ("step", {"gamma": 0.1, "stepsize": 2}, [1, 1, 0.1, 0.1, 0.01]),
    ("multistep", {"gamma": 0.1, "stepvalue": (1, 3)}, [1, 0.1, 0.1, 0.01, 0.01]),
    ("exp", {"gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
    ("poly", {"power": 2, "max_iter": 4}, [1, 0.5625, 0.25, 0.0625, 0]),
    ("inv", {"gamma": 1, "power": 2}, [1, 1 / 4, 1 / 9, 1 / 16, 1 / 25]),
    ("sigmoid", {"gamma": 1, "stepsize": 2}, [1 / (1 + math.exp(2 - t)) for t in range(5)]),
])  # fmt: skip
def test_rates_by_hand(policy: str, options: dict[str, Any], expected: list[float]) -> None:
    solver = CaffeSGD(small(), base_lr=1, lr_policy=policy, **options)
    for t, rate in enumerate(expected):
        solver.iteration = t
        assert solver.rate() == pytest.approx(rate, rel=tolerances.RATE)


def test_settings_are_float32_as_in_caffe() -> None:
    """0.9999 is not a float32: over a long schedule the difference is no rounding error."""
    solver = CaffeSGD(small(), base_lr=1, lr_policy="exp", gamma=0.9999)
    solver.iteration = 100_000
    caffe = math.pow(float(f32(0.9999)), 100_000)
    assert solver.rate() == pytest.approx(caffe, rel=tolerances.RATE)
    assert abs(math.pow(0.9999, 100_000) / caffe - 1) > 1e-4


def test_a_sigmoid_far_from_its_step_is_zero() -> None:
    """Caffe's exp overflows to infinity, and the rate is 0; Python's would raise."""
    assert CaffeSGD(small(), base_lr=1, lr_policy="sigmoid", gamma=1, stepsize=10_000).rate() == pytest.approx(0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("momentum", "decay", "iter_size"), [(0.99, 5e-4, 1), (0.9, 0.01, 3), (0, 0, 2)])
def test_updates(policy: str, momentum: float, decay: float, iter_size: int) -> None:
    net, options = small(), SCHEDULES[policy]
    solver = CaffeSGD(
        net, base_lr=0.01, momentum=momentum, weight_decay=decay, lr_policy=policy, iter_size=iter_size, **options
    )
    multipliers = {"learned.weight": (1, 1), "learned.bias": (2, 0), "odd.weight": (0.5, 3), "odd.bias": (0.25, 1),
                   "frozen.weight": (0, 1)}  # fmt: skip
    plain = {key: Plain(p.detach().numpy(), *multipliers[key]) for key, p in net.named_parameters()}
    for t, rate in enumerate(rates(policy, 12, base_lr=0.01, **options)):
        sums = gradients(net, iter_size, seed=t)
        for key, parameter in net.named_parameters():
            if parameter.requires_grad:
                parameter.grad = sums[key].clone()
                plain[key].step(sums[key].numpy(), rate, momentum, decay, iter_size)
        solver.step()
    assert solver.iteration == 12
    for key, parameter in net.named_parameters():
        ours, theirs = parameter.detach().numpy(), plain[key]
        assert golden.relative_to_largest(ours, theirs.weight) <= tolerances.SOLVER, key
        if theirs.history.any():
            assert golden.relative_to_largest(solver.history[key].numpy(), theirs.history) <= tolerances.SOLVER, key


def test_a_rate_of_zero_means_no_update_at_all() -> None:
    """Not even decay, whatever gradient stands there; and Caffe's history stays zero."""
    net = small()
    before = net.layer("frozen").weight.detach().clone()
    solver = CaffeSGD(net, base_lr=1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        net.layer("frozen").weight.grad = torch.ones_like(before)
        solver.step()
    assert torch.equal(net.layer("frozen").weight, before) and not solver.history["frozen.weight"].any()
    net.zero_grad(set_to_none=True)
    solver.step()
    assert net.layer("frozen").weight.grad is None, "a frozen layer's gradient takes memory"


def test_a_parameter_without_a_gradient_still_decays_and_coasts() -> None:
    """Caffe clears diffs to zero and updates all the same."""
    net = small()
    solver = CaffeSGD(net, base_lr=0.5, momentum=0.9, weight_decay=0.1)
    weight = net.layer("learned").weight.detach().numpy()
    plain = Plain(weight, 1, 1)
    for _ in range(3):
        net.zero_grad(set_to_none=True)
        solver.step()
        plain.step(np.zeros_like(weight), f32(0.5), 0.9, 0.1, 1)
    ours = net.layer("learned").weight.detach().numpy()
    assert golden.relative_to_largest(ours, plain.weight) <= tolerances.SOLVER


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping(limit: float) -> None:
    """ClipGradients: the norm of all sums together, before they are divided by iter_size."""
    net = small()
    solver = CaffeSGD(net, base_lr=1, iter_size=2, clip_gradients=limit)
    sums = gradients(net, 2, seed=0)
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            parameter.grad = sums[key].clone()
    learned = [sums[key].numpy().ravel() for key, p in net.named_parameters() if p.requires_grad]
    norm = np.linalg.norm(np.concatenate(learned))
    solver.step()
    moved = before["learned.weight"] - net.layer("learned").weight.detach()
    expected = sums["learned.weight"] / 2 * min(1, limit / norm)
    assert golden.relative_to_largest(moved.numpy(), expected.numpy()) <= tolerances.SOLVER


def test_iter_size_accumulates_backward_passes() -> None:
    """Two passes of iter_size 2 are one step along the mean of their gradients."""
    net = reference.build("voc-fcn32s", width=1 / 64).eval()
    torch.manual_seed(0)
    solver = CaffeSGD(net, base_lr=1e-3, iter_size=2)
    pairs = [(torch.randn(1, 3, 9, 8), torch.randint(0, 21, (1, 1, 9, 8))) for _ in range(2)]
    single = []
    for data, label in pairs:
        net.total_loss(data=data, label=label).backward()
        single.append(net.layer("score_fr").bias.grad.clone())
        solver.zero_grad()
    for data, label in pairs:
        net.total_loss(data=data, label=label).backward()
    solver.step()
    mean = (single[0] + single[1]) / 2
    # Biases learn at 2.
    assert (
        golden.relative_to_largest(-net.layer("score_fr").bias.detach().numpy(), 2e-3 * mean.numpy())
        <= tolerances.SOLVER
    )


# --- through torch's fused SGD ------------------------------------------------------------------------------


def wide() -> Net:
    """One convolution of 16 x 16 x 3 x 3, channels last as the engine has it: whole vectors, and two orders."""
    n = Builder("wide")
    n.conv("conv", n.input("data", 16, (6, 6)), 16, 3)
    net = Net(n.spec()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        net.layer("conv").weight.normal_(generator=torch.Generator().manual_seed(0))
    return net


@pytest.mark.parametrize("base_lr", [1e-14, 1e-10, 0.3])
@pytest.mark.parametrize(("policy", "options"), [("fixed", {}), ("exp", {"gamma": 0.7}), ("exp", {"gamma": 1.5})])
def test_rounded_as_caffe_rounds(base_lr: float, policy: str, options: dict[str, float]) -> None:
    """Bit for bit sscal and saxpy (each product and sum rounded once), whatever power of two V is held by."""
    net = wide()
    solver = CaffeSGD(net, base_lr, 0.99, 5e-4, policy, **options)  # type: ignore[arg-type]
    weight = net.layer("conv").weight
    expected, velocity = weight.detach().clone(), torch.zeros_like(weight)
    for t in range(12):
        gradient = gradients(net, 1, seed=t)["conv.weight"]
        weight.grad = gradient.clone()
        rate = solver.rate()
        solver.step()
        velocity = (velocity * solver.momentum).add(gradient.add(expected, alpha=solver.weight_decay), alpha=rate)
        expected -= velocity
        assert torch.equal(solver.history["conv.weight"], velocity), t
        assert torch.equal(weight, expected), t


def test_gradients_and_weights_may_lie_in_other_orders() -> None:
    """torch's fused SGD walks memory blindly: on CPUs a gradient of another layout would go to wrong weights."""
    ends = []
    for first, then in ((torch.contiguous_format, torch.contiguous_format), (torch.channels_last, torch.channels_last),
                        (torch.contiguous_format, torch.channels_last)):  # fmt: skip
        net = wide().to(memory_format=first)  # type: ignore[call-overload]
        solver = CaffeSGD(net, 0.1, 0.9)
        for t in range(4):
            if t == 2:
                net.to(memory_format=then)  # type: ignore[call-overload]
            for key, value in gradients(net, 1, seed=t).items():
                net.get_parameter(key).grad = value.contiguous()
            solver.step()
        ends.append((net.layer("conv").weight.detach(), solver.history["conv.weight"]))
    for weight, history in ends[1:]:
        assert torch.equal(weight, ends[0][0]) and torch.equal(history, ends[0][1])


@pytest.mark.parametrize(("gamma", "momentum"), [(1e-3, 0.9), (1e3, 0.9), (0.0, 0.99), (1e-3, 0.0)])
def test_rates_may_change_by_any_factor(gamma: float, momentum: float) -> None:
    """Down to zero while momentum still moves the weights, and up from nothing."""
    base_lr, count = (1e-25, 10) if gamma > 1 else (1e-2, 20)
    solver = CaffeSGD(small(), base_lr, momentum, 0.01, "exp", gamma=gamma)
    weight = solver.net.layer("learned").weight
    plain = Plain(weight.detach().numpy(), 1, 1)
    for t, rate in enumerate(rates("exp", count, base_lr=base_lr, gamma=gamma)):
        gradient = gradients(solver.net, 1, seed=t)["learned.weight"]
        weight.grad = gradient.clone()
        solver.step()
        plain.step(gradient.numpy(), rate, momentum, 0.01, 1)
        assert golden.relative_to_largest(weight.detach().numpy(), plain.weight) <= tolerances.SOLVER, t
        if np.abs(plain.history).max() > 1e-36:  # nearer to float32's least, entries have fewer digits
            ours = solver.history["learned.weight"].numpy()
            assert golden.relative_to_largest(ours, plain.history) <= tolerances.SOLVER, t


# --- against torch.optim.SGD --------------------------------------------------------------------------------


def both(policy: str, **options: Any) -> float:
    """The largest difference from torch.optim.SGD after ten steps in float64, relative to the way gone."""
    net = small().double()
    twin = copy.deepcopy(net)
    start = {key: p.detach().clone() for key, p in net.named_parameters()}
    solver = CaffeSGD(net, 0.01, 0.9, 0.05, policy, **options)
    groups = [
        {"params": [twin.get_parameter(key)], "lr": m.lr_mult, "weight_decay": solver.weight_decay * m.decay_mult}
        for key, m in net.multipliers().items()
        if m.lr_mult
    ]
    optimizer = torch.optim.SGD(groups, momentum=solver.momentum)
    multipliers = [group["lr"] for group in optimizer.param_groups]
    for t in range(10):
        for key, value in gradients(net, 1, seed=t).items():
            for each in (net, twin):
                if each.get_parameter(key).requires_grad:
                    each.get_parameter(key).grad = value.double()
        for group, multiplier in zip(optimizer.param_groups, multipliers, strict=True):
            group["lr"] = multiplier * solver.rate()
        solver.step()
        optimizer.step()
    return max(
        float(((p - twin.get_parameter(key)).abs().max() / (p - start[key]).abs().max()).detach())
        for key, p in net.named_parameters()
        if p.requires_grad
    )


def test_torchs_sgd_agrees_while_the_rate_is_constant_and_only_then() -> None:
    """The rate stands inside Caffe's velocity: after a step of the rate, torch's SGD goes another way."""
    assert both("fixed") <= tolerances.FLOAT64
    assert both("step", gamma=0.1, stepsize=4) > 0.1


# --- stopping and going on ----------------------------------------------------------------------------------


def train(net: Net, solver: CaffeSGD, start: int, stop: int) -> None:
    for t in range(start, stop):
        solver.zero_grad()
        torch.manual_seed(t)
        data, label = torch.randn(1, 3, 20, 24), torch.randint(0, 21, (1, 1, 20, 24))
        net.total_loss(data=data, label=label).backward()
        solver.step()


def test_resuming_is_bit_identical() -> None:
    options: dict[str, Any] = {
        "base_lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "lr_policy": "step",
        "stepsize": 2,
    }
    net = reference.build("voc-fcn32s", width=1 / 32)
    solver = CaffeSGD(net, **options)
    train(net, solver, 0, 3)
    weights = copy.deepcopy(net.state_dict())
    state = copy.deepcopy(solver.state_dict())
    train(net, solver, 3, 6)

    other = reference.build("voc-fcn32s", width=1 / 32)
    other.load_state_dict(weights)
    resumed = CaffeSGD(other, **options)
    resumed.load_state_dict(state)
    assert resumed.iteration == 3 and resumed.rate() == pytest.approx(1e-4, rel=tolerances.RATE)
    train(other, resumed, 3, 6)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(value, resumed.history[key]) for key, value in solver.history.items())
    # Gradients did flow: the score layer learns first, as everything below it is zero.
    assert net.layer("score_fr").bias.any()


def test_state_of_another_net_is_refused() -> None:
    state = CaffeSGD(small(), base_lr=1).state_dict()
    solver = CaffeSGD(reference.build("voc-fcn32s", width=1 / 64), base_lr=1)
    with pytest.raises(ValueError, match="belongs to another net than voc-fcn32s"):
        solver.load_state_dict(state)
    mine = CaffeSGD(small(), base_lr=1)
    with pytest.raises(ValueError, match="another net"):
        mine.load_state_dict(state | {"odd.bias": torch.zeros(7)})
    assert not any(history.any() for history in mine.history.values())


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="lr_policy 'cosine' is none of fixed, step"):
        CaffeSGD(small(), base_lr=1, lr_policy="cosine")
    with pytest.raises(ValueError, match="iter_size must be at least 1, not 0"):
        CaffeSGD(small(), base_lr=1, iter_size=0)
