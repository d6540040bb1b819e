"""Every reader of the project: a file is opened, and what came of it is used as the commands would use it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from benchmarks.records import FOLDER
from fcn.images import read_image, read_label
from reference import checkpoint
from reference.caffe import load_caffemodel, load_prototxt, load_solverstate
from reference.data import LABEL, open_dataset, pascalcontext
from reference.data.download import unpack
from reference.data.nyud import Nyud
from reference.data.sbd import Sbd
from reference.net import Net
from reference.pretrained import read_torchvision
from reference.progress import read_table, resume, same_run, settings_of
from reference.recipes import RECIPES
from reference.solver import CaffeSGD
from runtime import sidecar
from runtime.segmenter import Segmenter

IMAGE = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
SETTINGS = settings_of(RECIPES["shapes-fcn32s"], 1337, start="random weights")


def prototxt(path: Path) -> None:
    net = load_prototxt(path)
    assert net.spec.shapes() and net.spec.outputs


@cache
def _net(source: str) -> Net:
    torch.set_num_threads(1)
    return load_prototxt(FOLDER / source)


def caffemodel(path: Path) -> None:
    load_caffemodel(_net("solverstate/train.prototxt"), path)


def caffemodel_v1(path: Path) -> None:
    load_caffemodel(_net("v1-small.prototxt"), path)


def torchvision(path: Path) -> None:
    assert len(read_torchvision(path)) == 32


def weights(path: Path) -> None:
    saved = checkpoint.load(path)
    assert saved.net.spec.shapes() and RECIPES.get(saved.about.recipe) is None
    assert np.array(saved.about.palette, np.uint8).shape[1:] == (3,) and sum(saved.about.mean) < 1e6


def snapshot(path: Path) -> None:
    net = _net("solverstate/train.prototxt")
    progress = resume(path.parent, net, CaffeSGD(net, 1e-8), SETTINGS)
    assert progress.scored >= 0 and progress.plain()


def picture(path: Path) -> None:
    image = read_image(path)
    assert image.ndim == 3 and image.dtype == np.uint8 and image.size


def label(path: Path) -> None:
    ids = read_label(path)
    assert ids.ndim == 2 and ids.dtype == np.uint8 and ids.size


def matlab(path: Path) -> None:
    ids = Sbd.read_label(Sbd.__new__(Sbd), LABEL, path)
    assert ids.ndim == 2 and ids.dtype == np.uint8 and ids.size


def depth(path: Path) -> None:
    values = Nyud.read_input(_OfDepth.__new__(_OfDepth), "depth", path)
    assert values.ndim == 2 and values.min() > 0


class _OfDepth(Nyud):
    modalities: ClassVar = {"depth": "depth"}


def context_labels(path: Path) -> None:
    assert sorted(set(pascalcontext.table(path).tolist())) == list(range(60))


def archive(path: Path) -> None:
    target = path.with_name("unpacked")
    unpack(path, target, "cls")
    shutil.rmtree(target)


def model(path: Path) -> None:
    with Segmenter.open(path, "cpu", 1) as segmenter:
        ids = segmenter(IMAGE)
        assert ids.shape == (9, 8) and ids.dtype == np.uint8


def solverstate(path: Path) -> None:
    load_solverstate(CaffeSGD(_net("solverstate/train.prototxt"), 1e-10, lr_policy="multistep", stepvalue=(4,)), path)


def beside_engine(path: Path) -> None:
    described = sidecar.read(path.with_suffix(""))
    assert described.ranges() and described.library


def model_opening(path: Path) -> None:
    Segmenter.open(path, "cpu", 1).close()


def run_file(path: Path) -> None:
    same_run(path.parent, SETTINGS)


def log(path: Path) -> None:
    assert all(row["iteration"] < 1e300 for row in read_table(path))


def voc_list(path: Path) -> None:
    _whole("voc", path)


def sbd_list(path: Path) -> None:
    _whole("sbd", path)


def camvid_list(path: Path) -> None:
    _whole("camvid", path)


def _whole(name: str, path: Path) -> None:
    assert all(sample.image.size for sample in open_dataset(name, path.parent, str(path)))


READERS: dict[str, Callable[[Path], None]] = {
    "prototxt": prototxt,
    "caffemodel": caffemodel,
    "caffemodel-v1": caffemodel_v1,
    "solverstate": solverstate,
    "torchvision": torchvision,
    "checkpoint": weights,
    "snapshot": snapshot,
    "jpeg": picture,
    "png": picture,
    "png-label": label,
    "mat": matlab,
    "png-depth": depth,
    "context-labels": context_labels,
    "archive": archive,
    "onnx": model,
    "onnx-open": model_opening,
    "sidecar": beside_engine,
    "run-json": run_file,
    "log-csv": log,
    "voc-list": voc_list,
    "sbd-list": sbd_list,
    "camvid-list": camvid_list,
}
