from __future__ import annotations

import copy
import json

import pytest
import torch

import reference
from benchmarks import swallowing
from benchmarks.swallowing import Stage
from fcn.record import ROOT
from reference.net import Net


@pytest.fixture
def net() -> Net:
    net = reference.build("voc-fcn8s", width=1 / 16, fc_width=1 / 64).eval()
    swallowing.start(net, "c", {})
    return net


def test_half_a_step_is_what_an_update_must_exceed() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10_000, generator=generator) * 10 ** torch.empty(10_000).uniform_(-9, 2, generator=generator)
    half = swallowing.half_step(weight)
    away = torch.where(weight < 0, half, -half)  # towards larger numbers, as w - V
    assert torch.equal(weight - 0.999 * away, weight)
    assert not torch.eq(weight - 1.001 * away, weight).any()


def test_groups_are_the_layers_of_the_paper(net: Net) -> None:
    groups = {swallowing.group(key) for key, parameter in net.named_parameters() if parameter.requires_grad}
    assert groups == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "score_fr", "score_pool4",
                      "score_pool3", "trunk biases", "score biases"}  # fmt: skip


def test_shares_are_counted_from_the_weights(net: Net) -> None:
    before = {key: parameter.detach().clone() for key, parameter in net.named_parameters()}
    by_hand = copy.deepcopy(net)
    found = swallowing.train(net, Stage("voc-fcn8s", "c", 1))["fc6"]
    swallowing.backward(by_hand, "c/0", swallowing.SIZES[0])
    gradient, start = by_hand.get_parameter("fc6.weight").grad, before["fc6.weight"]
    assert gradient is not None
    update = 1e-14 * (gradient + 5e-4 * start)
    after = start - update
    assert torch.equal(after, net.get_parameter("fc6.weight"))
    reached = gradient != 0
    assert found["weights"] == start.numel() and found["reached"] == pytest.approx(float(reached.double().mean()))
    assert found["unchanged"] == pytest.approx(float((after == start)[reached].double().mean())) and reached.any()
    assert found["arrived"] == pytest.approx(float((after - start).norm() / update.norm()), rel=1e-5)


def test_nothing_is_swallowed_at_a_high_rate(net: Net) -> None:
    found = swallowing.train(net, Stage("voc-fcn32s", "c", 2))
    assert found["score_pool3"]["unchanged"] < 0.1 and found["score_pool3"]["arrived"] == pytest.approx(1, abs=1e-3)


def test_coarser_numbers_and_lower_rates_swallow_more(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swallowing, "FULL_SIZE", (40, 50))
    found = {
        (e["format"], e["rate"], e["gradient"]): e["share"] for e in swallowing.at_full_size(net, "c")["swallowed"]
    }
    assert len(found) == 12
    for name in found["float32", 1e-10, "constant"]:
        rates = [found["float32", rate, "constant"][name] for rate in (1e-10, 1e-12, 1e-14)]
        assert rates == sorted(rates)
        assert found["float32", 1e-12, "constant"][name] <= found["float32", 1e-12, "changing"][name]
        assert found["float32", 1e-10, "changing"][name] <= found["bfloat16", 1e-10, "changing"][name]


def test_the_page_shows_the_committed_figures() -> None:
    page = (ROOT / "docs/swallowed-updates.md").read_text()
    figures = json.loads((ROOT / "benchmarks/results/swallowing.json").read_text())
    for row in swallowing.tables(figures).splitlines():
        assert row in page, row
