"""`fcn data check`: every problem of a folder in one line each, what is only a warning, and the true data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fcn.__main__ import main
from fcn.images import voc_palette, write_label
from reference.data import places
from reference.data.check import COUNTS, UNMET
from reference.data.siftflow import SCENES
from tests.reference import folders
from tests.reference.folders import CONTEXT_NAMES, NYUD_NUMBERS, SIFTFLOW_NAMES, VOC_NAMES, write_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of all data sets, each at a place of its own."""
    folders.voc(tmp_path / "VOC2011")
    folders.sbd(tmp_path / "benchmark_RELEASE" / "dataset")
    folders.nyud(tmp_path / "nyud")
    folders.siftflow(tmp_path / "sift-flow")
    folders.pascalcontext(tmp_path / "pascal-context", tmp_path / "VOC2010")
    folders.camvid(tmp_path / "CamVid", pairs=True)
    return tmp_path


@pytest.fixture
def check(root: Path, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives its exit code, its problems, its warnings and all that it said."""

    def run(name: str) -> tuple[int, list[str], list[str], str]:
        code = main(["data", "check", name, str(root)])
        said, error = capsys.readouterr()
        assert len(error.splitlines()) == (code == 2) and error.startswith("error: " if code else "")
        of = {
            kind: [line.strip().removeprefix(f"{kind}: ") for line in said.splitlines() if f"    {kind}: " in line]
            for kind in ("problem", "warning")
        }
        return code, of["problem"], of["warning"], said + error

    return run


@pytest.mark.parametrize("name", COUNTS)
def test_whole_folders_pass(check, root: Path, name: str) -> None:
    """Their counts are not the official ones, nor do they have all classes: that is a warning."""
    code, problems, warnings, said = check(name)
    assert code == 0 and not problems
    assert any("a split of your own, or a part of one?" in line for line in warnings)
    assert ("never met the original files" in said) == (name in UNMET)
    assert str(places.place(name, root)) in said


def test_every_problem_of_voc_is_named(check, root: Path) -> None:
    folder = root / "VOC2011"
    labels = folder / "SegmentationClass"
    wrong = folders.label(0, 21)
    wrong[5, 5] = 77
    write_label(labels / f"{VOC_NAMES[0]}.png", wrong[:, :-2], voc_palette())
    image = folder / "JPEGImages" / f"{VOC_NAMES[1]}.jpg"
    image.write_bytes(image.read_bytes()[:300])
    (labels / f"{VOC_NAMES[1]}.png").unlink()
    write_lines(folder / "ImageSets" / "Segmentation" / "train.txt", (VOC_NAMES[2], VOC_NAMES[2]))
    code, problems, _, said = check("voc")
    assert code == 2 and len(problems) == 6
    text = "\n".join(problems)
    assert f"{VOC_NAMES[2]} is listed 2 times; list it once" in problems
    assert f"{VOC_NAMES[0]}.png: the label is 29x20, its image {VOC_NAMES[0]} is 31x20" in text
    assert f"{VOC_NAMES[0]}.png: holds class id 77, but voc has ids 0 to 20" in text
    assert f"{VOC_NAMES[1]}.jpg: broken image" in text
    assert f"{VOC_NAMES[1]}.png: no such file; val.txt lists it" in text
    assert f"1 of its images are in train too, {VOC_NAMES[2]} among them" in text
    assert said.rstrip().endswith("6 problems, 3 warnings; mend what is listed, or fetch voc again")


def test_seg11valid_needs_voc_2011_and_sbd(check) -> None:
    _, problems, warnings, said = check("voc")
    assert not problems and "VOC2011, and " in said
    assert any("2 images are left without SBD's train.txt, but seg11valid has 736" in line for line in warnings)


def test_problems_of_the_others_are_named(check, root: Path) -> None:
    (root / "nyud/data/hha" / f"img_{NYUD_NUMBERS[0]}.png").unlink()
    scipy.io.savemat(root / "nyud/segmentation" / f"img_{NYUD_NUMBERS[1]}.mat", {"other": np.zeros((2, 2))})
    code, problems, _, _ = check("nyud")
    assert code == 2 and [line.split(": ")[0].split("/")[-1] for line in problems] == [
        f"img_{NYUD_NUMBERS[0]}.png",
        f"img_{NYUD_NUMBERS[1]}.mat",
    ]

    scipy.io.savemat(root / "sift-flow/GeoLabels" / SCENES / f"{SIFTFLOW_NAMES[0]}.mat", {"S": np.full((20, 31), 9)})
    write_lines(root / "sift-flow/test.txt", SIFTFLOW_NAMES[:1])
    code, problems, warnings, _ = check("siftflow")
    assert code == 2 and len(problems) == 3 and "1 of its images are in trainval too" in problems[2]
    assert all("holds class id 8, but siftflow has ids 0 to 2" in line for line in problems[:2])
    assert any("2 of its images are not 256x256, forest_for121 among them" in line for line in warnings)

    (root / "pascal-context/trainval" / f"{CONTEXT_NAMES[0]}.mat").write_bytes(b"")
    code, problems, _, _ = check("pascalcontext")
    assert code == 2 and [": the file is empty;" in line for line in problems] == [True]

    (root / "CamVid/train.txt").write_text("one two three\n")
    code, problems, _, _ = check("camvid")
    assert code == 2 and "train.txt: cannot read the line" in problems[0]

    (root / "nyud/data/depth").rename(root / "nyud/data/gone")
    code, problems, _, _ = check("nyud")
    assert code == 2 and len(problems) == 2 and all("data/depth: no such folder" in line for line in problems)


def test_nothing_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "voc", str(tmp_path)]) == 2
    assert "holds no voc (JPEGImages was looked for in voc2011, " in capsys.readouterr().err
    folders.camvid(tmp_path, pairs=False)
    assert main(["data", "check", "camvid", str(tmp_path)]) == 0
    assert "  val\n    warning: not checked: " in capsys.readouterr().out


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("voc", "voc", "14 images, 0 problems, 4 warnings"),
        ("voc", "voc274", "440 images, 0 problems, 3 warnings"),
        ("camvid", "camvid", "701 images, 0 problems, 0 warnings"),
    ],
)
def test_true_data_pass(shared: Path, capsys: pytest.CaptureFixture[str], name: str, folder: str, said: str) -> None:
    assert main(["data", "check", name, str(shared / "data" / folder)]) == 0
    assert capsys.readouterr().out.endswith(f"{said}\n")
