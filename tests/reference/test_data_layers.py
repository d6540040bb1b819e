"""NYUDv2, SIFT Flow and PASCAL-Context as the authors' data layers read them: with Pillow and SciPy, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from fcn.__main__ import main
from fcn.cli import BadInput
from fcn.images import write_image
from reference import build
from reference.data import open_dataset, pascalcontext
from reference.data.siftflow import SCENES
from reference.engine import Passes, evaluate, train_stage
from reference.recipes import Recipe, Solver
from reference.runs import WEIGHTS, open_data
from tests.reference import folders
from tests.reference.folders import CONTEXT_NAMES, NYUD_NUMBERS, SIFTFLOW_NAMES

CPU = torch.device("cpu")


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    return folders.nyud(tmp_path / "nyud")


@pytest.fixture
def siftflow(tmp_path: Path) -> Path:
    return folders.siftflow(tmp_path / "sift-flow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of PASCAL-Context's two."""
    folders.pascalcontext(tmp_path / "pascal-context", tmp_path / "pascal" / "VOC2010")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    """Of an image file, float32."""
    return np.array(Image.open(path), np.float32)


def minus(bgr: np.ndarray, mean: tuple[float, ...]) -> np.ndarray:
    """C x H x W, subtracted in float32 from a mean in float32."""
    return (bgr - np.array(mean, np.float32)).transpose(2, 0, 1)


NYUD_NETS = {
    "nyud-color": {"data": "color"},
    "nyud-hha": {"data": "hha"},
    "nyud-color-d": {"color": "color", "depth": "depth"},
    "nyud-color-hha": {"color": "color", "hha": "hha"},
}


@pytest.mark.parametrize("name", NYUD_NETS)
def test_nyud_is_what_the_authors_layer_gives(name: str, nyud: Path) -> None:
    data = open_data(name, nyud.parent, "trainval")
    assert [sample.name for sample in data] == [f"img_{number}" for number in NYUD_NUMBERS[:-1]]
    for index, number in enumerate(NYUD_NUMBERS[:-1]):
        file = f"img_{number}.png"
        expected = {
            "color": minus(pixels(nyud / "data/images" / file)[:, :, ::-1], (116.190, 97.203, 92.318)),
            "hha": minus(pixels(nyud / "data/hha" / file), (132.431, 94.076, 118.477)),
            "depth": np.log(pixels(nyud / "data/depth" / file))[None] - np.array([7.844], np.float32),
        }
        stored = scipy.io.loadmat(nyud / "segmentation" / f"img_{number}.mat")["segmentation"].astype(np.uint8)
        batch = data.batch([data[index]])
        assert set(batch) == {*NYUD_NETS[name], "label"}
        for top, modality in NYUD_NETS[name].items():
            assert batch[top].dtype == np.float32 and np.array_equal(batch[top][0], expected[modality]), (top, modality)
        shifted = np.where(stored == 0, 255, stored.astype(int) - 1)
        assert batch["label"].dtype == np.uint8 and np.array_equal(batch["label"][0, 0], shifted)
        assert {0, 39, 255} <= set(np.unique(shifted))


def test_trainval_of_nyud_is_train_and_val_where_it_is_not_listed(nyud: Path) -> None:
    (nyud / "trainval.txt").unlink()
    folders.write_lines(nyud / "train.txt", NYUD_NUMBERS[1:])
    folders.write_lines(nyud / "val.txt", NYUD_NUMBERS[:1])
    names = [sample.name for sample in open_data("nyud-color", nyud, "trainval")]
    assert names == [f"img_{number}" for number in (*NYUD_NUMBERS[1:], NYUD_NUMBERS[0])]


