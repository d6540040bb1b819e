"""The training command, killed, stopped, starved of disk and run twice: it goes on to bit-identical files.

Importing torch takes seconds, so most runs are forked from one process that has imported it and done nothing else
(multiprocessing's forkserver): each then calls the command's own `main` and receives real signals. One test runs the
script itself.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from fcn.files import PARTIAL
from fcn.images import voc_palette, write_image, write_label
from fcn.record import ROOT
from reference import checkpoint, train
from reference.data import CamVid
from reference.data.shapes import Shapes
from reference.engine import Passes, load
from reference.progress import LOG, RESULT, RUN, SCORES, SNAPSHOT, finished, read_table
from reference.recipes import RECIPES
from reference.runs import WEIGHTS
from reference.stopping import stop_signals

CHAIN = ("camvid-fcn32s", "camvid-fcn16s", "camvid-fcn8s")
ITERATIONS, EVALUATE_EVERY = 24, 6  # rows of the log at 6, 12, 18, 20 and 24
KEPT = (WEIGHTS, LOG, SCORES)
PATIENCE = 300  # seconds; a machine may be busy
GRACE = 4  # seconds: torch's loader workers, left alone, look for their parent every five
START = multiprocessing.get_start_method()  # that the command has: a forked process would hand on its own
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["reference.train", __name__])


def command(arguments: list[str], errors: Path, limit: int | None, start_method: str) -> None:
    """In a process and group of its own: the command, its milestones moved together, no file beyond `limit` bytes."""
    multiprocessing.set_start_method(start_method, force=True)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY), sys.stderr.fileno())
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for name in CHAIN:
        RECIPES[name] = replace(RECIPES[name], evaluate_every=EVALUATE_EVERY)
    sys.exit(train.main(arguments))


def stamps(out: Path, name: str) -> set[tuple[Path, int, int]]:
    """Which files of that name the stages have. One that was replaced is another one."""
    found = set()
    for path in out.glob(f"*/{name}"):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.add((path, status.st_ino, status.st_mtime_ns))
    return found


@dataclass(frozen=True)
class House:
    """Data, and where the processes' complaints go."""

    data: Path
    errors: Path

    def arguments(self, out: Path, recipe: str) -> list[str]:
        words = [recipe, "--staged", "--data", str(self.data), "--out", str(out), "--device", "cpu", "--workers", "1"]
        return [*words, "--iterations", str(ITERATIONS)]

    def start(self, out: Path, recipe: str = CHAIN[-1], *more: str, limit: int | None = None) -> Life:
        """A process that takes the run in `out` up."""
        errors = self.errors / str(len(list(self.errors.iterdir())))
        errors.touch()
        process = FORK.Process(target=command, args=([*self.arguments(out, recipe), *more], errors, limit, START))
        process.start()
        return Life(process, errors)

    def finish(self, out: Path, recipe: str = CHAIN[-1]) -> None:
        """Let the run in `out` come to its end."""
        assert self.start(out, recipe).end() == (0, "")


