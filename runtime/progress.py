"""The progress of a TensorRT build: a bar for each phase, and an interrupt that ends it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


@contextlib.contextmanager
def progress(trt: Any) -> Iterator[Any]:
    """An IProgressMonitor. Ctrl-C within the block sets its `cancelled` and ends the build at its next step.

    The library prints an exception that leaves a callback, and builds on: an interrupt is noted instead of raised.
    """
    monitor = _monitor(trt)

    def interrupted(number: int, frame: Any) -> None:
        monitor.cancelled = True

    if threading.current_thread() is not threading.main_thread():  # only the main thread is interrupted
        yield monitor
        return
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield monitor
    finally:
        signal.signal(signal.SIGINT, before)


def _monitor(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._bars: dict[str, tqdm] = {}

        # Called from the library's own threads too. A bar that cannot be drawn stops no build.

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with contextlib.suppress(Exception):
                self._bars[phase_name] = tqdm(total=num_steps, desc=phase_name, leave=not parent_phase, disable=None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with contextlib.suppress(Exception):
                bar = self._bars[phase_name]
                bar.update(step + 1 - bar.n)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            with contextlib.suppress(Exception):
                self._bars.pop(phase_name).close()

    return Monitor()
