"""Good and hostile archives of data sets, and PASCAL-Context's list of labels."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator

from tests.hostile.mutate import Sample
from tests.reference.folders import context_names

FILES = {"top/cls/1.mat": bytes(300), "top/cls/2.mat": b"2" * 700, "top/train.txt": b"1\n2\n"}


def tar(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """An uncompressed tar archive; of another kind of members where told."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, link
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def samples() -> list[Sample]:
    whole = tar(FILES)
    blocks = tuple(range(0, len(whole), 256))
    found = [Sample(whole, blocks), Sample(whole, blocks, gzip.compress)]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = zipped(FILES, method)
        marks = [at for at in range(len(packed)) if packed[at : at + 2] == b"PK"]
        found.append(Sample(packed, tuple(at + step for at in marks for step in (0, 4, 8, 14, 18, 26, 30))))
    return found


def hostile() -> Iterator[bytes]:
    """Names that lead elsewhere, members that are no files, sizes that lie, and archives within archives."""
    for name in (
        "../pwned",
        "/pwned",
        "a/../../pwned",
        "..",
        ".",
        " ",
        "\\pwned",
        "C:\\pwned",
        "a\0b",
        "\x1b[2J",
        "x" * 5000,
    ):
        yield tar({"top/cls": b"", name: b"1"})
        yield zipped({"top/cls": b"", name: b"1"})
        yield tar({name: b"1"}, tarfile.SYMTYPE, "/etc/passwd")
    for kind in (
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ):
        for link in ("/etc/passwd", "../../pwned", "top/cls/1.mat"):
            yield tar({"top/cls/1.mat": b""}, kind, link)
    yield tar({"cls": b"1", "cls/1.mat": b"2"})
    yield zipped({"cls": b"1", "cls/1.mat": b"2"})
    yield zipped({"top/cls/1.mat": bytes(2**24)})
    yield gzip.compress(gzip.compress(tar(FILES)))
    yield gzip.compress(bytes(2**24))
    yield from (zipped({}), tar({}), b"PK\x05\x06" + bytes(18), b"PK\x03\x04", bytes(10_240), b"\x1f\x8b\x08")


def label_samples() -> list[Sample]:
    text = "".join(f"{i}: {name}\n" for i, name in enumerate(context_names(), start=1))
    return [Sample(text.encode(), text=True)]


def hostile_labels() -> Iterator[bytes]:
    yield from (b"1:\n", b":\n", b"1: aeroplane", b"0: aeroplane\n", b"\xff\xfe", b"1: \xff\n", b"\n" * 10**6)
    yield b"".join(b"%d: table\n" % i for i in range(1, 200_000))
    yield b"1: " + b"x" * 10**7
