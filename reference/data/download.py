"""One file from the Internet: with a checksum, progress, and on from where a cut connection left it; archives unpacked.

pooch compares the checksum and moves the file to its name; it does not resume, which `Resuming` adds with requests,
on which pooch stands itself.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pooch
import requests
from tqdm import tqdm

from fcn.cli import BadInput
from fcn.files import PARTIAL, writing

ATTEMPTS = 4  # that bring nothing, before giving up
PAUSE = 0.5  # seconds before the next attempt, times the number of those that brought nothing
TIMEOUT = 30  # seconds without an answer
BLOCK = 2**15  # bytes written at once; what came of a block in which the connection breaks is lost
# What the decompressors raise, beside OSError.
BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, ValueError, struct.error),
)
pooch.get_logger().setLevel("WARNING")  # it tells of every file; the caller does


def download(url: str, target: Path, checksum: str = "") -> None:
    """Fetch `url` as `target`; what came of a cut download lies in TARGET.part, where the next one goes on.

    checksum: "md5:..." or "sha1:...", or nothing where none is known. Raises BadInput, and leaves nothing under the
    name, for a file that cannot be fetched or has another checksum.
    """
    resuming = Resuming(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pooch.retrieve(url, checksum or None, target.name, target.parent, downloader=resuming)
        except requests.RequestException as error:
            size = _size(resuming.part)
            kept = f"{resuming.part} holds {size:,} bytes of it; " if size else ""
            raise BadInput(f"{url}: cannot be fetched ({error}); {kept}give the same command again to go on") from error
        except ValueError as error:
            raise BadInput(f"{url}: has not the checksum {checksum}; nothing is kept: try again ({error})") from error


class Resuming:
    """A downloader for pooch that goes on after what TARGET.part holds, if the server still has the same file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.tag = target.with_name(f"{target.name}.part.tag")  # what the server calls this version of the file

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        """Fetch `url` as `output_file`. Raises requests' errors where ATTEMPTS in a row bring nothing."""
        failures = 0
        while True:
            before = _size(self.part)
            try:
                self._go_on(url)
                break
            except requests.RequestException:
                failures = 1 if _size(self.part) > before else failures + 1
                if failures == ATTEMPTS:
                    raise
                time.sleep(PAUSE * failures)
        self.part.replace(output_file)
        self.tag.unlink(missing_ok=True)

    def _go_on(self, url: str) -> None:
        """One connection. Raises requests' errors where it ends too early, BadInput where there is no such file."""
        have = _size(self.part) if self.tag.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.tag.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            place = answer.headers.get("Content-Range", "")
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if place == f"bytes */{have}":
                    return  # all of it was there
                self.tag.unlink()
                raise requests.ConnectionError(f"asked for bytes from {have} on, it has {place or 'none'}")
            if not answer.ok:
                said = f"{answer.status_code} {answer.reason}"
                raise BadInput(f"{url}: {said}; see whether it has moved, and put the file to {self.target} by hand")
            if answer.status_code != requests.codes.partial_content:
                have = 0  # the server has another version by now, or knows no ranges
            elif not place.startswith(f"bytes {have}-"):
                self.tag.unlink()
                raise requests.ConnectionError(f"asked for bytes from {have} on, it sent {place or 'others'}")
            coming = int(answer.headers.get("Content-Length", 0))
            if coming > (room := shutil.disk_usage(self.part.parent).free):
                raise BadInput(f"{self.part.parent}: {coming:,} bytes are to come, {room:,} are free; make room")
            etag = answer.headers.get("ETag", "W/")
            version = answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
            with self.part.open("ab" if have else "wb") as file:
                if version:
                    self.tag.write_text(version)
                with tqdm(
                    desc=self.target.name,
                    total=have + coming if coming else None,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                    leave=False,
                ) as bar:
                    for block in answer.iter_content(BLOCK):
                        file.write(block)
                        bar.update(len(block))
        if coming and _size(self.part) != have + coming:
            raise requests.ConnectionError(f"the connection was cut after {_size(self.part)} of {have + coming} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, target: Path, landmark: str) -> None:
    """Make the folder within `archive` (tar, tar.gz or zip) that holds `landmark` the folder `target`.

    `target` appears at once and whole. Raises BadInput for an archive that is broken or holds no `landmark`, and for
    one with anything but files and folders below its root, of which nothing is kept.
    """
    with writing(target), tempfile.TemporaryDirectory(prefix=PARTIAL, dir=target.parent) as temporary:
        root = Path(temporary, "root")
        try:
            for name, content in tqdm(_files(archive), archive.name, unit="file", disable=None, leave=False):
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file)
        except (*BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # of the disk; that of a decompressor has no number
            raise BadInput(f"{archive}: cannot be unpacked ({error}); delete it and fetch it again") from error
        holders = [path.parent for path in root.rglob(landmark)]
        if not holders:
            raise BadInput(f"{archive}: holds no {landmark}; unpack it by hand, and put what holds one to {target}")
        min(holders, key=lambda path: len(path.parts)).replace(target)


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every file in an archive. Raises ValueError for a name that leads out of it, and a link."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    with opened.open(info) as content:
                        yield _inside(info.filename), content
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdir():
                continue
            # What a sparse member says of its size is bounded by nothing.
            found = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if found is None:
                raise ValueError(f"{member.name} is a link, a device or sparse")
            yield _inside(member.name), found


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.name:
        raise ValueError(f"{name!r} leads out of it")
    return name
