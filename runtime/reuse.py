"""What an engine keeps between runs, as plain logic: how buffers grow, which sizes stay prepared, who runs where."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

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
