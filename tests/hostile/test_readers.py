"""Every reader on at least 500 damaged and hostile files: it reads them or says in one line what is wrong.

Each file is opened in another process (`victim`), under limits of memory and time. `mutate` makes the damaged ones
from a fixed seed; the hostile ones are made by hand, beside each kind's good samples.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fcn.cli import LONGEST
from tests.hostile import archives, caffe_files, checkpoints, lists, models, pictures, torch_files
from tests.hostile.mutate import Sample, cases
from tests.hostile.victim import Victim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured as Linux has it")

SEED = 1337
DAMAGED = 500  # files a reader, beside the hostile ones
# CPU seconds for one file. The slowest took 1.4: a prototxt of 13,000 layers, nearly the longest that is read. (It
# took 4.4 while a net was planned in quadratic time.)
SECONDS = 4.0
# MiB that a reader may take for one file. Measured: 57, for 50,000 empty blobs of a solver state.
MEMORY = 128


@dataclass(frozen=True)
class Kind:
    """A reader, its files, and how much memory it may take (MiB) where that is not MEMORY."""

    reader: str
    name: str
    samples: Callable[[], list[Sample]]
    hostile: Callable[[], Iterable[bytes | str]]
    memory: int = MEMORY


# A definition may ask for 2 GiB of weights, as Caffe's files may hold them; an image for 2^27 pixels, a .mat for as
# many bytes, a model for any constants. None gets more than victim.ROOM here.
VAST = 1024
KINDS = [
    Kind("prototxt", "net.prototxt", caffe_files.prototxt_samples, caffe_files.hostile_prototxt, VAST),
    Kind("caffemodel", "net.caffemodel", caffe_files.caffemodel_samples, caffe_files.hostile_caffemodel),
    Kind("caffemodel-v1", "net.caffemodel", caffe_files.v1_samples, caffe_files.hostile_v1),
    Kind("solverstate", "net.solverstate", caffe_files.solverstate_samples, caffe_files.hostile_solverstate),
    Kind("torchvision", "vgg16.pth", torch_files.samples, torch_files.hostile),
    Kind("checkpoint", "w.safetensors", partial(checkpoints.samples, False), partial(checkpoints.hostile, False)),
    Kind("snapshot", "snapshot.safetensors", partial(checkpoints.samples, True), partial(checkpoints.hostile, True)),
    Kind("run-json", "run.json", checkpoints.run_samples, checkpoints.hostile_run),
    Kind("log-csv", "log.csv", checkpoints.log_samples, checkpoints.hostile_log),
    Kind("jpeg", "image.jpg", pictures.jpeg_samples, pictures.hostile_jpeg, VAST),
    Kind("png", "image.png", pictures.png_samples, pictures.hostile_png, VAST),
    Kind("png-label", "label.png", pictures.label_samples, pictures.hostile_png, VAST),
    Kind("mat", "label.mat", pictures.mat_samples, pictures.hostile_mat, 256),
    Kind("png-depth", "depth.png", pictures.depth_samples, pictures.hostile_png, VAST),
    Kind("context-labels", "labels.txt", archives.label_samples, archives.hostile_labels),
    Kind("archive", "archive", archives.samples, archives.hostile),
    Kind("onnx", "model.onnx", models.onnx_samples, models.hostile_onnx, VAST),
    Kind("sidecar", "model.engine.json", models.sidecar_samples, models.hostile_sidecar),
    *(
        Kind(f"{name}-list", "split.txt", partial(lists.list_samples, name), lists.hostile_list)
        for name in ("voc", "sbd", "camvid")
    ),
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    process = Victim(tmp_path_factory.mktemp("victim"))
    yield process
    process.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.reader)
def test_a_hostile_file_is_read_or_refused_in_one_line(kind: Kind, victim: Victim, tmp_path: Path) -> None:
    path = tmp_path / kind.name
    if kind.reader.endswith("-list"):
        lists.dataset(kind.reader.removesuffix("-list"), tmp_path, path.stem)
    samples = kind.samples()
    for sample in samples:
        path.write_bytes(sample.wrap(sample.content))
        answer = victim.open(kind.reader, path)
        assert answer["outcome"] == "read", answer
    made = (content.encode() if isinstance(content, str) else content for content in kind.hostile())
    files = list(dict.fromkeys([*cases(samples, DAMAGED, SEED), *made]))
    assert len(files) >= DAMAGED
    became: Counter[str] = Counter()
    for number, content in enumerate(files):
        path.write_bytes(content)
        answer = victim.open(kind.reader, path)
        wrong = complaint(answer, path, kind.memory)
        assert not wrong, f"{kind.reader}, file {number} of {len(files)} ({path}) {wrong}: {answer}"
        became[answer["outcome"]] += 1
    print(f"{kind.reader}: {len(files)} files, {dict(became)}")
    assert became["refused"] > len(files) / 3, "most of them are no good"
    executed = [file for folder in (victim.folder, tmp_path) for file in folder.rglob("*pwned*")]
    assert not executed, "something in a file was executed"


def complaint(answer: dict[str, Any], path: Path, memory: float) -> str:
    """What is wrong with what became of a file; nothing where nothing is."""
    if answer["outcome"] not in ("read", "refused"):
        return answer["outcome"]
    if answer["cpu"] > SECONDS:
        return "took too long"
    if answer["memory"] > memory:
        return "took too much memory"
    if answer["noise"]:
        return "left more than its error on the screen"
    message = answer["message"]
    if answer["outcome"] == "refused":
        if not message.isprintable() or len(message) > 4 * LONGEST:
            return "is refused in more than a readable line"
        # A run's settings are named by its folder, a list in what it names.
        if (
            not (message.startswith((str(path), str(path.parent))) or f"; {path.name} " in message)
            or ";" not in message
        ):
            return "is refused without its name or what to do"
    return ""