@dataclass(frozen=True)
class Life:
    """One process of a run."""

    process: BaseProcess
    errors: Path

    @property
    def group(self) -> int:
        assert self.process.pid
        return self.process.pid

    def wait_for(self, out: Path, name: str) -> None:
        """Until a stage has a new file of that name, or the process has ended."""
        known, began = stamps(out, name), time.monotonic()
        while self.process.exitcode is None and stamps(out, name) <= known:
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.002)

    def end(self) -> tuple[int | None, str]:
        """Wait for the end: exit code (negative: the signal that killed it), and what stands on standard error."""
        self.process.join(PATIENCE)
        return self.process.exitcode, self.errors.read_text().removesuffix("\n")

    def leaves_nobody(self) -> bool:
        """Whether its workers end with it."""
        began = time.monotonic()
        while time.monotonic() - began < GRACE:
            try:
                os.killpg(self.group, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.001)
        return False


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A CamVid of a few small images. No process outlives the tests."""
    data = tmp_path_factory.mktemp("camvid")
    draw = np.random.default_rng(0)
    for split, length in (("train", 6), ("val", 3)):
        names = [f"{split}/{i}.png {split}annot/{i}.png\n" for i in range(length)]
        for i in range(length):
            label = draw.integers(0, len(CamVid.classes) + 1, (4, 5)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            write_label(data / f"{split}annot" / f"{i}.png", label, voc_palette())
            write_image(
                data / split / f"{i}.png", voc_palette()[label + 1] + draw.integers(0, 40, (32, 40, 1), np.uint8)
            )
        (data / f"{split}.txt").write_text("".join(names))
    yield House(data, tmp_path_factory.mktemp("streams"))
    for process in multiprocessing.active_children():
        process.kill()


@dataclass(frozen=True)
class Straight:
    """A staged run that nothing interrupted."""

    out: Path
    seconds: float


@pytest.fixture(scope="module")
def straight(house: House, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    out = tmp_path_factory.mktemp("straight")
    assert house.start(out, "no-such-recipe").end()[0] == 2  # so that the time to import torch is not measured
    began = time.monotonic()
    house.finish(out)
    seconds = time.monotonic() - began
    for name in CHAIN:
        assert [row["iteration"] for row in read_table(out / name / LOG)] == [6, 12, 18, 20, 24]
        assert [row["iteration"] for row in read_table(out / name / SCORES)] == [6, 12, 18, 24]
    return Straight(out, seconds)


def assert_equal(out: Path, straight: Path, stages: tuple[str, ...] = CHAIN) -> None:
    """That a run left what the uninterrupted one left, and nothing else."""
    for name in stages:
        for file in KEPT:
            assert (out / name / file).read_bytes() == (straight / name / file).read_bytes(), f"{name}/{file}"
        assert {path.name for path in (out / name).iterdir()} == {*KEPT, RUN, RESULT, "tensorboard", ".lock"}


def assert_curves(folder: Path) -> None:
    """That TensorBoard's events, repeated or not, are the tables' figures, all of them."""
    shown: dict[tuple[str, int], set[float]] = defaultdict(set)
    for path in (folder / "tensorboard").iterdir():
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                shown[value.tag, event.step].add(value.tensor.float_val[0])
    wanted = {}
    for tag, file in (("train", LOG), ("val", SCORES)):
        for row in read_table(folder / file):
            iteration = int(row.pop("iteration"))
            wanted |= {(f"{tag}/{key}", iteration): {float(np.float32(value))} for key, value in row.items()}
    assert shown == wanted


# --- kill -9 ------------------------------------------------------------------------------------------------

# Where a run may be killed, and the file whose appearance announces it.
HERALDS = {"writing a snapshot": f"{PARTIAL}snapshot-*", "evaluating": SNAPSHOT, "between stages": WEIGHTS}


def where(out: Path, before: dict[str, set[tuple[Path, int, int]]]) -> str:
    """Where a run was when it was killed, by what it had left since `before`."""
    new = {place: stamps(out, name) - before[place] for place, name in HERALDS.items()}
    if new["writing a snapshot"]:
        return "writing a snapshot"
    ended = [name for name in CHAIN[:-1] if (out / name / WEIGHTS).exists()]
    if new["between stages"] and ended and not (out / CHAIN[len(ended)]).exists():
        return "between stages"
    for path, *_ in new["evaluating"]:
        iteration = checkpoint.load(path).about.iteration
        scored = [row["iteration"] for row in read_table(path.with_name(SCORES))]
        if iteration % EVALUATE_EVERY == 0 and iteration not in scored:
            return "evaluating"
    return "elsewhere"


def test_killed_twenty_times(house: House, straight: Straight, tmp_path: Path) -> None:
    """kill -9 at random moments and in every phase: each run that ends is the uninterrupted one, to the last bit."""
    draw = random.Random(20)
    runs = (tmp_path / str(i) for i in itertools.count())
    out, found, lives = next(runs), Counter[str](), []
    while found.total() < 20 or any(found[place] < 2 for place in HERALDS):
        assert found.total() < 60, found
        herald = draw.choice([*HERALDS.values(), "", ""])
        before = {place: stamps(out, name) for place, name in HERALDS.items()}
        life = house.start(out)
        if herald:
            life.wait_for(out, herald)
            time.sleep(draw.uniform(0, 0.003))
        else:
            life.process.join(draw.uniform(0, straight.seconds / 3))
        life.process.kill()
        code, errors = life.end()
        assert (code, errors) in ((-signal.SIGKILL, ""), (0, ""))  # nobody who still lives holds the folder
        lives.append(life)
        if code == 0:  # it was faster
            assert_equal(out, straight.out)
            out = next(runs)
        else:
            found[where(out, before)] += 1
    print(dict(found))
    house.finish(out)
    assert_equal(out, straight.out)
    for name in CHAIN:
        assert_curves(out / name)
    assert all(life.leaves_nobody() for life in lives)


# --- signals that ask ---------------------------------------------------------------------------------------


def test_asked_to_stop_it_stops_and_goes_on(house: House, straight: Straight, tmp_path: Path) -> None:
    """Each signal sent to the whole process group, as a terminal and a batch system do: workers must not mind."""
    heralds = {signal.SIGINT: LOG, signal.SIGTERM: SNAPSHOT, signal.SIGHUP: WEIGHTS}
    for number, herald in heralds.items():
        life = house.start(tmp_path)
        life.wait_for(tmp_path, herald)
        os.killpg(life.group, number)
        code, errors = life.end()
        assert code == 128 + number
        assert "stopped" in errors and errors.endswith("; the same command goes on from there") and "\n" not in errors
        assert life.leaves_nobody()
    house.finish(tmp_path)
    assert_equal(tmp_path, straight.out)


def test_the_script_itself(house: House, straight: Straight, tmp_path: Path) -> None:
    """`python reference/train.py`, stopped amid the log's second window; only its milestones lie elsewhere."""
    words = [sys.executable, str(ROOT / "reference" / "train.py"), *house.arguments(tmp_path, CHAIN[0])]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True, text=True)
    began = time.monotonic()
    while process.poll() is None and not (tmp_path / CHAIN[0] / LOG).exists():  # written in iteration 20
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM and len(errors.splitlines()) == 1, errors
    assert checkpoint.load(tmp_path / CHAIN[0] / SNAPSHOT).about.iteration >= 20
    subprocess.run(words, cwd=tmp_path, check=True, timeout=PATIENCE)
    weights = Path(CHAIN[0], WEIGHTS)
    assert (tmp_path / weights).read_bytes() == (straight.out / weights).read_bytes()


