"""The readers on small folders of the documented layouts, their complaints, and the authors' order and input."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fcn.cli import BadInput
from fcn.images import voc_palette, write_image, write_label
from reference.data import NAMES, AuthorsOrder, open_dataset, voc
from reference.data.matlab import read_array
from reference.runs import open_data
from tests.reference import folders
from tests.reference.folders import HEIGHT, WIDTH, image, label


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    return folders.voc(tmp_path / "VOC2011")


@pytest.fixture
def sbd_folder(tmp_path: Path) -> Path:
    return folders.sbd(tmp_path / "dataset")


@pytest.fixture(params=["names", "pairs"])
def camvid_folder(request, tmp_path: Path) -> Path:
    return folders.camvid(tmp_path / "CamVid", pairs=request.param == "pairs")


def test_voc_reads_pairs_in_the_order_of_the_list(voc_folder):
    data = open_dataset("voc", voc_folder, "val")
    assert [sample.name for sample in data] == ["2007_000032", "2007_000039", "2007_000063"]
    assert len(data) == 3 and len(data.classes) == 21
    assert data[1].image.shape == (HEIGHT, WIDTH, 3) and data[1].image.dtype == np.uint8
    assert np.array_equal(data[1].label, label(1, 21))
    assert data.palette[15].tolist() == [192, 128, 128] and data.classes[15] == "person"
    with pytest.raises(IndexError):
        data[3]


def test_voc_takes_a_list_file_of_one_s_own(voc_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("2007_000063\n")
    assert [s.name for s in open_dataset("voc", voc_folder, str(tmp_path / "mine.txt"))] == ["2007_000063"]


def test_seg11valid_is_val_without_sbd_train(voc_folder, sbd_folder, monkeypatch):
    with pytest.raises(BadInput, match=r"val\.txt: 2 images are left .* 736"):
        open_dataset("voc", voc_folder, "seg11valid", sbd_folder)
    monkeypatch.setattr(voc, "SEG11VALID", 2)
    derived = open_dataset("voc", voc_folder, "seg11valid", sbd_folder)
    assert [s.name for s in derived] == ["2007_000032", "2007_000063"]
    with pytest.raises(BadInput, match=r"no seg11valid\.txt.* SBD"):
        open_dataset("voc", voc_folder, "seg11valid")
    (voc_folder / "ImageSets" / "Segmentation" / "seg11valid.txt").write_text("2007_000063\n")
    assert len(open_dataset("voc", voc_folder, "seg11valid")) == 1
    assert len(open_data("voc", voc_folder.parent, "seg11valid")) == 1, "SBD is not needed then"


def test_sbd_reads_the_segmentation_of_gtcls(sbd_folder):
    data = open_dataset("sbd", sbd_folder, "train")
    assert [sample.name for sample in data] == ["2008_000002", "2007_000039"]
    assert np.array_equal(data[1].label, label(1, 21)[1:].repeat(2, 0)[:HEIGHT])
    assert data[1].label.dtype == np.uint8 and data.mean == (104.00699, 116.66877, 122.67892)


def test_camvid_reads_both_layouts_and_maps_11_to_void(camvid_folder):
    data = open_dataset("camvid", camvid_folder, "train")
    assert [sample.name for sample in data] == ["0001TP_006690", "0001TP_006720"]
    ids = label(0, 12)
    assert np.array_equal(data[0].label, np.where(ids == 11, 255, ids))
    assert len(data.classes) == len(data.palette) == 11


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite_label(path: Path, label: np.ndarray) -> None:
    write_label(path, label, voc_palette())


def _refuse(name: str, folder: Path, split: str, match: str) -> None:
    """Opening or reading the first sample raises BadInput with one line that matches."""
    with pytest.raises(BadInput, match=match) as raised:
        _ = open_dataset(name, folder, split)[0]
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_named(voc_folder, sbd_folder, tmp_path):
    _refuse("voc", tmp_path / "nowhere", "val", "nowhere/JPEGImages: no such folder; give the VOC2011")
    _refuse("voc", voc_folder, "train", r"train\.txt: no such file; give a split of VOC")
    _refuse("sbd", tmp_path, "train", "img: no such folder; give SBD's folder")
    _refuse("camvid", tmp_path / "nowhere", "train", "nowhere: no such folder; give the folder that holds train/")
    (sbd_folder / "cls" / "2007_000039.mat").unlink()
    _refuse("sbd", sbd_folder, "train", r"2007_000039\.mat: no such file; train\.txt lists it")
    (voc_folder / "SegmentationClass" / "2007_000063.png").unlink()
    _refuse("voc", voc_folder, "val", r"2007_000063\.png: no such file; val\.txt lists it")
    (voc_folder / "ImageSets" / "Segmentation" / "val.txt").write_text("\n \n")
    _refuse("voc", voc_folder, "val", r"val\.txt: the list is empty")
    (voc_folder / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe\x00")
    _refuse("voc", voc_folder, "val", r"val\.txt: not a text file")


def test_a_missing_camvid_pair_or_a_broken_line_is_named(camvid_folder):
    (camvid_folder / "trainannot" / "0001TP_006720.png").unlink()
    _refuse("camvid", camvid_folder, "train", r"trainannot/0001TP_006720\.png: no such file; train\.txt lists it")
    (camvid_folder / "train.txt").write_text("a b c\n")
    _refuse("camvid", camvid_folder, "train", r"train\.txt: cannot read the line 'a b c'")


def test_broken_files_are_named(voc_folder):
    _cut(voc_folder / "JPEGImages" / "2007_000032.jpg")
    _refuse("voc", voc_folder, "val", r"2007_000032\.jpg: broken image")


def test_labels_that_do_not_fit_are_named(voc_folder):
    path = voc_folder / "SegmentationClass" / "2007_000032.png"
    ids = label(0, 21)
    ids[5, 5] = 21
    _overwrite_label(path, ids)
    _refuse("voc", voc_folder, "val", r"2007_000032\.png: holds class id 21, but voc has ids 0 to 20 and 255")
    _overwrite_label(path, label(0, 21)[:, :-1])
    _refuse("voc", voc_folder, "val", r"2007_000032\.png: the label is 30x20, its image 2007_000032 is 31x20")
    write_image(path, image(0))
    _refuse("voc", voc_folder, "val", r"2007_000032\.png: holds RGB values, not class ids")


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped", "other", "hdf5", "floats"])
def test_a_corrupt_mat_is_named(sbd_folder, damage):
    path = sbd_folder / "cls" / "2008_000002.mat"
    raw = path.read_bytes()
    if damage == "cut":
        _cut(path)
    elif damage == "garbage":
        path.write_bytes(b"not a mat file at all" * 40)
    elif damage == "flipped":
        path.write_bytes(raw[:160] + bytes(b ^ 0x5A for b in raw[160:]))
    elif damage == "hdf5":  # MATLAB 7.3: the same header with another version
        path.write_bytes(raw[:124] + b"\x00\x02IM" + raw[128:])
    elif damage == "other":
        scipy.io.savemat(path, {"GTinst": {"Segmentation": np.zeros((4, 4), np.uint8)}})
    else:
        scipy.io.savemat(path, {"GTcls": {"Segmentation": np.full((HEIGHT, WIDTH), 0.5)}})
    _refuse("sbd", sbd_folder, "train", r"2008_000002\.mat: .*fetch it again")


def _random_mat(path: Path, compressed: bool) -> dict[str, np.ndarray]:
    """A file with a struct among other things; the arrays in it, by dotted name."""
    random = np.random.RandomState(5)
    arrays: dict[str, np.ndarray] = {
        "GTcls.Segmentation": random.randint(0, 21, (13, 17)).astype(np.uint8),
        "GTcls.Wide": random.randint(-5, 5, (3, 4, 2)).astype(np.int16),
        "GTcls.Inner.Deep": random.uniform(size=(2, 3)),
        "S": random.randint(0, 400, (6, 5)).astype(np.float64),
        "LabelMap": random.randint(0, 460, (5, 9)).astype(np.uint16),
        "tiny": np.array([[7]], np.uint8),
    }
    struct = {
        "Boundaries": np.array([[1, "x"]], object),  # a cell, as in SBD
        "Segmentation": arrays["GTcls.Segmentation"],
        "Wide": arrays["GTcls.Wide"],
        "Inner": {"Deep": arrays["GTcls.Inner.Deep"]},
    }
    others = {name: array for name, array in arrays.items() if "." not in name}
    scipy.io.savemat(path, {"note": "text", "GTcls": struct, **others}, do_compression=compressed)
    return arrays


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_read_as_scipy_wrote_them(tmp_path, compressed):
    path = tmp_path / "a.mat"
    for name, array in _random_mat(path, compressed).items():
        got = read_array(path, *name.split("."))
        assert np.array_equal(got, array) and got.dtype == array.dtype, name


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_mat_never_ends_the_process(tmp_path, compressed):
    """Random damage is BadInput or goes unnoticed (in the values of an uncompressed file); scipy's reader crashes."""
    path, random = tmp_path / "a.mat", np.random.RandomState(0)
    _random_mat(path, compressed)
    raw, refused = path.read_bytes(), 0
    for _ in range(400):
        damaged = bytearray(raw[: random.randint(1, 2 * len(raw))])
        for at in random.randint(0, len(damaged), random.randint(1, 8)):
            damaged[at] = random.randint(0, 256)
        path.write_bytes(damaged)
        try:
            read_array(path, "GTcls", "Segmentation")
        except BadInput:
            refused += 1
    assert refused > 100


