from __future__ import annotations

import numpy as np
import pytest

from benchmarks import interleave as module
from benchmarks.interleave import Times, interleave


def test_contenders_take_turns_each_round_beginning_with_the_next() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = interleave(calls, repeat=4, warm_up=2, rest=0)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize(("step", "rounds"), [(0.25, 12), (1.0, 5), (0.001, 40)])
def test_without_repeat_it_goes_on_till_each_has_run_long_enough(
    step: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower contender takes twice as long: the faster one decides, within the least and most rounds."""
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module, "LEAST", 5)
    monkeypatch.setattr(module, "MOST", 40)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    monkeypatch.setattr(module.time, "sleep", wait)
    seconds = interleave({"fast": lambda: wait(step), "slow": lambda: wait(2 * step)}, rest=0)
    assert [len(runs) for runs in seconds.values()] == [rounds, rounds]
    assert seconds["fast"] == pytest.approx([step] * rounds) and seconds["slow"] == pytest.approx([2 * step] * rounds)


def test_percentiles() -> None:
    seconds = [i / 1000 for i in range(101)]  # 0 to 100 ms
    assert Times.of(list(np.random.RandomState(0).permutation(seconds))) == Times(101, 50.0, 90.0, 99.0)
    assert Times.of([0.25]) == Times(1, 250.0, 250.0, 250.0)
    assert Times.of([0.0, 0.01]).p90 == pytest.approx(9.0)
