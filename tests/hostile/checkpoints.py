"""Good and hostile checkpoints, snapshots, and what else a run keeps in its folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.records import FOLDER
from fcn.images import voc_palette
from reference import checkpoint
from reference.caffe import load_caffemodel, load_prototxt
from reference.checkpoint import About
from reference.progress import Progress, settings_of
from reference.recipes import RECIPES
from reference.solver import CaffeSGD
from tests.hostile.caffe_files import hostile_prototxt
from tests.hostile.mutate import EXTREMES, Sample

SETTINGS = settings_of(RECIPES["shapes-fcn32s"], 1337, start="random weights")
Header = dict[str, Any]


@cache
def written(running: bool) -> bytes:
    """A checkpoint of the tiny net that Caffe trained; with a solver's state and progress if `running`."""
    net = load_prototxt(FOLDER / "solverstate/train.prototxt")
    load_caffemodel(net, FOLDER / "solverstate/tiny_iter_6.caffemodel")
    palette = tuple(tuple(colour) for colour in voc_palette()[:5].tolist())
    about = About("tiny", 6, "made up", tuple("abcde"), palette, (104.0, 116.7, 122.7), provenance={"seed": 1337})
    row = {"iteration": 6, "loss": 2.5, "loss_per_pixel": 1e-3, "rate": 1e-10}
    progress = Progress(SETTINGS, [row], [{"iteration": 6, "mean_iu": 0.1}], [(2.5, 100)], 1.5)
    state = (CaffeSGD(net, 1e-8).state_dict(), progress.plain()) if running else ()
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder, "w.safetensors"), net, about, *state)
        return Path(folder, "w.safetensors").read_bytes()


def split(file: bytes) -> tuple[Header, bytes]:
    """The header of a safetensors file, and the tensors."""
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def join(header: bytes, tensors: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + tensors


def samples(running: bool) -> list[Sample]:
    """The file, its header as text, and what the header says of the net, with the checksum left out."""
    file = written(running)
    header, tensors = split(file)
    ends = {at for value in header.values() if "data_offsets" in value for at in value["data_offsets"]}
    start = len(file) - len(tensors)
    cuts = tuple(sorted({0, 1, 4, 8, 9, start - 1, *(start + end for end in ends)}))
    description = json.loads(header["__metadata__"][checkpoint.KEY])
    del description["crc32"]

    def described(text: bytes) -> bytes:
        told = {checkpoint.KEY: text.decode("utf-8", "surrogateescape")}
        return join(json.dumps({**header, "__metadata__": told}).encode(), tensors)

    return [
        Sample(file, cuts),
        Sample(json.dumps(header).encode(), wrap=lambda text: join(text, tensors), text=True),
        Sample(json.dumps(description).encode(), wrap=described, text=True),
    ]


def hostile(running: bool) -> Iterator[bytes]:
    """Headers that claim what is not there, definitions that ask for too much, descriptions of another kind."""
    file = written(running)
    header, tensors = split(file)
    for length in EXTREMES:
        yield struct.pack("<Q", length % 2**64) + file[8:]
        yield struct.pack("<Q", length % 2**64)
    yield join(b"{" * 10**6, tensors)
    yield join(b"[" * 10**6, tensors)
    yield join(b'{"a":' * 10**5, tensors)
    yield join(
        json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}).encode(),
        b"",
    )
    yield from (_tensor(header, tensors, change) for change in _lies(header))
    yield from (_described(header, tensors, change) for change in _descriptions(running))
    yield b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."
    yield b"PK\x03\x04" + bytes(1000)


def _tensor(header: Header, tensors: bytes, change: Callable[[Header], None]) -> bytes:
    copy = json.loads(json.dumps(header))
    change(copy)
    return join(json.dumps(copy).encode(), tensors)


def _lies(header: Header) -> Iterator[Callable[[Header], None]]:
    """Changes to the header: offsets, shapes, types and names that are not those of the data."""
    key = "conv1.weight"
    good = header[key]
    for number in EXTREMES:
        for value in ([number, number], [0, number], [number, 0], [number]):
            yield lambda copy, value=value: copy[key].update(data_offsets=value)
        for value in ([number], [number, number], [0, number], [number] * 40, [8, 3, 3, number]):
            yield lambda copy, value=value: copy[key].update(shape=value)
    for kind in ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "U64", "X", "", None, 7):
        size = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F16": 2, "BF16": 2}.get(str(kind), 1)
        count = (good["data_offsets"][1] - good["data_offsets"][0]) // size
        yield lambda copy, kind=kind: copy[key].update(dtype=kind)
        yield lambda copy, kind=kind, count=count: copy[key].update(dtype=kind, shape=[count])
    for name in (
        "conv9.weight",
        "",
        "\x00",
        "a\nb",
        "\x1b[2J",
        "\ud800",
        "..",
        "spec",
        "_plans",
        "history:",
        "x" * 10**5,
    ):
        yield lambda copy, name=name: copy.update({name: copy.pop(key)})
        yield lambda copy, name=name: copy.update({name: good})
    for value in (
        None,
        [],
        "x",
        7,
        {"fcn": None},
        {"fcn": 7},
        {"fcn": ""},
        {"fcn": "{}"},
        {"other": "x"},
        {"fcn": "\ud800"},
    ):
        yield lambda copy, value=value: copy.update({"__metadata__": value})
    yield lambda copy: copy.pop("__metadata__")
    yield lambda copy: copy.pop(key)


