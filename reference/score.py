"""The paper's four metrics (section 5), of label images or from a confusion matrix. No torch is needed.

As a command: label images against the truth, both files, or folders whose files are paired by name. A label image
holds ids (a palette or grey PNG), or is an RGB picture in VOC's colours, as the authors' own output.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from tqdm import tqdm

from fcn import cli
from fcn.cli import BadInput
from fcn.files import existing, write_json
from fcn.images import VOID, read_label, voc_palette
from fcn.record import record

SUFFIXES = (".bmp", ".gif", ".pgm", ".png", ".ppm", ".tif", ".tiff")  # of label images: lossless
OVERLAY = "_overlay"  # pictures that runtime/segment.py --overlay lays beside its label maps
FIGURES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "fw_iu": "f.w. IU",
}


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


def metrics(hist: np.ndarray, labelled_only: bool = False) -> Metrics:
    """Metrics of a confusion matrix; matrices of several images are summed first.

    With n_ij pixels of class i called j and t_i = sum_j n_ij:
    pixel accuracy sum_i n_ii / sum_i t_i, mean accuracy mean_i n_ii / t_i,
    IU n_ii / (t_i + sum_j n_ji - n_ii), its mean, and its mean weighted by t_i.
    As in the authors' score.py a class without a labelled pixel has no accuracy, and no IU either unless it
    was called somewhere, when its IU is 0; the means are over those that have one. Empty means are NaN.
    labelled_only: a class without a labelled pixel has no IU in any case. The paper's figures of SIFT Flow leave
    three such classes out (the authors' data/sift-flow/classes.txt), which their code did not do yet.
    """
    hist = np.asarray(hist, np.float64)
    right, labelled, called = np.diag(hist), hist.sum(1), hist.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = right / labelled
        iu = right / (labelled + called - right)
        pixel_accuracy = right.sum() / hist.sum()
        share = labelled / hist.sum()
    present = share > 0
    if labelled_only:
        iu[~present] = np.nan
    return {
        "pixel_accuracy": float(pixel_accuracy),
        "mean_accuracy": _mean(accuracy),
        "mean_iu": _mean(iu),
        "fw_iu": float((share[present] * iu[present]).sum()) if present.any() else float("nan"),
        "accuracy": accuracy,
        "iu": iu,
    }


def _mean(values: np.ndarray) -> float:
    """Mean of those that are not NaN: to the last digit what np.nanmean gives, without its warning for none."""
    known = np.count_nonzero(~np.isnan(values))
    return float(np.nansum(values) / known) if known else float("nan")


# --- label images -------------------------------------------------------------------------------------------


def score_files(pairs: Iterable[tuple[Path, Path]], classes: int, void: int = VOID) -> np.ndarray:
    """The confusion matrix of (prediction, label) images, read one pair at a time.

    void: the id that is left out where the label holds it. Raises BadInput, naming the file, for images that cannot
    be read or differ in size, and for ids that are neither a class nor, in the label, void.
    """
    hist = np.zeros((classes, classes), np.int64)
    for prediction_path, label_path in pairs:
        prediction, label = (read_label(path, voc_palette()) for path in (prediction_path, label_path))
        if prediction.shape != label.shape:
            sizes = ["x".join(map(str, image.shape)) for image in (prediction, label)]
            raise BadInput(f"{prediction_path}: is {sizes[0]}, but {label_path} is {sizes[1]}; predict at full size")
        valid = label != void
        if valid.any() and (highest := label[valid].max()) >= classes:
            raise BadInput(f"{label_path}: holds id {highest}, neither a class nor void; mend --classes or --void")
        try:
            hist += confusion(label[valid], prediction[valid], classes)
        except BadInput as problem:
            raise BadInput(f"{prediction_path}: {problem}; is --classes right?") from problem
    return hist


def find_pairs(predictions: Path, labels: Path, names: Sequence[str] | None = None) -> list[tuple[Path, Path]]:
    """Two files as one pair; of two folders the images of equal stem, in the order of `names` or of the alphabet.

    names: stems to score, all of which must be there; without them every image must have its partner.
    Raises BadInput, naming the first images that lack one.
    """
    if predictions.is_file() and labels.is_file() and names is None:
        return [(predictions, labels)]
    folders = predictions, labels
    found = [_images(existing(folder, "folder", "give two files or two folders")) for folder in folders]
    wanted = list(found[0].keys() | found[1].keys()) if names is None else names
    for folder, images in zip(folders, found, strict=True):
        if missing := sorted(set(wanted) - images.keys()):
            fix = "add or remove them, or name what to score with --list" if names is None else "mend --list"
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise BadInput(f"{folder}: holds no label image of {', '.join(missing[:3])}{more}; {fix}")
    return [(found[0][name], found[1][name]) for name in (sorted(wanted) if names is None else wanted)]


def _images(folder: Path) -> dict[str, Path]:
    """The label images in a folder by their stems."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.stem.endswith(OVERLAY):
            if path.stem in images:
                raise BadInput(f"{path}: {images[path.stem].name} bears the same name; remove one")
            images[path.stem] = path
    if not images:
        raise BadInput(f"{folder}: holds no label images ({' '.join(SUFFIXES)})")
    return images


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blank ones. Raises BadInput where there are none."""
    try:
        lines = [line.strip() for line in existing(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file; give one name a line") from error
    if not any(lines):
        raise BadInput(f"{path}: holds no names; give one a line")
    return [line for line in lines if line]


def class_names(classes: str) -> list[str]:
    """Names of the classes, from their number or from a file of names. Raises BadInput for what is neither."""
    names = [str(i) for i in range(min(int(classes), 257))] if classes.isdecimal() else read_lines(Path(classes))
    if not 1 <= len(set(names)) == len(names) <= 256:
        raise BadInput(f"--classes {classes}: give 1 to 256, or a file with so many different names")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    args = cli.parser("score.py", __doc__ or "", "python reference/score.py out/labels VOC2011/SegmentationClass")
    args.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="label image, or a folder of them")
    args.add_argument("labels", type=Path, metavar="LABELS", help="the truth: image or folder")
    args.add_argument("--classes", default="21", metavar="N|FILE", help="their number, or a file with a name a line")
    args.add_argument("--void", type=int, default=VOID, help="id of pixels that the truth leaves open")
    args.add_argument("--list", type=Path, metavar="FILE", help="score these images of the folders only: a name a line")
    args.add_argument(
        "--labelled-only",
        action="store_true",
        help="leave a class that the truth never holds out of mean IU, even if it was predicted (as in the paper's "
        "figures of SIFT Flow; the authors' code counts it as 0)",
    )
    args.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return args.parse_args(argv)


@cli.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if not 0 <= args.void <= 255:
        raise BadInput(f"--void {args.void}: label images hold ids from 0 to 255")
    names = class_names(args.classes)
    pairs = find_pairs(args.predictions, args.labels, read_lines(args.list) if args.list else None)
    hist = score_files(tqdm(pairs, unit="image", disable=None), len(names), args.void)
    found = metrics(hist, args.labelled_only)
    if not hist.any():
        raise BadInput(f"{args.labels}: every pixel is void ({args.void}); mend --void")

    accuracy, iu = found["accuracy"].tolist(), found["iu"].tolist()
    width = max(map(len, [*names, "class"]))
    print(f"{'class':<{width}} {'pixels':>12} {'accuracy':>9} {'IU':>9}")
    for name, pixels, *shares in zip(names, hist.sum(1).tolist(), accuracy, iu, strict=True):
        cells = ("absent" if math.isnan(share) else f"{100 * share:.2f}" for share in shares)
        print(f"{name:<{width}} {pixels:>12} " + " ".join(f"{cell:>9}" for cell in cells))
    figures = {key: found[key] for key in FIGURES}  # type: ignore[literal-required]
    print(f"\n{'images':<15} {len(pairs)}")
    for key, title in FIGURES.items():
        print(f"{title:<15} {figures[key]!r}")
    if args.json:
        by_class = {
            name: {"pixels": pixels, "accuracy": _known(a), "iu": _known(i)}
            for name, pixels, a, i in zip(names, hist.sum(1).tolist(), accuracy, iu, strict=True)
        }
        write_json(args.json, record(images=len(pairs), labelled_only=args.labelled_only, **figures, classes=by_class))


def _known(value: float) -> float | None:
    """JSON has no NaN: absent is null."""
    return None if math.isnan(value) else value


if __name__ == "__main__":
    sys.exit(main())
