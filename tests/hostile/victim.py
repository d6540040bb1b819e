"""A process that opens hostile files one by one: a crash, a hang or a flood there fails one case, not the suite.

Run as `python -m tests.hostile.victim` it takes a line of JSON a case on standard input, {"reader", "path"}, and
answers with one: outcome ("read", "refused" or "raised"), message of the error, cpu (seconds), memory (MiB that
were resident at most beyond what was so before), noise (bytes written to standard output and error meanwhile).
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from fcn.cli import BadInput
from fcn.record import ROOT

ROOM = 2**30  # bytes of address space beyond what the imports need
READY = b"ready\n"
PATIENCE = 60  # seconds of wall time for one file, on a machine that does other work too


class Victim:
    """The process, from the parent's side. `open` starts it again where the last case has ended it."""

    def __init__(self, folder: Path) -> None:
        """folder: where it runs, and what it writes to standard output and error goes."""
        self.folder, self.noise = folder, folder / "noise.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, reader: str, path: Path) -> dict[str, Any]:
        """What became of opening `path`; outcome "died" or "hung" where no answer came."""
        process = self._process = self._process or self._started()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"reader": reader, "path": str(path)}).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answer = process.stdout.readline() if selector.select(PATIENCE) else b"hung"
        if answer.endswith(b"\n"):
            return json.loads(answer)
        self.close()
        tail = self.noise.read_text(errors="replace")[-2000:]
        return {"outcome": "hung" if answer else "died", "message": f"exit code {process.returncode}: {tail}"}

    def _started(self) -> subprocess.Popen[bytes]:
        # What is called Ghostscript there leaves a trace, should a reader ever call it.
        ghostscript = self.folder / "gs"
        ghostscript.write_text("#!/bin/sh\ntouch pwned\n")
        ghostscript.chmod(0o755)
        search = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": search}
        command = [sys.executable, "-W", "always::UserWarning", "-m", "tests.hostile.victim"]
        pipe = subprocess.PIPE
        with self.noise.open("ab") as noise:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=pipe, stdout=pipe, stderr=noise)
        assert process.stdout and process.stdout.readline() == READY, self.noise.read_text()[-3000:]
        return process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def main() -> None:
    from tests.hostile.readers import READERS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _limit()
    answers.write(READY.decode())
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        answer = {"outcome": "read", "message": ""}
        noise, began, resident = os.fstat(2).st_size, time.process_time(), _resident()
        try:
            READERS[job["reader"]](Path(job["path"]))
        except BadInput as problem:
            answer = {"outcome": "refused", "message": str(problem)}
        except Exception:
            answer = {"outcome": "raised", "message": traceback.format_exc()[-3000:]}
        answer |= {"cpu": time.process_time() - began, "noise": os.fstat(2).st_size - noise}
        answer["memory"] = _peak() - resident
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _resident() -> float:
    """MiB in memory now, from where the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """MiB that were in memory at most since `_resident`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _limit() -> None:
    """Let the process grow by ROOM and no further: what asks for more fails at once, whether it would use it or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
