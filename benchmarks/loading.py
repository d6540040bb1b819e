"""Time and memory of reading a full-size caffemodel into a net, against protobuf's own parser.

Two files of random weights are made: voc-fcn8s as Caffe writes it today, and VGG-16 in the format of 2014, its blobs
of four axes, which is transplanted into voc-fcn8s. Every reading is a fresh process with one thread, the file in the
page cache; both import the same, so their peaks compare. Writes OUT, a JSON.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import reference
from fcn.cli import BadInput, command, parser
from fcn.files import write_json
from fcn.record import record
from reference.caffe import binary, save_caffemodel
from reference.caffe import caffe_pb2 as pb
from reference.caffe.prototxt import net_message
from reference.caffe.upgrade import V1_TYPES
from reference.layers import Input
from reference.net import Net

NET = "voc-fcn8s"
PROTOBUF, OURS = "protobuf", "load_caffemodel"
TARGET = 1.5  # times protobuf's seconds; and no more memory than protobuf's and the net's
RUNS = 7
MIB = 2**20
STATUS = Path("/proc/self/status")  # Linux's
TO_V1 = {today: word for word, today in V1_TYPES.items()}


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("loading.py", __doc__ or "", "python benchmarks/loading.py --runs 9")
    args.add_argument("--width", type=float, default=1.0, help="factor of the channels")
    args.add_argument("--runs", type=int, default=RUNS, help="processes of each reader for each file")
    args.add_argument("--out", type=Path, default=Path("out/loading.json"), metavar="FILE")
    options = args.parse_args(argv)
    if options.runs < 1 or not 0 < options.width <= 1:
        raise BadInput("--runs: 1 or more; --width: above 0, 1 at most")
    busy = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder:
        files = [measure(name, Path(folder, f"{name}.caffemodel"), options.width, options.runs) for name in WRITERS]
    figures = record(
        net=NET,
        width=options.width,
        threads=1,
        load_average_before=busy,  # processes that wanted a core, in the minute before
        runs=options.runs,
        target=TARGET,
        files=files,
    )
    print(table(figures))
    write_json(options.out, figures)
    print(options.out)
    return 0


def measure(name: str, path: Path, width: float, runs: int) -> dict[str, Any]:
    """Make one file, let both readers read it in turn, and take medians of seconds, the largest of peaks."""
    net_mib = round(child("write", name, path, width)["net_mib"], 1)
    turns: dict[str, list[dict[str, float]]] = {PROTOBUF: [], OURS: []}
    for _ in range(runs):
        for reader, found in turns.items():
            found.append(child(reader, name, path, width))
    rows = {reader: summary(found) for reader, found in turns.items()}
    theirs, ours = rows[PROTOBUF], rows[OURS]
    return {
        "file": name,
        "mib": round(path.stat().st_size / MIB, 1),
        "net_mib": net_mib,
        "readers": rows,
        "time_ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "time_ratio_with_building": round((ours["build_seconds"] + ours["seconds"]) / theirs["seconds"], 3),
        "memory_left_mib": round(theirs["peak_mib"] + net_mib - ours["peak_mib"], 1),
    }


def summary(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several processes: the largest peak, and medians of all else."""
    return {key: round((max if key == "peak_mib" else median)(turn[key] for turn in turns), 4) for key in turns[0]}


def child(what: str, name: str, path: Path, width: float) -> dict[str, float]:
    """What `task` returns in a process of its own, whose peak is no other's."""
    program = "import json, sys; from benchmarks.loading import task; print(json.dumps(task(*sys.argv[1:])))"
    words = [sys.executable, "-c", program, what, name, str(path), str(width)]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def task(what: str, name: str, path: str, width: str) -> dict[str, float]:
    """Write the file, or read it: seconds, and the process's peak so far in MiB."""
    torch.set_num_threads(1)
    if what == "write":
        return {"net_mib": WRITERS[name](Path(path), float(width))}
    began = time.perf_counter()
    if what == PROTOBUF:
        message = pb.NetParameter()
        content = Path(path).read_bytes()
        read = time.perf_counter()
        message.ParseFromString(content)
        done = time.perf_counter()
        times = {"seconds": done - began, "read_seconds": read - began}
    else:
        net = reference.build(NET, width=float(width))
        built = time.perf_counter()
        reference.load_caffemodel(net, path)
        times = {"seconds": time.perf_counter() - built, "build_seconds": built - began}
    return {**times, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this program has held, in MiB. (Linux's ru_maxrss may be that of the program before it.)"""
    if STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(found[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def write_v2(path: Path, width: float) -> float:
    """The MiB of the net that reads it, as from `write_v1`."""
    net = random_net(NET, width)
    save_caffemodel(net, path)
    return mib(net)


def write_v1(path: Path, width: float) -> float:
    """VGG-16 in the format of 2014: types as numbers, shapes as four axes."""
    net = random_net("vgg16", width)
    definition = net_message(net.spec)
    parts: list[bytes | Tensor] = [pb.NetParameter(name=definition.name).SerializeToString()]
    for layer, today in zip(net.spec.layers, definition.layer, strict=True):
        if isinstance(layer, Input):
            continue
        word = TO_V1.get(today.type) or "".join(f"_{c}" if c.isupper() else c for c in today.type)[1:].upper()
        old = pb.V1LayerParameter(name=today.name, type=word)
        for option, value in today.ListFields():
            if option.name not in ("name", "type", "param"):
                getattr(old, option.name).MergeFrom(value)
        inner: list[bytes | Tensor] = [old.SerializeToString()]
        for blob in net.layer(layer.name).state_dict().values():
            axes = (1,) * (4 - blob.ndim) + tuple(blob.shape)
            shape = pb.BlobProto(**dict(zip(("num", "channels", "height", "width"), axes, strict=True)))
            whole = [shape.SerializeToString(), *binary.field(pb.BlobProto.DATA_FIELD_NUMBER, [blob])]
            inner += binary.field(pb.V1LayerParameter.BLOBS_FIELD_NUMBER, whole)
        parts += binary.field(pb.NetParameter.LAYERS_FIELD_NUMBER, inner)
    binary.write(path, parts)
    return mib(reference.build(NET, width=width))


def random_net(name: str, width: float) -> Net:
    net = reference.build(name, width=width)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for blob in net.parameters():
            blob.uniform_(-1, 1, generator=generator)
    return net


def mib(net: Net) -> float:
    return sum(blob.nbytes for blob in net.parameters()) / MIB


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = []
    for of in figures["files"]:
        lines.append(f"\n{of['file']}, {of['mib']} MiB, into {figures['net']} of {of['net_mib']:.1f} MiB")
        lines += [
            f"  {reader:<16}{row['seconds']:7.3f} s, peak {row['peak_mib']:7.1f} MiB"
            for reader, row in of["readers"].items()
        ]
        lines.append(
            f"  {of['time_ratio']:.3f} times protobuf's time, {of['time_ratio_with_building']:.3f} building included "
            f"(target: {figures['target']} at most)\n"
            f"  {of['memory_left_mib']:.1f} MiB below protobuf's memory and the net's (target: no more)"
        )
    return "\n".join(lines)


WRITERS: dict[str, Callable[[Path, float], float]] = {"voc-fcn8s": write_v2, "vgg16-v1": write_v1}

if __name__ == "__main__":
    sys.exit(main())
