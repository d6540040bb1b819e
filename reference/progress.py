"""What a run keeps in its folder, so that it can be killed at any moment and goes on bit for bit.

run.json                           the settings: a run with others is refused here
snapshot.safetensors               all that the run consists of, replaced as one: weights, solver, `Progress`
log.csv, scores.csv, tensorboard/  what `Progress` holds, for readers; brought back to the snapshot on resuming
weights.safetensors, result.json   the end: a run is finished once its weights are there and its snapshot is gone
"""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fcn.cli import BadInput
from fcn.files import atomic, read_json, sweep, writing
from reference import checkpoint
from reference.net import Net
from reference.recipes import Recipe
from reference.runs import WEIGHTS
from reference.solver import CaffeSGD

RUN, SNAPSHOT, LOG, SCORES, RESULT = "run.json", "snapshot.safetensors", "log.csv", "scores.csv", "result.json"
Row = dict[str, float]


@dataclass
class Progress:
    """What a run has to show beside weights and solver.

    log: rows (iteration, loss, loss_per_pixel, rate). scores: rows (iteration and the metrics on val).
    window: loss and labelled pixels of each pass since the last row of the log. seconds: spent so far.
    Raises ValueError for rows of a file that are none.
    """

    settings: dict[str, Any]
    log: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    window: list[tuple[Any, Any]] = field(default_factory=list)  # numbers; scalar tensors until a snapshot needs them
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for rows in (self.log, self.scores):
            if any(not _is_row(row) or row.keys() != rows[0].keys() for row in rows):
                raise ValueError("its rows are no table")
        self.window = [(float(loss), int(pixels)) for loss, pixels in self.window]
        self.seconds = float(self.seconds)

    @property
    def scored(self) -> int:
        """The last iteration that was scored, or 0."""
        return int(self.scores[-1]["iteration"]) if self.scores else 0

    def plain(self) -> dict[str, Any]:
        """For JSON. (This waits for the GPU.)"""
        self.window = [(float(loss), int(pixels)) for loss, pixels in self.window]
        return asdict(self)


def settings_of(recipe: Recipe, seed: int, **start: str) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON gives it back. start="..." where it is known."""
    return json.loads(json.dumps({"recipe": recipe.settings, "seed": seed, **start}))


def finished(folder: Path) -> bool:
    """Whether the run in `folder` has come to its end."""
    return (folder / WEIGHTS).exists() and not (folder / SNAPSHOT).exists()


def same_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises BadInput where `folder` holds a run with other settings than these, or one that nobody can tell."""
    if (folder / RUN).exists():
        _same(folder, read_json(folder / RUN, "remove it, and give the command that began this run"), settings)
    elif (folder / WEIGHTS).exists():
        raise BadInput(f"{folder}: holds {WEIGHTS} but no {RUN} that says whose; choose another --out or remove it")


def _same(folder: Path, before: Any, now: Mapping[str, Any]) -> None:
    changed = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
    if changed:
        raise BadInput(f"{folder}: holds a run with another {', '.join(changed)}; choose another --out or remove it")


def resume(folder: Path, net: Net, solver: CaffeSGD, settings: dict[str, Any]) -> Progress:
    """Bring `net` and `solver` to where the snapshot in `folder` stands, if there is one.

    Raises BadInput where it is damaged, of another net, or of a run with other settings.
    """
    path = folder / SNAPSHOT
    if not path.exists():
        return Progress(settings)
    mend = "put a copy of it back, or remove it to begin this stage anew"
    saved = checkpoint.load(path, mend)
    try:
        progress = Progress(**saved.progress)
        _same(folder, progress.settings, settings)
        net.load_state_dict(saved.net.state_dict())
        solver.load_state_dict(saved.history)
    except (ValueError, RuntimeError, TypeError) as error:
        raise BadInput(f"{path}: no snapshot of this run and version; {mend}") from error
    return progress


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("iteration"), int)
        and all(isinstance(value, int | float) for value in row.values())
    )


class Table:
    """Rows of a `Progress`, repeated in a CSV file and as TensorBoard's curves TAG/COLUMN."""

    def __init__(self, path: Path, rows: list[Row], curves: SummaryWriter, tag: str) -> None:
        self.path, self.rows, self.curves, self.tag = path, rows, curves, tag
        self.write()

    def add(self, iteration: int, **values: float) -> None:
        """One more row. Raises BadInput where the disk is full."""
        self.rows.append({"iteration": iteration, **values})
        with writing(self.path):
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.rows[0])
                if len(self.rows) == 1:
                    writer.writeheader()
                writer.writerow(self.rows[-1])
            for column, value in values.items():
                self.curves.add_scalar(f"{self.tag}/{column}", value, iteration)

    def write(self) -> None:
        """The whole file anew: whatever it held, it now holds the rows."""
        if not self.rows:
            self.path.unlink(missing_ok=True)
            return
        with atomic(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)


def read_table(path: Path) -> list[Row]:
    """The rows of a log.csv or scores.csv; none where it is missing. Raises BadInput for a broken one."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            rows = [
                {key: int(value) if key == "iteration" else float(value) for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        if not all(map(_is_row, rows)):
            raise ValueError("no column iteration")
        return rows
    except (ValueError, TypeError, csv.Error) as error:
        raise BadInput(f"{path}: not a table that train.py wrote ({error}); remove it") from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process, cleared of what killed ones left half written.

    Raises BadInput where another process trains there, or it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        with writing(folder):
            try:
                # Not flock: loader workers, which outlive a killed run by seconds, would inherit and hold that.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise BadInput(
                    f"{folder}: another run is training here; wait for it or choose another --out"
                ) from error
            sweep(folder)
        yield
