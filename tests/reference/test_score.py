"""The four metrics: against hand-worked figures, exact fractions, and the authors' own output."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fcn.cli import BadInput
from fcn.images import read_image, read_label, voc_palette
from reference.score import confusion, metrics


def test_confusion_counts_rows_by_truth_and_leaves_void_out():
    label = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 1]])
    assert confusion(label, prediction, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion(label, prediction, 3).dtype == np.int64
    # Also what lies under void may be out of range, and labels below 0 or beyond the classes are void.
    assert confusion(np.array([-1, 7, 255]), np.array([9, 9, 9]), 3).sum() == 0


def test_metrics_of_a_hand_worked_matrix():
    got = metrics(np.array([[1, 1, 0], [0, 2, 0], [1, 0, 0]]))
    assert got["pixel_accuracy"] == pytest.approx(3 / 5, rel=1e-15)
    assert got["accuracy"].tolist() == [0.5, 1, 0]
    assert got["mean_accuracy"] == 0.5
    assert got["iu"] == pytest.approx([1 / 3, 2 / 3, 0], rel=1e-15)
    assert got["mean_iu"] == pytest.approx(1 / 3, rel=1e-15)
    assert got["fw_iu"] == pytest.approx((2 / 3 + 4 / 3) / 5, rel=1e-15)


def test_absent_classes_are_left_out_as_the_authors_do():
    """Class 2 is nowhere: no accuracy, no IU. Class 1 is called but never labelled: no accuracy, IU 0."""
    got = metrics(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert np.isnan(got["accuracy"][1:]).all() and got["mean_accuracy"] == 0.75
    assert got["iu"][:2].tolist() == [0.75, 0] and np.isnan(got["iu"][2])
    assert got["mean_iu"] == 0.375
    assert got["fw_iu"] == 0.75


@pytest.mark.filterwarnings("error")
def test_an_empty_matrix_gives_nan_without_warning():
    got = metrics(np.zeros((3, 3)))
    assert all(np.isnan(got[key]) for key in ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu"))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_exact_fractions(seed):
    """The paper's formulas in exact arithmetic on pixel loops; 1e-14 allows the float64 sums of 7 terms."""
    random, classes = np.random.RandomState(seed), 7
    label = random.randint(0, classes, (31, 17))
    label[random.uniform(size=label.shape) < 0.1] = 255
    prediction = np.where(random.uniform(size=label.shape) < 0.6, label % classes, random.randint(0, 5, label.shape))
    n = [[Fraction(0)] * classes for _ in range(classes)]
    for truth, called in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if truth != 255:
            n[truth][called] += 1
    labelled = [sum(row) for row in n]
    called = [sum(column) for column in zip(*n, strict=True)]
    iu = [n[i][i] / (labelled[i] + called[i] - n[i][i]) for i in range(classes)]
    exact = {
        "pixel_accuracy": sum(n[i][i] for i in range(classes)) / sum(labelled),
        "mean_accuracy": sum(n[i][i] / labelled[i] for i in range(classes)) / classes,
        "mean_iu": sum(iu) / classes,
        "fw_iu": sum(t * u for t, u in zip(labelled, iu, strict=True)) / sum(labelled),
    }
    hist = confusion(label, prediction, classes)
    assert hist.tolist() == n
    for key, value in exact.items():
        assert metrics(hist)[key] == pytest.approx(float(value), rel=1e-14), key


def test_a_prediction_that_cannot_be_scored_is_refused():
    label = np.zeros((2, 3), np.uint8)
    with pytest.raises(BadInput, match=r"shape \(3, 2\).*\(2, 3\)"):
        confusion(label, label.T, 3)
    with pytest.raises(BadInput, match="class id 3; only 0 to 2"):
        confusion(label, np.full((2, 3), 3), 3)
    with pytest.raises(BadInput, match="class id -1"):
        confusion(label, np.full((2, 3), -1), 3)
    with pytest.raises(BadInput, match=r"integers, not uint8 .* float32"):
        confusion(label, np.zeros((2, 3), np.float32), 3)


@pytest.mark.shared
def test_the_authors_own_output(shared):
    """Their demo image's FCN-8s output (coloured with VOC's palette) against VOC's label: exact counts."""
    demo = shared / "data" / "voc" / "demo"
    matches = (read_image(demo / "output.png")[:, :, None] == voc_palette()[:21]).all(-1)
    assert matches.any(-1).all()
    hist = confusion(read_label(demo / "label.png"), matches.argmax(-1), 21)
    present = [0, 2, 15]  # background, bicycle, person
    assert hist[np.ix_(present, present)].tolist() == [[52692, 1398, 299], [4618, 28404, 1161], [8782, 7320, 45041]]
    got = metrics(hist)
    assert got["pixel_accuracy"] == 126137 / 149715
    assert got["mean_accuracy"] == pytest.approx((52692 / 54389 + 28404 / 34183 + 45041 / 61143) / 3, rel=1e-15)
    assert got["mean_iu"] == pytest.approx((52692 / 67789 + 28404 / 42901 + 45041 / 62603) / 3, rel=1e-15)