def test_siftflow_is_what_the_authors_layer_gives(siftflow: Path) -> None:
    data = open_data("siftflow", siftflow.parent, "trainval")
    assert [sample.name for sample in data] == list(SIFTFLOW_NAMES[:-1]) and data.labelled_only
    assert {task: len(classes) for task, classes in data.tasks.items()} == {"sem": 33, "geo": 3}
    for index, name in enumerate(SIFTFLOW_NAMES[:-1]):
        batch = data.batch([data[index]])
        bgr = pixels(siftflow / "Images" / SCENES / f"{name}.jpg")[:, :, ::-1]
        assert np.array_equal(batch["data"][0], minus(bgr, (114.578, 115.294, 108.353)))
        for task, folder in (("sem", "SemanticLabels"), ("geo", "GeoLabels")):
            stored = scipy.io.loadmat(siftflow / folder / SCENES / f"{name}.mat")["S"].astype(int)
            shifted = np.where(stored <= 0, 255, stored - 1)
            assert batch[task].dtype == np.uint8 and np.array_equal(batch[task][0, 0], shifted)
            assert stored.min() == (-1 if task == "geo" else 0) and len(data.tasks[task]) - 1 in shifted


def test_pascalcontext_is_what_the_authors_layer_gives(root: Path) -> None:
    data = open_data("pascalcontext", root, "train")
    assert [sample.name for sample in data] == list(CONTEXT_NAMES[:-1]) and len(data.classes) == 60
    numbers = {name: i for i, name in enumerate(folders.context_names(), start=1)}
    seen: set[int] = set()
    for index, name in enumerate(CONTEXT_NAMES[:-1]):
        batch = data.batch([data[index]])
        bgr = pixels(root / "pascal/VOC2010/JPEGImages" / f"{name}.jpg")[:, :, ::-1]
        assert np.array_equal(batch["data"][0], minus(bgr, (104.007, 116.669, 122.679)))
        stored = scipy.io.loadmat(root / "pascal-context/trainval" / f"{name}.mat")["LabelMap"]
        expected = np.zeros(stored.shape, np.uint8)
        for k, wanted in enumerate(data.classes[1:], start=1):
            expected[stored == numbers[pascalcontext.NAMES.get(wanted, wanted)]] = k
        assert np.array_equal(batch["label"][0, 0], expected)
        seen |= set(np.unique(expected))
    assert len(seen) > 40 and 0 in seen


