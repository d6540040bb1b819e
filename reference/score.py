"""The paper's four metrics (section 5), from a confusion matrix. NumPy only."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from fcn.cli import BadInput


class Metrics(TypedDict):
    """Fractions of 1. The arrays hold one value a class, NaN where the class is absent."""

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    fw_iu: float
    accuracy: np.ndarray
    iu: np.ndarray


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """classes x classes int64: how many pixels of class i (row) were called j (column).

    label, prediction: integer arrays of one shape. A label outside 0 to classes - 1 (255 is void) is left
    out, as in `fast_hist` of the authors' score.py. Raises BadInput for shapes that differ, for values that
    are no integers, and for a prediction out of range at a labelled pixel.
    """
    label, prediction = np.asarray(label), np.asarray(prediction)
    if label.shape != prediction.shape:
        raise BadInput(f"a prediction of shape {prediction.shape} cannot be scored against {label.shape}")
    if label.dtype.kind not in "ui" or prediction.dtype.kind not in "ui":
        raise BadInput(f"class ids must be integers, not {label.dtype} (label) and {prediction.dtype}")
    valid = (label >= 0) & (label < classes)
    truth, called = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    if called.size and not 0 <= called.min() <= called.max() < classes:
        wrong = int(called.max() if called.max() >= classes else called.min())
        raise BadInput(f"the prediction holds class id {wrong}; only 0 to {classes - 1} can be scored")
    return np.bincount(truth * classes + called, minlength=classes**2).reshape(classes, classes)


def metrics(hist: np.ndarray) -> Metrics:
    """Metrics of a confusion matrix; matrices of several images are summed first.

    With n_ij pixels of class i called j and t_i = sum_j n_ij:
    pixel accuracy sum_i n_ii / sum_i t_i, mean accuracy mean_i n_ii / t_i,
    IU n_ii / (t_i + sum_j n_ji - n_ii), its mean, and its mean weighted by t_i.
    As in the authors' score.py a class without a labelled pixel has no accuracy, and no IU either unless it
    was called somewhere, when its IU is 0; the means are over those that have one. Empty means are NaN.
    """
    hist = np.asarray(hist, np.float64)
    right, labelled, called = np.diag(hist), hist.sum(1), hist.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = right / labelled
        iu = right / (labelled + called - right)
        pixel_accuracy = right.sum() / hist.sum()
        share = labelled / hist.sum()
    present = share > 0
    return {
        "pixel_accuracy": float(pixel_accuracy),
        "mean_accuracy": _mean(accuracy),
        "mean_iu": _mean(iu),
        "fw_iu": float((share[present] * iu[present]).sum()) if present.any() else float("nan"),
        "accuracy": accuracy,
        "iu": iu,
    }


def _mean(values: np.ndarray) -> float:
    """Mean of those that are not NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