def test_unknown_names_and_missing_folders_are_refused():
    with pytest.raises(BadInput, match=r"no data set 'coco'; there are voc, sbd, nyud-color, .*, camvid, shapes"):
        open_dataset("coco", None, "train")
    with pytest.raises(BadInput, match="voc is read from disk: give its folder"):
        open_dataset("voc", None, "val")
    assert len(open_dataset("shapes", None, "val")) == 100
    assert {"voc", "nyud-color-hha", "siftflow", "pascalcontext", "shapes-crops"} < set(NAMES)


def test_the_authors_order():
    """Figures of Python 2.7's random.randint(0, 8497) after random.seed(1337)."""
    assert list(islice(AuthorsOrder(8498), 3)) == [5249, 4531, 3108]
    assert all(0 <= index < 7 for index in islice(AuthorsOrder(7), 1000))
    assert len(set(islice(AuthorsOrder(100), 100))) < 80  # drawn with replacement: about 63 differ


def test_the_order_goes_on_where_it_stopped():
    straight = list(islice(AuthorsOrder(736), 2000))
    assert list(islice(AuthorsOrder(736, start=1234), 766)) == straight[1234:]
    order = AuthorsOrder(736)
    assert next(iter(order)) == next(iter(order)) == straight[0]
    assert list(islice(AuthorsOrder(736, seed=1), 20)) != straight[:20]
    with pytest.raises(BadInput, match="empty"):
        AuthorsOrder(0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "folder", "split", "count", "size"),
    [
        ("voc", "voc/VOC2011", "val", 14, None),
        ("voc", "voc274/VOC2011", "val", 75, (274, 274)),
        ("camvid", "camvid", "val", 101, (360, 480)),
    ],
)
def test_real_folders_read_through(shared, name, folder, split, count, size):
    data = open_dataset(name, shared / "data" / folder, split)
    assert len(data) == count
    seen: set[int] = set()
    for sample in data:
        assert size is None or sample.label.shape == size
        seen.update(np.unique(sample.label).tolist())
    assert seen <= {*range(len(data.classes)), 255} and len(seen) > 10 and 255 in seen
