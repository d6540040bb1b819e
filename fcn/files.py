"""Files are written under a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fcn.cli import BadInput

# Libraries may make private files; this gives them what the user's other files have. Reading it sets it, hence once.
UMASK = os.umask(0o022)
os.umask(UMASK)
PARTIAL = ".partial-"  # how names of temporary folders begin


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError of the body, which writes `path`, into BadInput."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"{path}: cannot be written ({reason}); make room, or choose another place") from error


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside `path`; on success it is moved there.

    A power cut, too, leaves the old file or the new one, never an empty one: the content is on the disk before the
    name is. (A folder, for libraries that write under a temporary name of their own.) Raises BadInput where the place
    cannot be made or written, or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{path.stem}-", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            temporary.chmod(0o666 & ~UMASK)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)


def sweep(folder: Path) -> None:
    """Delete what killed processes left half written in `folder`. Nobody else may be writing there."""
    for left in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def sync(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk: after it, no power cut undoes a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path, hint: str = "check the path") -> Any:
    """Read JSON. Raises BadInput, ending in `hint`, where the file is missing or is no JSON."""
    try:
        return json.loads(existing(path, hint=hint).read_text())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not a JSON file ({error}); {hint}") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | Path, kind: str = "file", hint: str = "check the path") -> Path:
    """`path` as a Path. Raises BadInput where it is missing, of the wrong kind, an empty file or one without leave."""
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError):  # the name may be one that no file system takes
        raise BadInput(f"{path}: no such {kind}; {hint}") from None
    if kind == "folder":
        if not stat.S_ISDIR(status.st_mode):
            raise BadInput(f"{path}: no such folder; {hint}")
        return path
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path}: not a file; {hint}")
    if status.st_size == 0:
        raise BadInput(f"{path}: the file is empty; {hint}")
    if not os.access(path, os.R_OK):
        raise BadInput(f"{path}: may not be read; give yourself leave to (chmod u+r)")
    return path