def _described(header: Header, tensors: bytes, change: Callable[[Header], Any]) -> bytes:
    description = json.loads(header["__metadata__"][checkpoint.KEY])
    del description["crc32"]
    changed = change(description)
    told = {checkpoint.KEY: json.dumps(description if changed is None else changed)}
    return join(json.dumps({**header, "__metadata__": told}).encode(), tensors)


def _descriptions(running: bool) -> Iterator[Callable[[Header], Any]]:
    scraps = (
        None,
        7,
        -1,
        1e400,
        float("nan"),
        "",
        "x",
        "\x1b[2J",
        "\ud800",
        [],
        [[]],
        {},
        {"a": 1},
        [None],
        True,
        "9" * 10**4,
    )
    for scrap in scraps:
        yield lambda told, scrap=scrap: scrap if scrap is not None else []
        for key in ("format", "prototxt", "about", "crc32"):
            yield lambda told, key=key, scrap=scrap: told.update({key: scrap})
        for key in ("recipe", "iteration", "dataset", "classes", "palette", "mean", "void", "provenance", "another"):
            yield lambda told, key=key, scrap=scrap: told["about"].update({key: scrap})
        if running:
            yield lambda told, scrap=scrap: told.update(progress=scrap)
            for key in ("settings", "log", "scores", "window", "seconds", "another"):
                yield lambda told, key=key, scrap=scrap: told["progress"].update({key: scrap})
            for row in ({"iteration": scrap}, {"loss": scrap, "iteration": 7}, scrap):
                yield lambda told, row=row: told["progress"].update(log=[row, row])
                yield lambda told, row=row: told["progress"]["scores"].append(row)
    for classes in (["a"], ["a"] * 6, ["a\nb"] * 5, [1] * 5, "abcde", ["x" * 10**6] * 5, [["a"]] * 5):
        yield lambda told, classes=classes: told["about"].update(classes=classes)
    for palette in ([[0, 0, 0]], [[0, 0]] * 5, [[256, 0, 0]] * 5, [[-1, 0, 0]] * 5, [["a"] * 3] * 5, [[0.5] * 3] * 5):
        yield lambda told, palette=palette: told["about"].update(palette=palette)
    for mean in ([1e300] * 3, [0] * 2, ["a"] * 3, [-1, 0, 0], [float("nan")] * 3, [[0]] * 3):
        yield lambda told, mean=mean: told["about"].update(mean=mean)
    texts = [text for text in hostile_prototxt() if len(text) < 10**4]
    for text in (*texts[:: len(texts) // 40], *texts[-10:], "x" * 2**21, "# " * 2**20):
        yield lambda told, text=text: told.update(prototxt=text)
    # Definitions of this net that ask for more than the file holds: 2 GB of weights, or of activations.
    for old, new in (
        ("num_output: 8", "num_output: 10000000"),
        ("dim: 40", "dim: 30000"),
        ("kernel_size: 3", "kernel_size: 9999"),
    ):
        yield lambda told, old=old, new=new: told.update(prototxt=told["prototxt"].replace(old, new))


# --- the other files of a run ---------------------------------------------------------------------------------

SCRAPS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"7",
    b'"x"',
    b"{",
    b"[" * 10**5,
    b'{"a":' * 10**5,
    b"\xff\xfe{}",
    b"9" * 10**5,
    b"\0",
)


def run_samples() -> list[Sample]:
    return [Sample(json.dumps(SETTINGS, indent=indent).encode(), text=True) for indent in (2, None)]


def hostile_run() -> Iterator[bytes]:
    yield from (scrap for scrap in SCRAPS if scrap)
    for key in (*SETTINGS, "another"):
        for scrap in (None, 7, "x", [], {}, [[]], {"a": {}}, "\x1b[2J", "x" * 10**5, 1e400, float("nan")):
            yield json.dumps({**SETTINGS, key: scrap}).encode()
    for key in SETTINGS["recipe"]:
        yield json.dumps({**SETTINGS, "recipe": {**SETTINGS["recipe"], key: None}}).encode()
    yield bytes(10**6)
    yield b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."


def log_samples() -> list[Sample]:
    head = "iteration,loss,loss_per_pixel,rate\r\n"
    rows = "".join(f"{i},{1e5 / i},{1 / i},1e-10\r\n" for i in range(20, 200, 20))
    return [Sample((head + rows).encode(), text=True)]


def hostile_log() -> Iterator[bytes]:
    good = log_samples()[0].content
    yield from (scrap for scrap in SCRAPS if scrap)
    for scrap in (
        *SCRAPS,
        b"nan",
        b"1.5",
        b"1e9",
        b"\x1b[2J",
        b"x" * 10**6,
        b'"',
        b'"a\nb"',
        b"=1+1",
        b"1_0",
        b",",
        b",,,,,,,",
    ):
        yield good.replace(b"\r\n60,", b"\r\n" + scrap + b",")
        yield good.replace(b"1e-10", scrap)
        yield good.replace(b"iteration", scrap)
        yield good.replace(b"rate", scrap)
        yield scrap + good
        yield good + scrap
    yield good.replace(b",", b"\0")
    yield good * 200
    yield good.splitlines()[0] * 2000
    yield b"iteration" + b",loss" * 10**5 + b"\n1" + b",2" * 10**5
