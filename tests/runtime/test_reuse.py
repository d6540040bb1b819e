"""runtime/reuse.py: buffers grow and never shrink, sizes take turns, callers wait for one another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.reuse import BLOCK, Pool, Recent, Replay, grown


@given(st.integers(0, 2**40), st.integers(1, 2**40))
def test_a_buffer_holds_what_is_needed_and_is_stable(size: int, needed: int) -> None:
    now = grown(size, needed)
    assert now >= max(size, needed)
    assert now == size or (now % BLOCK == 0 and now <= needed * 9 / 8 + BLOCK)
    assert grown(now, needed) == now and grown(now, now) == now


def test_growing_images_move_their_buffer_seldom() -> None:
    size = moves = 0
    for side in range(100, 1100):
        moves, size = moves + (grown(size, 12 * side * side) != size), grown(size, 12 * side * side)
    assert moves < 40


def test_a_shape_runs_is_captured_and_then_replayed() -> None:
    replay = Replay()
    assert replay.rebound(3) is None and replay.generation == 3
    assert replay.step() == "run"
    replay.ran()
    assert replay.step() == "capture"
    replay.captured("graph")
    assert [replay.step(), replay.step()] == ["launch", "launch"]
    assert replay.rebound(4) == "graph" and replay.step() == "run"


def test_what_cannot_be_captured_is_tried_once_a_shape() -> None:
    replay = Replay()
    replay.ran()
    replay.captured(None)
    assert replay.step() == "run"
    replay.ran()
    assert replay.step() == "run"
    replay.reshaped()
    replay.ran()
    assert replay.step() == "capture"


@given(st.lists(st.sampled_from(["run", "run", "run", "move", "reshape"]), max_size=40))
def test_no_graph_outlives_what_it_was_captured_with(events: list[str]) -> None:
    """Against the rule itself: a graph is launched under the shape and addresses of its capture, before which the same
    ran plainly once; and each graph is given back once.
    """
    replay, now, shape = Replay(), 0, 0
    alive: dict[str, tuple[int, int]] = {}
    ran: set[tuple[int, int]] = set()
    made = 0
    for event in events:
        if event != "run":
            now, shape = now + (event == "move"), shape + (event == "reshape")
            given_back = replay.rebound(now) if event == "move" else replay.reshaped()
            assert (given_back is None) == (not alive) and (given_back is None or alive.pop(given_back))
            continue
        if replay.generation != now:
            assert replay.rebound(now) is None
        step = replay.step()
        if step == "capture":
            assert (now, shape) in ran and not alive
            made += 1
            alive[f"graph {made}"] = (now, shape)
            replay.captured(f"graph {made}")
            step = replay.step()
        if step == "launch":
            assert alive[replay.graph] == (now, shape)
        else:
            assert step == "run"
            ran.add((now, shape))
            replay.ran()
    assert len(alive) <= 1


def test_the_value_unused_for_longest_makes_room() -> None:
    recent: Recent[str, int] = Recent(2)
    for key, value in (("a", 1), ("b", 2)):
        assert recent.oldest() is None
        recent.put(key, value)
    assert recent.get("a") == 1 and recent.get("c") is None
    with pytest.raises(ValueError):
        recent.put("c", 3)
    assert recent.oldest() == 2  # "a" was used since
    recent.put("c", 3)
    assert recent.get("b") is None and list(recent) == [1, 3] and len(recent) == 2
    assert recent.clear() == [1, 3] and len(recent) == 0


def test_the_value_of_a_key_can_be_replaced() -> None:
    recent: Recent[str, int] = Recent(1)
    recent.put("a", 1)
    recent.put("a", 2)
    assert recent.get("a") == 2


def test_callers_share_at_most_so_many_values_and_never_one_at_a_time() -> None:
    made: list[object] = []
    busy: set[int] = set()
    greatest = 0
    lock = threading.Lock()

    def make() -> object:
        made.append(object())
        return made[-1]

    pool = Pool(make, 3)

    def work(_: int) -> None:
        nonlocal greatest
        with pool.take() as value:
            with lock:
                assert id(value) not in busy
                busy.add(id(value))
                greatest = max(greatest, len(busy))
            time.sleep(0.001)
            with lock:
                busy.remove(id(value))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(64)))
    assert greatest == len(made) == 3
    assert sorted(map(id, pool.close())) == sorted(map(id, made)) and pool.close() == []


def test_one_caller_needs_one_value() -> None:
    pool = Pool(object, 4)
    values = set()
    for _ in range(5):
        with pool.take() as value:
            values.add(value)
    assert len(values) == 1


def test_a_pool_closes_when_all_are_back_and_lets_nobody_in() -> None:
    pool = Pool(object, 1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.take():
            entered.set()
            leave.wait(10)

    def enter() -> None:
        with pool.take():
            pass

    with ThreadPoolExecutor(3) as threads:
        holding = threads.submit(hold)
        assert entered.wait(10)
        waiting = threads.submit(enter)
        closing = threads.submit(pool.close)
        with pytest.raises(ValueError, match="closed"):
            waiting.result(10)
        assert not closing.done()
        leave.set()
        holding.result(10)
        assert len(closing.result(10)) == 1
    with pytest.raises(ValueError, match="closed"), pool.take():
        pass


def test_what_cannot_be_made_takes_no_place() -> None:
    def make() -> object:
        raise MemoryError

    pool = Pool(make, 1)
    for _ in range(2):
        with pytest.raises(MemoryError), pool.take():
            pass
    assert pool.close() == []


def test_an_error_gives_the_value_back() -> None:
    pool = Pool(object, 1)
    for _ in range(2):
        with pytest.raises(KeyError), pool.take():
            raise KeyError
    assert len(pool.close()) == 1
