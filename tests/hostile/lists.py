"""Good and hostile lists of data sets, in a folder that holds the images they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import scipy.io

from fcn.images import voc_palette, write_image, write_label
from tests.hostile.mutate import Sample
from tests.hostile.pictures import IDS, PIXELS

NAMES = ("2007_000032", "2007_000039", "0001TP_006690")
PAIRS = "".join(f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png;\n" for name in NAMES)


def dataset(name: str, folder: Path, split: str) -> None:
    """A data set of three samples in `folder`, for a list SPLIT.txt there."""
    images, labels, kinds = {
        "voc": ("JPEGImages", "SegmentationClass", (".jpg", ".png")),
        "sbd": ("img", "cls", (".jpg", ".mat")),
        "camvid": ("train", "trainannot", (".png", ".png")),
    }[name]
    (folder / labels).mkdir(parents=True)
    for stem in NAMES:
        write_image(folder / images / f"{stem}{kinds[0]}", PIXELS)
        if name == "sbd":
            scipy.io.savemat(folder / labels / f"{stem}.mat", {"GTcls": {"Segmentation": IDS}}, do_compression=True)
        else:
            write_label(folder / labels / f"{stem}.png", IDS % 11, voc_palette())
    if name == "camvid":  # a list of bare names gives the name of its folders
        (folder / split).symlink_to("train")
        (folder / f"{split}annot").symlink_to("trainannot")


def list_samples(name: str) -> list[Sample]:
    names = "".join(f"{name}\n" for name in NAMES)
    texts = [names, names.replace("\n", "\r\n\r\n")] + ([PAIRS] if name == "camvid" else [])
    return [Sample(text.encode(), text=True) for text in texts]


def hostile_list() -> Iterator[bytes]:
    """Names that are no names: of devices, folders, files elsewhere, and such as no file system takes."""
    lines = (
        *("x" * 255, "x" * 5000, "x/" * 3000, "\0", "a\0b", "..", ".", "/", "//", "../../etc/passwd", "/etc/passwd"),
        *(
            "/dev/zero",
            "/dev/stdin",
            "/dev/null",
            "/proc/self/mem",
            "~",
            "$HOME",
            "`touch pwned`",
            "a;touch pwned",
            "|x",
        ),
        *(
            "\x1b[2J\x07",
            "\u202e",
            "\ufeff2007_000032",
            "\u00e4" * 200,
            "\U0010ffff",
            "%s%n",
            "a\tb",
            "a b c",
            "a b c d",
        ),
        *("CON", "C:\\x", "-rf", "--help", "*", "?", "2007_000032.jpg", "2007_000032 2007_000039", "\x85", "\u2028x"),
    )
    for line in lines:
        yield line.encode()
        yield f"{NAMES[0]}\n{line}\n".encode()
        yield f"/a/b/{line} /a/b/{line};\n".encode()
    yield from (b"\xff\xfe2", b"\xc0\x80", b"\xed\xa0\x80", b"\n" * 10**6, b" " * 10**6, b"x" * 10**6, bytes(10**6))
    yield f"{NAMES[0]}\n".encode() * 300
    yield b"nothing\n" * 20_000
    yield b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."
