from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest

from benchmarks import interleave as module
from benchmarks.interleave import Times, interleave, together


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


def test_callers_run_at_once() -> None:
    """Waiting takes no processor: four wait as long as one."""
    one, four = (together(lambda: time.sleep(0.02), callers, 10) for callers in (1, 4))
    assert 30 < one <= 50 and 3 < four / one < 5


def test_each_caller_makes_its_own_calls() -> None:
    calls = Counter[int]()

    def call() -> None:
        calls[threading.get_ident()] += 1

    assert together(call, 3, 7) > 0
    assert list(calls.values()) == [2 * module.WARM_UP + 7] * 3


def test_a_caller_that_fails_ends_it() -> None:
    def call() -> None:
        raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        together(call, 4, 5)
