"""The four metrics: against hand-worked figures, exact fractions, and the authors' own output."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.cli import BadInput
from fcn.images import colour, ids, read_label, voc_palette, write_image, write_label
from fcn.record import ROOT
from reference.score import confusion, find_pairs, main, metrics, score_files


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


# --- absent classes, to the last digit as the authors' code does ----------------------------------------------


def authors(hist: np.ndarray) -> list[float]:
    """The four figures in the order of operations of the authors' score.py (do_seg_tests)."""
    hist, right = hist.astype(float), np.diag(hist).astype(float)
    union = hist.sum(1) + hist.sum(0) - right
    with np.errstate(all="ignore"):
        iu, freq = right / union, hist.sum(1) / hist.sum()
        means = [np.nanmean(right / hist.sum(1)), np.nanmean(iu)]
    return [right.sum() / hist.sum(), *means, (freq[freq > 0] * iu[freq > 0]).sum()]


@pytest.mark.parametrize("seed", range(20))
def test_absent_classes_to_the_last_digit(seed: int):
    """Sums of 21 or 60 terms depend on their order: equal, not close, with classes missing from either side."""
    random = np.random.RandomState(seed)
    classes = 21 if seed % 2 else 60
    hist = random.randint(0, 10**6, (classes, classes)) * (random.uniform(size=(classes, classes)) < 0.3)
    hist[random.uniform(size=classes) < 0.3] = 0
    hist[:, random.uniform(size=classes) < 0.2] = 0
    got = metrics(hist)
    assert [got[key] for key in ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")] == authors(hist)


def test_labelled_only_leaves_out_what_the_truth_never_holds():
    hist = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    got = metrics(hist, labelled_only=True)
    assert np.isnan(got["iu"]).tolist() == [False, True, True]
    assert got["mean_iu"] == 0.75 and got["fw_iu"] == metrics(hist)["fw_iu"]


# --- label images -------------------------------------------------------------------------------------------


def test_a_picture_in_the_palettes_colours_is_read_as_ids(tmp_path: Path):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_image(tmp_path / "all.png", voc_palette()[every])
    np.testing.assert_array_equal(read_label(tmp_path / "all.png", voc_palette()), every)
    shuffled = np.random.RandomState(0).permutation(voc_palette())
    np.testing.assert_array_equal(ids(colour(every, shuffled), shuffled), every)
    with pytest.raises(BadInput, match=r"all.png: holds RGB values, not class ids"):
        read_label(tmp_path / "all.png")
    with pytest.raises(BadInput, match=r"all.png: the colour \(0, 192, 128\) in row 1, column 6 is no class's; give"):
        read_label(tmp_path / "all.png", voc_palette()[:22])
    with pytest.raises(ValueError, match=r"colour \(255, 255, 255\) in row 0"):
        ids(np.full((1, 1, 3), 255, np.uint8), voc_palette())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """Three pairs as palette, grey and colour images, and the matrix that their arrays give."""
    random, hist = np.random.RandomState(0), np.zeros((21, 21), np.int64)
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for i, size in enumerate(((5, 7), (8, 6), (9, 9))):
        label = random.randint(0, 21, size).astype(np.uint8)
        prediction = np.where(random.uniform(size=size) < 0.5, label, random.randint(0, 21, size)).astype(np.uint8)
        label[0] = 255
        hist += confusion(label, prediction, 21)
        write_label(labels / f"{i}.png", label, voc_palette())
        if i == 0:
            write_label(predictions / f"{i}.png", prediction, voc_palette())
        elif i == 1:
            write_image(predictions / f"{i}.bmp", prediction)
        else:
            write_image(predictions / f"{i}.png", voc_palette()[prediction])
    write_image(predictions / "0_overlay.png", voc_palette()[prediction])  # as runtime/segment.py --overlay leaves it
    (labels / "notes.txt").write_text("not an image")
    return predictions, labels, hist


def test_folders_are_paired_by_name(folders, tmp_path: Path, capsys):
    predictions, labels, hist = folders
    pairs = find_pairs(predictions, labels)
    assert [(p.stem, t.stem) for p, t in pairs] == [("0", "0"), ("1", "1"), ("2", "2")]
    np.testing.assert_array_equal(score_files(pairs, 21), hist)
    out = tmp_path / "figures.json"
    assert main([str(predictions), str(labels), "--json", str(out)]) == 0
    wanted = metrics(hist)
    written = json.loads(out.read_text())
    printed = capsys.readouterr().out
    for key, title in (("pixel_accuracy", "pixel accuracy"), ("mean_iu", "mean IU"), ("fw_iu", "f.w. IU")):
        assert written[key] == wanted[key]
        assert f"{title:<15} {wanted[key]!r}\n" in printed
    assert written["images"] == 3 and written["classes"]["7"]["pixels"] == hist[7].sum()


def test_a_list_chooses_and_orders(folders, tmp_path: Path, capsys):
    predictions, labels, _ = folders
    (predictions / "1.bmp").unlink()
    assert main([str(predictions), str(labels)]) == 2
    line = capsys.readouterr().err
    assert (
        line
        == f"error: {predictions}: holds no label image of 1; add or remove them, or name what to score with --list\n"
    )
    (tmp_path / "list.txt").write_text("2\n0\n\n")
    assert [p.stem for p, _ in find_pairs(predictions, labels, ["2", "0"])] == ["2", "0"]
    assert main([str(predictions), str(labels), "--list", str(tmp_path / "list.txt")]) == 0
    (tmp_path / "list.txt").write_text("2\nno such\n")
    assert main([str(predictions), str(labels), "--list", str(tmp_path / "list.txt")]) == 2
    assert capsys.readouterr().err == f"error: {predictions}: holds no label image of no such; mend --list\n"


def test_void_may_be_any_id(tmp_path: Path):
    """As in CamVid's copies (11 of 11 classes) and ADE20K's (0)."""
    label = np.array([[0, 1, 2, 2]], np.uint8)
    write_image(tmp_path / "label.png", label)
    write_image(tmp_path / "prediction.png", np.array([[1, 1, 2, 0]], np.uint8))
    pair = [(tmp_path / "prediction.png", tmp_path / "label.png")]
    assert score_files(pair, 3, void=0).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert score_files(pair, 2, void=2).tolist() == [[0, 1], [0, 1]]


def test_names_of_the_classes(folders, tmp_path: Path, capsys):
    predictions, labels, _ = folders
    names = [f"kind of {i}" for i in range(21)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    assert main([str(predictions), str(labels), "--classes", str(tmp_path / "names.txt")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line[:10].rstrip() for line in printed[1:22]] == names
    for classes in ("0", "257", "99999999999", "twenty"):
        assert main([str(predictions), str(labels), "--classes", classes]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "names.txt").write_text("twice\ntwice\n")
    assert main([str(predictions), str(labels), "--classes", str(tmp_path / "names.txt")]) == 2
    assert "different names" in capsys.readouterr().err


def refused(capsys, *words: object) -> str:
    """The one line with which the command refuses, without writing the file that it was asked for."""
    json_file = Path(str(words[0])).parent / "never.json"
    assert main([*map(str, words), "--json", str(json_file)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and not json_file.exists()
    return line


def test_files_that_cannot_be_scored(folders, tmp_path: Path, capsys):
    predictions, labels, _ = folders
    one, truth = predictions / "0.png", labels / "0.png"
    assert refused(capsys, one, labels) == f"error: {one}: no such folder; give two files or two folders\n"
    assert "labels/1.png is 8x6; predict at full size" in refused(capsys, one, labels / "1.png")
    assert f"{truth}: holds id 20, neither a class nor void; mend" in refused(capsys, one, truth, "--classes", 10)
    write_image(tmp_path / "zeros.png", np.zeros((5, 7), np.uint8))
    assert f"{one}: the prediction holds class id" in refused(capsys, one, tmp_path / "zeros.png", "--classes", 10)
    write_image(tmp_path / "void.png", np.full((5, 7), 255, np.uint8))
    assert "void.png: every pixel is void (255); mend --void" in refused(capsys, one, tmp_path / "void.png")
    assert "--void 256" in refused(capsys, one, truth, "--void", 256)
    Image.fromarray(voc_palette()[np.zeros((5, 7), int)] + np.uint8(1)).save(tmp_path / "odd.png")
    assert "odd.png: the colour (1, 1, 1) in row 0, column 0 is no class's" in refused(
        capsys, tmp_path / "odd.png", truth
    )
    (tmp_path / "cut.png").write_bytes(one.read_bytes()[:60])
    assert "cut.png: " in refused(capsys, tmp_path / "cut.png", truth)
    (tmp_path / "none").mkdir()
    assert "none: holds no label images (.bmp" in refused(capsys, predictions, tmp_path / "none")
    (predictions / "0.bmp").write_bytes(one.read_bytes())
    assert "0.png: 0.bmp bears the same name; remove one" in refused(capsys, predictions, labels)


def test_memory_does_not_grow_with_the_images(tmp_path: Path):
    """Of 5 and of 60 pairs of 40 kB each: the peak differs by less than one of them."""
    image = np.random.RandomState(0).randint(0, 21, (200, 200)).astype(np.uint8)
    write_label(tmp_path / "label.png", image, voc_palette())
    pair = (tmp_path / "label.png", tmp_path / "label.png")

    def peak(count: int) -> int:
        tracemalloc.start()
        hist = score_files((pair for _ in range(count)), 21)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.trace(hist) == hist.sum() == count * image.size
        return size

    peak(1)
    assert peak(60) < peak(5) + image.nbytes


def test_the_command_needs_no_torch(folders):
    predictions, labels, _ = folders
    program = (
        "import runpy, sys\n"
        "for name in ('torch', 'onnxruntime', 'matplotlib'): sys.modules[name] = None\n"
        f"sys.argv[1:] = {[str(predictions), str(labels)]!r}\n"
        f"runpy.run_path({str(ROOT / 'reference' / 'score.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "mean IU" in done.stdout, done.stderr


@pytest.mark.shared
def test_the_authors_own_output(shared: Path, capsys):
    """Their demo image's FCN-8s output (an RGB picture in VOC's colours) against VOC's label: counts and figures."""
    demo = shared / "data" / "voc" / "demo"
    hist = score_files([(demo / "output.png", demo / "label.png")], 21)
    present = [0, 2, 15]  # background, bicycle, person
    assert hist[np.ix_(present, present)].tolist() == [[52692, 1398, 299], [4618, 28404, 1161], [8782, 7320, 45041]]
    assert hist.sum() == 149715
    assert main([str(demo / "output.png"), str(demo / "label.png")]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "pixel accuracy  0.8425141101426042",
        "mean accuracy   0.8454627806113827",
        "mean IU         0.7196156777147081",
        "f.w. IU         0.7273739799737002",
    ]
