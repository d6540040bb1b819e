"""The generated data set: frozen pixels, and the properties that its docstring promises."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fcn.cli import BadInput
from reference.data.shapes import CLASSES, LENGTHS, Crops, Shapes
from reference.score import confusion, metrics

# SHA-256 of image and label bytes. Exact: only operations that IEEE 754 rounds correctly make them.
FROZEN = {
    ("train", 0): "9fb7920fb2887dd42f8692da8c0ae8cf6384d61967856e39a2952809c3576fa8",
    ("train", 699): "764cd284e16698de9a88ba16dc740549dd70afbbf086674ee1221860a081a0ec",
    ("val", 7): "06bf343a339e8d402446f879db862ec34a930ecdf525c5125ef136cf4c1f40f9",
    ("test", 42): "debb643385377cb68700d4e1203b892ca633b013cd25699fa44db189f947e6f0",
}


@pytest.fixture(scope="module")
def scenes():
    return [Shapes("val")[index] for index in range(40)]


@pytest.mark.parametrize(("split", "index"), FROZEN)
def test_scenes_are_frozen(split, index):
    sample = Shapes(split)[index]
    digest = hashlib.sha256(sample.image.tobytes() + sample.label.tobytes()).hexdigest()
    assert digest == FROZEN[split, index], "shapes has changed: every figure measured on it is void"


def test_crops_are_frozen():
    crops = Crops("train", size=96)
    digest = hashlib.sha256(b"".join(crops[index].image.tobytes() for index in range(24))).hexdigest()
    assert digest == "e13f64cc1bd6210947df4786654fca4063fb04656fafb90ea88eb573a9cf4d38"


def test_a_scene_depends_on_nothing_but_its_split_and_index():
    first = Shapes("train")[3]
    Shapes("train")[4]
    again = Shapes("train")[3]
    assert np.array_equal(first.image, again.image) and np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image[:200, :200], Shapes("val")[3].image[:200, :200])


def test_sizes_are_mixed_and_no_multiple_of_the_stride(scenes):
    sizes = {sample.label.shape for sample in scenes}
    assert len(sizes) > 4
    assert any(height > width for height, width in sizes) and any(height < width for height, width in sizes)
    assert any(height % 8 and width % 8 for height, width in sizes)


def test_outlines_bear_a_void_border(scenes):
    """No two classes touch: 2.5 void pixels lie between them, so neighbours differ only to or from void."""
    for sample in scenes:
        for a, b in ((sample.label[1:], sample.label[:-1]), (sample.label[:, 1:], sample.label[:, :-1])):
            assert not ((a != b) & (a != 255) & (b != 255)).any()
    share = np.mean([np.mean(sample.label == 255) for sample in scenes])
    assert 0.03 < share < 0.08  # VOC: about 0.055


def test_every_class_occurs_and_objects_overlap(scenes):
    counts = np.sum([np.bincount(np.unique(s.label[s.label < 255]), minlength=len(CLASSES)) for s in scenes], axis=0)
    assert counts[0] == len(scenes) and counts.min() >= 4
    assert np.mean([len(np.unique(s.label[s.label < 255])) - 1 for s in scenes]) > 2.5


def test_thin_parts_need_a_finer_stride(scenes):
    """The paper's upper bounds (PAMI, section on them): the truth itself, known only once per stride x stride cell."""
    bounds = {}
    for stride in (32, 8):
        hist = sum(confusion(s.label, _coarse(s.label, stride), len(CLASSES)) for s in scenes)
        bounds[stride] = dict(zip(CLASSES, metrics(hist)["iu"], strict=True))
    for name in ("wheel", "stool"):
        assert bounds[32][name] < 0.4 and bounds[8][name] > 0.5
    assert bounds[32]["disc"] > 0.6 and bounds[8]["disc"] > 0.9


def _coarse(label: np.ndarray, stride: int) -> np.ndarray:
    height, width = label.shape
    padded = np.pad(label, ((0, -height % stride), (0, -width % stride)), constant_values=255)
    rows, columns = padded.shape[0] // stride, padded.shape[1] // stride
    cells = padded.reshape(rows, stride, columns, stride).swapaxes(1, 2).reshape(rows, columns, -1)
    votes = np.stack([(cells == k).sum(-1) for k in range(len(CLASSES))], -1).argmax(-1)
    return votes.repeat(stride, 0).repeat(stride, 1)[:height, :width]


def test_colour_does_not_tell_the_class():
    """The nearest class mean of the colour at the middle is right for about one crop in eleven.

    0.2 is 4.9 standard deviations above chance (0.091 +- 0.0219 for 173 crops), so only a leak fails this.
    """
    crops, count = Crops("train", size=64), len(CLASSES)
    items = [(crops[index].image, crops[index].label.item()) for index in range(30 * count) if index % count]
    colours = np.array([image[24:40, 24:40].reshape(-1, 3).mean(0) for image, _ in items])
    kinds = np.array([kind for _, kind in items])
    half = len(items) // 2
    means = np.array([colours[:half][kinds[:half] == kind].mean(0) for kind in range(1, count)])
    called = 1 + np.square(colours[half:, None] - means).sum(-1).argmin(1)
    assert np.mean(called == kinds[half:]) < 0.2


def test_crops_are_balanced_and_hold_their_object():
    crops = Crops("val", size=48)
    kinds = [crops[index].label.item() for index in range(len(CLASSES) * 2)]
    assert kinds == list(range(len(CLASSES))) * 2
    assert len(crops) % len(CLASSES) == 0
    assert crops[5].image.shape == (48, 48, 3) and crops[5].image.dtype == np.uint8


def test_the_mean_is_the_training_split_s():
    """Over 40 scenes: their mean scatters by 34 / sqrt(40), about 5.4 levels; three times that is allowed."""
    images = [Shapes("train")[index].image.reshape(-1, 3).mean(0) for index in range(40)]
    assert np.abs(np.mean(images, 0)[::-1] - Shapes.mean).max() < 16


def test_splits_have_their_lengths_and_others_are_refused():
    assert {split: len(Shapes(split)) for split in LENGTHS} == {"train": 700, "val": 100, "test": 100}
    with pytest.raises(BadInput, match="no split 'trainval'"):
        Shapes("trainval")
    with pytest.raises(BadInput, match="no split 'test'"):
        Crops("test")
    with pytest.raises(IndexError):
        Shapes("val")[100]
