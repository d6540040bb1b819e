"""The roofline's arithmetic, by hand for a net of two layers, and against the net's own table."""

from __future__ import annotations

import pytest
import torch

from benchmarks import roofline
from benchmarks.roofline import Costs, Rates
from reference import build
from reference.builder import Builder
from reference.net import NetSpec


@pytest.fixture
def tiny() -> NetSpec:
    """3 -> 8 channels by 3x3, ReLU in place, pool to half, 8 -> 2 by 1x1, up by two (4x4), cut to the input."""
    n = Builder("tiny")
    data = n.input("data", 3)
    pooled = n.max_pool("pool1", n.relu("relu1", n.conv("conv1", data, 8, kernel=3, pad=1)))
    n.crop("score", n.upscore("upscore", n.conv("score_fr", pooled, 2, kernel=1), 2, kernel=4, stride=2), like=data)
    return n.spec()


def test_costs_of_a_tiny_net_by_hand(tiny: NetSpec) -> None:
    """Three images of 6x10."""
    conv1 = 3 * 60 * 8 * 3 * 9
    score_fr = 3 * 15 * 2 * 8
    upscore = 3 * 15 * 2 * 2 * 16  # each bottom pixel times each weight, zeros included
    read_and_written = 3 * (
        (3 * 60 + 8 * 60)  # conv1
        + (8 * 60 + 8 * 15)  # pool1
        + (8 * 15 + 2 * 15)  # score_fr
        + (2 * 15 + 2 * 8 * 12)  # upscore: 2 * (3 - 1) + 4 by 2 * (5 - 1) + 4
        + (2 * 60 + 2 * 60)  # score
    )
    blobs = 8 * 27 + 8 + 2 * 8 + 2 + 2 * 2 * 16
    assert roofline.costs(tiny, 3, 6, 10) == Costs(conv1 + score_fr + upscore, read_and_written + blobs)


def test_costs_are_those_of_the_nets_table() -> None:
    net = build("voc-fcn8s", width=1 / 16)
    found = roofline.costs(net.spec, 2, 97, 131)
    assert found.multiply_adds == 2 * net.summary((97, 131)).multiply_adds
    once = roofline.costs(net.spec, 1, 97, 131)
    weights = net.summary((97, 131)).parameters
    assert found.values - weights == 2 * (once.values - weights)


def test_the_bound_is_the_slower_of_computing_and_moving() -> None:
    rates = Rates("a card", {"float32": 1e12, "float16": 4e12}, 1e11)
    assert rates.bound_ms(Costs(5 * 10**9, 10**6), "float32") == pytest.approx(10)
    assert rates.bound_ms(Costs(5 * 10**9, 10**6), "float16") == pytest.approx(2.5)
    assert rates.bound_ms(Costs(10**6, 5 * 10**8), "float32") == pytest.approx(20)
    assert rates.bound_ms(Costs(10**6, 5 * 10**8), "float16") == pytest.approx(10)
    assert rates.bound_ms(Costs(10**6, 10**6), "float32, TF32 allowed") is None


def test_rates_are_measured() -> None:
    """They are any machine's of the last ten years: 1 GFLOP/s to 1 PFLOP/s, 1 GB/s to 100 TB/s."""
    found = roofline.measure(torch.device("cpu"))
    assert list(found.flops) == ["float32"] and 1e9 < found.flops["float32"] < 1e15
    assert 1e9 < found.bytes_per_s < 1e14 and found.device == f"CPU, threads {torch.get_num_threads()}"
