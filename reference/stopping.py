"""How a run is asked to stop, and does: it leaves a snapshot, and the same command goes on from there.

Caffe's command, too, snapshots on Ctrl-C and ends (tools/caffe.cpp: sigint_effect; Solver::Solve:
snapshot_after_train); the authors' solve.py, which stepped the solver from Python, lost what its last snapshot lacked.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; batch systems and `kill`, which end what still runs half a minute later; a terminal that was closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A run was asked to stop and has left a snapshot. The message is one line for the user."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that collects the stop signals which come. A second one of a kind does what it always did.

    Signals that the caller ignores (nohup) stay ignored.
    """
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[number])

    handlers = {int(number): signal.getsignal(number) for number in STOP_SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_the_parent(_: int = 0) -> None:
    """For a loader's worker: it ends when the run that it loads for does, or says so, and only then.

    Stop signals often go to the whole process group; what they mean is for the parent to say. A parent that is killed
    says nothing: torch's workers look for it every five seconds, and never miss it where a fork server, Python's
    default from 3.14 on, stands between them; multiprocessing's own pipe to the parent always tells.
    """
    parent = multiprocessing.parent_process()
    if parent and hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    while parent.is_alive():
        told = signal.sigtimedwait(STOP_SIGNALS, 1)  # seconds
        if told and told.si_pid == parent.pid:
            break
    os._exit(0)
