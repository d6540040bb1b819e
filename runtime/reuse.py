"""What an engine keeps between runs, as plain logic: how buffers grow, which sizes stay prepared, when their work is
captured and replayed, and who runs where.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

BLOCK = 2**20  # buffers are multiples of it

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def grown(size: int, needed: int) -> int:
    """Bytes that a buffer of `size` should have once `needed` must fit: unchanged, or an eighth more than needed.

    The room spares images that grow little by little a move each: every move ends all CUDA graphs of the buffer.
    """
    if needed <= size:
        return size
    return -(-(needed + needed // 8) // BLOCK) * BLOCK


@dataclass
class Replay:
    """How one prepared shape runs next: kernel by kernel, captured as a graph, or by that graph.

    A graph holds the addresses it was captured with: it goes where a buffer moves. The first run after a change of
    shape or address lets the library do what the change left to do, which cannot be captured; so the second captures.
    """

    generation: int = -1
    """Of the buffers whose addresses are bound; -1 for none."""
    graph: Any = None
    _ran: bool = False
    _capturable: bool = True

    def step(self) -> Literal["run", "capture", "launch"]:
        """What to do now. After "run" call `ran`, after "capture" `captured`."""
        if self.graph is not None:
            return "launch"
        return "capture" if self._ran and self._capturable else "run"

    def ran(self) -> None:
        """The work ran with what is bound."""
        self._ran = True

    def captured(self, graph: Any) -> None:
        """The work was captured; as None where it cannot be, and then it is not tried again."""
        self.graph, self._capturable = graph, graph is not None

    def rebound(self, generation: int) -> Any:
        """Other addresses are bound: the graph to give back, or None."""
        graph, self.graph, self._ran, self.generation = self.graph, None, False, generation
        return graph

    def reshaped(self) -> Any:
        """Another shape is prepared, and nothing bound: the graph to give back, or None."""
        self._capturable = True
        return self.rebound(-1)


class Recent(Generic[Key, Value]):
    """The `capacity` values used last, by key. A new key takes over the value of the one unused for longest."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value of `key`, which is now the last used; None where there is none."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def oldest(self) -> Value | None:
        """Take out the value unused for longest, if there is no room for one more."""
        return self._values.popitem(last=False)[1] if len(self._values) >= self._capacity else None

    def put(self, key: Key, value: Value) -> None:
        """Keep `value`, as the last used. There must be room: `oldest` makes it."""
        if key not in self._values and len(self._values) >= self._capacity:
            raise ValueError(f"more than {self._capacity} values")
        self._values[key] = value
        self._values.move_to_end(key)

    def clear(self) -> list[Value]:
        """Take out all values, the oldest first."""
        values = list(self._values.values())
        self._values.clear()
        return values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values.values())


class Pool(Generic[Value]):
    """At most `most` values, each used by one caller at a time; made when all there are are in use.

    The value returned last goes out first: with fewer callers than values the same few stay warm.
    """

    def __init__(self, make: Callable[[], Value], most: int) -> None:
        self._make, self._most = make, most
        self._free: list[Value] = []
        self._made = 0
        self._closed = False
        self._change = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[Value]:
        """A value for the duration of the block; waits while all are in use. Raises ValueError once closed."""
        value = self._acquire()
        try:
            yield value
        finally:
            with self._change:
                self._free.append(value)
                self._change.notify_all()

    def close(self) -> list[Value]:
        """Let nobody in any more, wait until all values are back, and hand them over (none the second time)."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            self._change.wait_for(lambda: len(self._free) == self._made)
            values, self._free, self._made = self._free, [], 0
        return values

    def _acquire(self) -> Value:
        with self._change:
            self._change.wait_for(lambda: self._closed or self._free or self._made < self._most)
            if self._closed:
                raise ValueError("closed")
            if self._free:
                return self._free.pop()
            self._made += 1
        try:
            return self._make()
        except BaseException:
            with self._change:
                self._made -= 1
                self._change.notify_all()
            raise