def test_a_second_signal_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as came:
        os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_caller_ignores_stays_ignored() -> None:
    """nohup."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as came:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not came
    finally:
        signal.signal(signal.SIGHUP, usual)


def leave_open() -> None:
    """In a process of its own: one pass is loaded, and the loader still stands when the process wants to end."""
    multiprocessing.set_start_method(START, force=True)
    passes = Passes(Shapes("val"), batch=1, passes=20, seed=1)
    batches = load(passes, 0, workers=1, device=torch.device("cpu"))
    next(batches)
    sys.modules[__name__].__dict__["kept"] = batches


def test_a_loader_left_open_does_not_keep_its_process() -> None:
    """multiprocessing ends workers by SIGTERM, and waits for them."""
    process = FORK.Process(target=leave_open)
    process.start()
    process.join(60)
    assert process.exitcode == 0


# --- no room, no right --------------------------------------------------------------------------------------


def test_no_room_for_the_snapshot(house: House, straight: Straight, tmp_path: Path) -> None:
    """A limit on file sizes, which needs no rights: the older snapshot stays, and the run goes on from it."""
    life = house.start(tmp_path, CHAIN[0])
    life.wait_for(tmp_path, SNAPSHOT)
    life.process.kill()
    life.end()
    before = (tmp_path / CHAIN[0] / SNAPSHOT).read_bytes()
    code, errors = house.start(tmp_path, CHAIN[0], limit=len(before) // 2).end()
    assert code == 2 and "\n" not in errors
    assert f"{SNAPSHOT}: cannot be written" in errors and "File too large" in errors and "make room" in errors
    assert (tmp_path / CHAIN[0] / SNAPSHOT).read_bytes() == before
    assert not list(tmp_path.glob(f"*/{PARTIAL}*"))
    house.finish(tmp_path, CHAIN[0])
    assert_equal(tmp_path, straight.out, CHAIN[:1])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of a size that can be changed."""
    folder = tmp_path / "disk"

    def mount(options: str) -> Path:
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("needs the right to mount a file system: run as root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def test_a_full_disk(house: House, straight: Straight, disk: Callable[[str], Path]) -> None:
    """Room for one snapshot and a half: the second, written beside the first, does not fit."""
    snapshot = 2 * (straight.out / CHAIN[0] / WEIGHTS).stat().st_size
    out = disk(f"size={3 * snapshot // 2}")
    code, errors = house.start(out, CHAIN[0]).end()
    assert code == 2 and "\n" not in errors
    assert f"{SNAPSHOT}: cannot be written" in errors and "No space left on device" in errors
    assert checkpoint.load(out / CHAIN[0] / SNAPSHOT).about.iteration == EVALUATE_EVERY
    disk(f"remount,size={4 * snapshot}")
    house.finish(out, CHAIN[0])
    assert_equal(out, straight.out, CHAIN[:1])


def test_two_runs_in_one_folder(house: House, straight: Straight, tmp_path: Path) -> None:
    first = house.start(tmp_path, CHAIN[0])
    first.wait_for(tmp_path, RUN)
    os.kill(first.group, signal.SIGSTOP)
    code, errors = house.start(tmp_path, CHAIN[0]).end()
    assert code == 2 and "another run is training here" in errors and "\n" not in errors
    os.kill(first.group, signal.SIGCONT)
    assert first.end() == (0, "")
    assert_equal(tmp_path, straight.out, CHAIN[:1])


def test_a_killed_loader_is_one_line(house: House, straight: Straight, tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    life = house.start(tmp_path, CHAIN[0])
    life.wait_for(tmp_path, SNAPSHOT)
    (worker,) = Path(f"/proc/{life.group}/task/{life.group}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    code, errors = life.end()
    assert code == 2 and "fewer --workers" in errors and "\n" not in errors
    house.finish(tmp_path, CHAIN[0])
    assert_equal(tmp_path, straight.out, CHAIN[:1])


def test_a_finished_run_from_another_start_is_refused(house: House, straight: Straight) -> None:
    """It used to be called done."""
    own = ROOT / "reference" / "recipes" / RECIPES["shapes-vgg16"].committed
    assert house.start(straight.out, CHAIN[0], "--weights", str(own)).end() == (0, "")
    other = straight.out / CHAIN[0] / WEIGHTS
    code, errors = house.start(straight.out, CHAIN[0], "--weights", str(other)).end()
    assert code == 2 and "holds a run with another start" in errors and "\n" not in errors
    code, errors = house.start(straight.out, CHAIN[0], "--weights", "none.caffemodel").end()
    assert code == 2 and "none.caffemodel: no such file" in errors
    assert finished(straight.out / CHAIN[0])
