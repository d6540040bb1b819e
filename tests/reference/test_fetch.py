"""Downloads from a server on this machine: cut connections, servers that know no ranges, wrong checksums, archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fcn.__main__ import main
from fcn.cli import BadInput
from reference.data import download as downloading
from reference.data import sources
from reference.data.download import ATTEMPTS, BLOCK, download, unpack
from reference.data.sources import SOURCES, Source
from tests.reference import folders

CONTENT = np.random.RandomState(0).bytes(1_000_000)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`. cuts: bytes after which the next answers break off. knows_ranges: whether it resumes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.cuts: list[int] = []
        self.knows_ranges, self.version = True, '"1"'
        self.asked: list[str] = []  # the Range of every request

    def url(self, name: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, content = self.server, self.server.files.get(self.path)
        wanted = self.headers.get("Range", "")
        server.asked.append(wanted)
        if content is None:
            return self.send_error(404)
        first = 0
        if wanted and server.knows_ranges and self.headers.get("If-Range") == server.version:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", server.version)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = first + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[first:end])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "PAUSE", 0.01)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- downloads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [MD5, "sha1:" + hashlib.sha1(CONTENT).hexdigest(), ""])
def test_a_file_arrives(server: Server, tmp_path: Path, checksum: str) -> None:
    download(server.url(), tmp_path / "deep" / "file.bin", checksum)
    assert (tmp_path / "deep" / "file.bin").read_bytes() == CONTENT
    assert left(tmp_path) == {"deep/file.bin"} and server.asked == [""]


def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [10 * BLOCK, 7 * BLOCK + 5, 3, BLOCK]
    download(server.url(), tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT and left(tmp_path) == {"file"}
    assert server.asked == ["", *(f"bytes={blocks * BLOCK}-" for blocks in (10, 17, 17, 18))]


def test_the_next_command_goes_on_where_this_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.cuts = [9 * BLOCK] + [0] * ATTEMPTS
    with pytest.raises(BadInput, match=r"file\.part holds 294,912 bytes of it; give the same command again to go on"):
        download(server.url(), tmp_path / "file", MD5)
    assert left(tmp_path) == {"file.part", "file.part.tag"}
    download(server.url(), tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT and left(tmp_path) == {"file"}
    assert server.asked[-1] == "bytes=294912-"


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.knows_ranges, server.cuts = False, [2 * BLOCK]
    download(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and server.asked == ["", f"bytes={2 * BLOCK}-"]


def test_two_versions_are_never_mixed(server: Server, tmp_path: Path) -> None:
    """No checksum is needed for that: the server is asked for the rest of the version that was begun."""
    server.cuts = [9 * BLOCK] + [0] * ATTEMPTS
    with pytest.raises(BadInput):
        download(server.url(), tmp_path / "file")
    server.files["/file"], server.version = CONTENT[::-1], '"2"'
    download(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_a_part_that_is_all_of_it_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """As where the process was killed after the last byte."""
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.tag").write_text(server.version)
    download(server.url(), tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT and server.asked == ["bytes=1000000-"]


def test_a_part_that_is_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.part.tag").write_text(server.version)
    download(server.url(), tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT and server.asked == ["bytes=1000004-", ""]


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT[:-1] + b"?"
    with pytest.raises(BadInput, match=f"/file: has not the checksum {MD5}; nothing is kept"):
        download(server.url(), tmp_path / "file", MD5)
    assert not left(tmp_path)


def test_what_cannot_be_fetched_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="/nothing: 404 Not Found; see whether it has moved, and put the file to"):
        download(server.url("nothing"), tmp_path / "file", MD5)
    closed = Server()
    closed.server_close()
    with pytest.raises(BadInput, match=r"/file: cannot be fetched .*refused.*; give the same command again"):
        download(closed.url(), tmp_path / "file", MD5)
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(BadInput, match=r"blocked/file: cannot be written"):
        download(server.url(), tmp_path / "blocked" / "file", MD5)
    assert left(tmp_path) == {"blocked"}


# --- archives -----------------------------------------------------------------------------------------------


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A .tar.gz of files, and of symbolic links by their targets."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return packed.getvalue()


def tar_of_noise() -> bytes:
    """An uncompressed one that has no padding at its end, so that all of it is read."""
    return gzip.decompress(tar({"noise": CONTENT[:2000]}))[:-10_000]


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


FILES = {"top/README": b"x", "top/deep/cls/1.mat": b"1", "top/deep/train.txt": b"2", "top/deep/more/cls/3.mat": b"3"}


@pytest.mark.parametrize("pack", [tar, zipped])
def test_the_folder_with_the_landmark_is_unpacked(pack, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(pack(FILES))
    unpack(tmp_path / "archive", tmp_path / "sbd", "cls")
    assert left(tmp_path / "sbd") == {"cls/1.mat", "train.txt", "more/cls/3.mat"}
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "sbd"}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (tar({**FILES, "../out": b"!"}), r"'\.\./out' leads out of it"),
        (tar({**FILES, "/tmp/out": b"!"}), "'/tmp/out' leads out of it"),
        (zipped({**FILES, "a/../../out": b"!"}), "leads out of it"),
        (zipped({**FILES, "C:\\out": b"!"}), "leads out of it"),
        (tar(FILES, {"top/link": "/etc"}), "top/link is a link, a device or sparse"),
        (tar(FILES)[:-40], "cannot be unpacked"),
        (zipped(FILES)[:-40], "cannot be unpacked"),
        (gzip.compress(tar_of_noise())[:-9] + bytes(9), "cannot be unpacked"),
        (zipped(FILES).replace(zlib.crc32(b"1").to_bytes(4, "little"), b"\0\0\0\0"), "Bad CRC-32"),
        (b"<html>gone</html>", "cannot be unpacked"),
        (tar({"other/file": b"1"}), "holds no cls; unpack it by hand"),
    ],
)
def test_a_bad_archive_leaves_nothing(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    archive = tmp_path / "inner" / "archive"
    archive.write_bytes(content)
    with pytest.raises(BadInput, match=match) as raised:
        unpack(archive, tmp_path / "inner" / "sbd", "cls")
    assert str(raised.value).startswith(f"{archive}: ") and left(tmp_path) == {"inner/archive"}


# --- the command --------------------------------------------------------------------------------------------


def packed_siftflow(folder: Path, pack) -> bytes:
    """The fixture's files as an archive, without the lists, which the authors' repository has."""
    folders.siftflow(folder)
    return pack({path: (folder / path).read_bytes() for path in left(folder) if not path.endswith(".txt")})


def test_a_data_set_is_fetched_and_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {
        "/SiftFlowDataset.zip": packed_siftflow(tmp_path / "made", zipped),
        **{f"/{name}": (tmp_path / "made" / name).read_bytes() for name in ("trainval.txt", "test.txt")},
    }
    local = tuple(
        Source(server.url(source.url.rsplit("/", 1)[1]), source.to, landmark=source.landmark)
        for source in SOURCES["siftflow"]
    )
    monkeypatch.setitem(SOURCES, "siftflow", local)  # type: ignore[misc]
    server.cuts = [5000]
    root = tmp_path / "data"
    assert main(["data", "fetch", "siftflow", "--dir", str(root)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.count("nobody publishes a checksum") == 3
    assert hashlib.sha256(server.files["/SiftFlowDataset.zip"]).hexdigest() in said.out
    assert left(root / "siftflow") == left(tmp_path / "made") and len(server.asked) == 4
    assert main(["data", "check", "siftflow", str(root)]) == 0
    assert "3 images, 0 problems" in capsys.readouterr().out
    assert main(["data", "fetch", "siftflow", "--dir", str(root)]) == 0
    assert capsys.readouterr().out.count("there already") == 3 and len(server.asked) == 4


def test_weights_are_compared_also_where_they_lie_already(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "vgg16", (Source(server.url(), "weights/vgg", MD5, "somebody"),))  # type: ignore[misc]
    command = ["data", "fetch", "vgg16", "--dir", str(tmp_path)]
    assert main(command) == 0 and main(command) == 0 and len(server.asked) == 1
    assert capsys.readouterr().out == (
        f"{tmp_path}/weights/vgg: fetched, {MD5} as somebody has it\n{tmp_path}/weights/vgg: there already\n"
    )
    (tmp_path / "weights" / "vgg").write_bytes(b"mine")
    assert main(command) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path}/weights/vgg: has not the checksum {MD5} (somebody); move it away")
    assert (tmp_path / "weights" / "vgg").read_bytes() == b"mine"


def test_a_wrong_checksum_is_one_line_of_the_command(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is kept, of an archive neither; the server knows no ranges and cuts the connection once."""
    server.files["/file"], server.knows_ranges, server.cuts = tar(FILES), False, [0]
    monkeypatch.setitem(SOURCES, "sbd", (Source(server.url(), "sbd", MD5, "somebody", landmark="cls"),))  # type: ignore[misc]
    assert main(["data", "fetch", "sbd", "--dir", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and MD5.removeprefix("md5:") in said.err
    assert not left(tmp_path)


def test_every_source_says_whose_its_checksum_is() -> None:
    for name, each in SOURCES.items():
        for source in each:
            assert source.url.startswith(("http://", "https://")), name
            algorithm, _, digits = source.checksum.partition(":")
            assert bool(source.checksum) == bool(source.published)
            assert len(digits) == {"md5": 32, "sha1": 40, "": 0}[algorithm], name
    assert all(source.url in sources.table() for each in SOURCES.values() for source in each)