def test_three_names_of_the_59_are_others_in_labels_txt() -> None:
    assert pascalcontext.NAMES == {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
    assert [pascalcontext.CLASSES[k] for k in (11, 28, 52)] == ["diningtable", "clothes", "bedcloth"]


def test_what_is_missing_or_broken_is_named(nyud: Path, siftflow: Path, root: Path) -> None:
    def refuse(name: str, split: str, match: str) -> None:
        with pytest.raises(BadInput, match=match) as raised:
            _ = open_data(name, root, split)[0]
        assert "\n" not in str(raised.value)

    depth = nyud / "data/depth" / f"img_{NYUD_NUMBERS[-1]}.png"
    Image.fromarray(np.zeros((20, 31), np.uint16)).save(depth)
    refuse("nyud-color-d", "test", r"img_5133\.png: holds depth 0, which has no logarithm")
    write_image(depth, folders.image(0))
    refuse("nyud-color-d", "test", r"img_5133\.png: holds RGB values, not depth")
    Image.fromarray(np.ones((20, 30), np.uint16)).save(depth)
    refuse("nyud-color-d", "test", r"depth/img_5133\.png: is 30x20, the image of img_5133 is 31x20; fetch nyud again")
    label = nyud / "segmentation" / f"img_{NYUD_NUMBERS[-1]}.mat"
    scipy.io.savemat(label, {"segmentation": np.full((20, 31), 41)})
    refuse("nyud-color", "test", r"img_5133\.mat: holds class id 40, but nyud has ids 0 to 39 and 255 for void")
    scipy.io.savemat(label, {"segmentation": np.full((20, 31), 0.5)})
    refuse("nyud-color", "test", r"img_5133\.mat: segmentation is no matrix of class ids from 0 to 255")
    refuse("nyud-color", "train", r"nyud/train\.txt: no such file; give a split of NYUDv2")

    geo = siftflow / "GeoLabels" / SCENES / f"{SIFTFLOW_NAMES[-1]}.mat"
    scipy.io.savemat(geo, {"S": np.full((20, 31), 4)})
    refuse("siftflow", "test", r"GeoLabels/.*coast_natu975\.mat: holds class id 3, but siftflow has ids 0 to 2")
    geo.unlink()
    refuse("siftflow", "test", r"coast_natu975\.mat: no such file; test\.txt lists it")

    names = root / "pascal-context/labels.txt"
    text = names.read_text()
    names.write_text(text.replace(": table\n", ": tables\n"))
    refuse("pascalcontext", "val", r"labels\.txt: holds no table; fetch pascalcontext again")
    names.write_text(text.replace("17: ", "18: "))
    refuse("pascalcontext", "val", r"labels\.txt: its lines are not `1: name`")
    names.write_text(text)
    scipy.io.savemat(
        root / "pascal-context/trainval" / f"{CONTEXT_NAMES[-1]}.mat", {"LabelMap": np.full((20, 31), 460)}
    )
    refuse("pascalcontext", "val", r"2008_000007\.mat: LabelMap is no matrix of class ids from 0 to 459")
    with pytest.raises(BadInput, match="labels the images of VOC 2010: give its folder too"):
        open_dataset("pascalcontext", root / "pascal-context", "train")


def trained(name: str, net: str, root: Path, folder: Path) -> None:
    """Two iterations of a narrow `net` on the trainval split of data set `name`, loaded by a worker process."""
    recipe = Recipe(
        name="tiny",
        net=net,
        data=name,
        train_split="trainval",
        val_split="test",
        solver=Solver(1e-9),
        iterations=2,
        evaluate_every=2,
        start="",
    )
    data, val = (open_data(name, root, split) for split in ("trainval", "test"))
    train_stage(recipe, build(net, width=1 / 64), data, val, folder, seed=1337, device=CPU, workers=1, start="zeros")


def test_a_net_of_two_inputs_trains_and_is_scored(nyud: Path, tmp_path: Path) -> None:
    """The loader gives every input by name, and the loss and the metrics take them."""
    data = open_data("nyud-color-hha", nyud.parent, "trainval")
    batch = Passes(data, batch=2, passes=1, seed=1337)[0]
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "color": (2, 3, 20, 31),
        "hha": (2, 3, 20, 31),
        "label": (2, 1, 20, 31),
    }
    found = evaluate(build("nyud-fcn32s-color-hha", width=1 / 64), data, CPU)
    labels = np.stack([sample.label for sample in data])
    # Of equal scores, here zeros, the first class is called.
    assert found["pixel_accuracy"] == pytest.approx(np.mean(labels[labels != 255] == 0))
    trained("nyud-color-d", "nyud-fcn32s-color-d", nyud.parent, tmp_path / "run")
    assert (tmp_path / "run" / WEIGHTS).exists()


def test_a_net_of_two_labels_trains_and_is_scored_for_both(
    siftflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data("siftflow", siftflow.parent, "trainval")
    found = evaluate(build("siftflow-fcn32s", width=1 / 64), data, CPU)
    assert list(found["tasks"]) == ["sem", "geo"] and found["mean_iu"] == found["tasks"]["sem"]["mean_iu"]
    for task in data.tasks:
        labels = np.stack([sample.labels[task] for sample in data])
        first, of_task = np.mean(labels[labels != 255] == 0), found["tasks"][task]
        assert of_task["pixel_accuracy"] == pytest.approx(first)
        # A class that no pixel bears has no IU: all others share the 100 %.
        assert of_task["mean_iu"] == pytest.approx(first / np.sum(~np.isnan(of_task["iu"])))
    trained("siftflow", "siftflow-fcn32s", siftflow.parent, tmp_path / "run")
    command = ["evaluate", str(tmp_path / "run" / WEIGHTS), "--dataset", "siftflow", "--split", "test"]
    assert main([*command, "--data", str(siftflow.parent), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "siftflow test: 1 images" in said and "\nsem mean_iu" in said and "\ngeo mean_iu" in said
