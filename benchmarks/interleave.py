"""Timing several calls against one another: in turn, in one process, so that whatever drifts hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np
from tqdm import tqdm

WARM_UP = 3  # calls each, untimed: memory pools fill, caches settle, cuDNN chooses its algorithms
LEAST, MOST = 30, 300  # runs of each contender where --repeat does not say: the p99 of fewer is their maximum
SECONDS = 3.0  # of each contender, unless MOST runs are reached before
# Both libraries' idle threads spin for some milliseconds after a call: without a rest one's would slow the next.
REST = 0.02


@dataclass(frozen=True)
class Times:
    """Latencies of one contender, in milliseconds."""

    runs: int
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Percentiles with linear interpolation between neighbours (numpy's default)."""
        median, p90, p99 = (float(value) for value in np.percentile(np.array(seconds) * 1e3, (50, 90, 99)))
        return cls(len(seconds), median, p90, p99)


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    repeat: int | None = None,
    warm_up: int = WARM_UP,
    rest: float = REST,
    title: str = "timing",
) -> dict[str, list[float]]:
    """Seconds of each run of each call. Round after round all are called once, each round beginning with the next.

    repeat: rounds; None goes on until each has run for SECONDS, LEAST rounds at least and MOST at most.
    A call must return only when its result is there (on a GPU: synchronised).
    """
    names = list(calls)
    for name in names:
        for _ in range(warm_up):
            calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tqdm(total=repeat, desc=title, unit="round", disable=None, leave=False) as bar:
        done = 0
        while not _enough(seconds, done, repeat):
            for name in (*names[done % len(names) :], *names[: done % len(names)]):
                time.sleep(rest)
                start = time.perf_counter()
                calls[name]()
                seconds[name].append(time.perf_counter() - start)
            done += 1
            bar.update()
    return seconds


def together(call: Callable[[], Any], callers: int, runs: int) -> float:
    """Calls a second that `callers` threads make at once, `runs` each, after warming up together."""
    ready = Barrier(callers)  # nobody takes another's turn

    def warm_up(_: int) -> None:
        ready.wait()
        for _ in range(2 * WARM_UP):  # all at once, as later: each caller needs buffers of its own
            call()

    def work(_: int) -> tuple[float, float]:
        ready.wait()
        start = time.perf_counter()
        for _ in range(runs):
            call()
        return start, time.perf_counter()

    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(warm_up, range(callers)))
        spans = list(threads.map(work, range(callers)))
    return callers * runs / (max(end for _, end in spans) - min(start for start, _ in spans))


def _enough(seconds: Mapping[str, Sequence[float]], rounds: int, repeat: int | None) -> bool:
    if repeat is not None:
        return rounds >= repeat
    return rounds >= MOST or (rounds >= LEAST and min(sum(runs) for runs in seconds.values()) >= SECONDS)
