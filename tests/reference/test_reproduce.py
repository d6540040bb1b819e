"""One command from files to a table: what it asks for, what it runs, what it leaves, and that it goes on."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.images import voc_palette
from reference import build, checkpoint, cost, evaluate, reproduce, save_caffemodel
from reference.assess import compare, in_percent
from reference.data.voc import CLASSES, MEAN
from reference.engine import METRICS
from reference.groups import GROUPS, chain, data_of, pretrained_of
from reference.recipes import RECIPES
from reference.score import confusion, metrics
from reference.surgery import transplant
from tests.reference import folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIFT Flow, tiny."""
    root = tmp_path_factory.mktemp("data")
    folders.siftflow(root / "siftflow")
    return root


def words(group: str, root: Path, out: Path, *more: str) -> list[str]:
    return [group, "--data", str(root), "--out", str(out), "--device", "cpu", "--workers", "0", *more]


@pytest.mark.parametrize("name", GROUPS)
def test_an_empty_machine_is_told_what_to_get(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file by its address, every stage with its start, and nothing is written."""
    assert reproduce.main([name, "--dry-run"]) == 0
    told = capsys.readouterr().out
    recipes = GROUPS[name].chosen([])
    for stage in chain(recipes):
        assert f"\n  {stage.name} " in told
    for needed in (*data_of(recipes), *filter(None, map(pretrained_of, recipes))):
        assert f"\n  {needed}: missing: python reference/prepare.py fetch {needed} --dir data" in told
    assert "GB for weights" in told and "GB free" in told and " h\n" in told and "never run by us" in told
    assert "weights, in data/weights:" in told and told.endswith("without --dry-run, and with --data data\n")


def test_hours_rest_on_the_papers_forward_times() -> None:
    """Table 1's own nets at its own size: three forwards a step; and the paper's three days for FCN-32s."""
    recipe = RECIPES["cvpr-fcn32s"]
    assert 2.5 < cost.hours(recipe) / 24 < 3.5
    images = 100_000 * 3 + 25 * 736
    macs = cost._multiply_adds("voc-fcn32s", (375, 500)) / cost._multiply_adds("voc-fcn32s", (500, 500))
    assert cost.hours(RECIPES["voc-fcn32s"]) == pytest.approx(images * 0.210 * macs / 3600)
    assert cost.weights_bytes(RECIPES["voc-fcn32s"]) == 4 * sum(p.numel() for p in build("voc-fcn32s").parameters())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["voc"], "--data"),
        (["voc", "--data", "nowhere"], "nowhere: no such folder"),
        (
            ["siftflow", "--data", "DATA"],
            "VGG_ILSVRC_16_layers.caffemodel: no such file; python reference/prepare.py",
        ),
        (["siftflow", "--data", "DATA", "--only", "voc-fcn32s"], "--only voc-fcn32s: siftflow has siftflow-fcn32s"),
        (["siftflow", "--data", "DATA", "--released", "DATA", "--narrow"], "leave --narrow and --iterations out"),
        (["siftflow", "--data", "DATA", "--iterations", "0"], "--iterations 0: at least 1"),
        (["siftflow", "--data", "DATA", "--released", "DATA"], "does not hold any of siftflow-fcn32s-heavy.caffemodel"),
        (["cvpr-table1", "--data", "DATA", "--narrow", "--only", "cvpr-alexnet"], "leave --narrow out"),
    ],
)
def test_refuses_in_one_line(
    arguments: list[str], complaint: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(data) if word == "DATA" else word for word in arguments]
    assert reproduce.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert complaint in errors[-1] and errors[-1].startswith("error: ")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_broken_data_is_seen_before_anything_is_trained(data: Path, tmp_path: Path, capsys) -> None:
    broken = shutil.copytree(data / "siftflow", tmp_path / "siftflow")
    next(broken.rglob("GeoLabels/*/*.mat")).write_bytes(b"x" * 200)
    assert reproduce.main(words("siftflow", tmp_path, tmp_path / "out", "--narrow")) == 2
    told = capsys.readouterr()
    assert "problem: " in told.out and "1 problems" in told.err
    assert not (tmp_path / "out" / "siftflow-fcn32s").exists()


@pytest.fixture(scope="module")
def siftflow(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The group from files to report, two iterations a stage."""
    out = tmp_path_factory.mktemp("out")
    assert reproduce.main(words("siftflow", data, out, "--narrow", "--iterations", "2")) == 0
    return out


def test_a_group_runs_from_files_to_report(siftflow: Path) -> None:
    results = json.loads((siftflow / "siftflow.json").read_text())
    assert [row["recipe"] for row in results["rows"]] == list(GROUPS["siftflow"].rows)
    assert results["shortened"] == 2 and results["narrow"] and results["checked"]["siftflow"]
    page = (siftflow / "siftflow.html").read_text()
    assert "SHORTENED: every stage was cut to 2 iterations" in page and "NARROW: " in page
    for row in results["rows"]:
        assert row["weights_sha256"] in page and set(row["tasks"]) == {"sem", "geo"}
    ours, (cvpr,) = results["rows"][1]["ours"], results["rows"][1]["published"]
    assert ours["geometric"] == 100 * results["rows"][1]["tasks"]["geo"]["pixel_accuracy"]
    assert cvpr["difference"]["geometric"] == pytest.approx(ours["geometric"] - 94.3)
    assert f"94.30, {cvpr['difference']['geometric']:+.2f}" in page
    assert page.count("<img ") == len(results["rows"][0]["pictures"]) * 5


def test_scored_by_the_authors_protocol(siftflow: Path, data: Path) -> None:
    """Each task's four metrics, recomputed from the checkpoint; a class absent from the truth counts nowhere."""
    from reference.data import open_dataset

    row = json.loads((siftflow / "siftflow.json").read_text())["rows"][2]
    saved = checkpoint.load(siftflow / row["recipe"] / "weights.safetensors")
    test = open_dataset("siftflow", data / "siftflow", "test")
    test.mean = saved.about.mean
    hists = {"sem": np.zeros((33, 33), np.int64), "geo": np.zeros((3, 3), np.int64)}
    with torch.no_grad():
        for sample in test:
            scores = saved.net.eval()(torch.from_numpy(test.prepare("data", [sample.image])))
            for task, hist in hists.items():
                hist += confusion(sample.labels[task], scores[f"score_{task}"][0].argmax(0).numpy(), len(hist))
    for task, hist in hists.items():
        found = metrics(hist, labelled_only=True)
        assert {key: row["tasks"][task][key] for key in METRICS} == {key: found[key] for key in METRICS}


def test_given_again_it_repeats_nothing(siftflow: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, damaged = (siftflow / f"siftflow-fcn{stride}" / "evaluation.json" for stride in ("8s", "16s"))
    lost.unlink()
    whole = damaged.read_bytes()
    for content in (whole[:40], b"[1]"):
        damaged.write_bytes(content)
        assert reproduce.main(words("siftflow", data, siftflow, "--narrow", "--iterations", "2")) == 2
        assert "remove it, and give the command again" in capsys.readouterr().err
    damaged.write_bytes(whole)
    before = {path: path.stat().st_mtime_ns for path in siftflow.glob("siftflow-fcn*s/*.*")}
    assert reproduce.main(words("siftflow", data, siftflow, "--narrow", "--iterations", "2")) == 0
    assert capsys.readouterr().out.count("done already") == 1 + 2 + 3
    assert {path: path.stat().st_mtime_ns for path in before} == before and lost.exists()


def test_released_weights_go_through_every_backend(tmp_path: Path) -> None:
    """A caffemodel under the authors' name, through PyTorch and ONNX Runtime: one table, equal figures."""
    root = tmp_path / "data"
    lists = folders.voc(root / "VOC2011") / "ImageSets" / "Segmentation"
    shutil.copy(lists / "val.txt", lists / "seg11valid.txt")  # no SBD: it is there to train on
    recipe = replace(RECIPES["voc-fcn32s"], options={"width": 1 / 16})
    torch.manual_seed(0)
    net = build("voc-fcn32s", **recipe.options)
    transplant(net, {key: 0.1 * torch.randn_like(value) for key, value in net.state_dict().items() if "up" not in key})
    save_caffemodel(net, tmp_path / "fcn32s-heavy-pascal.caffemodel")
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, recipe.name, recipe)
        assert reproduce.main(words("voc", root, out, "--released", str(tmp_path))) == 0
    (row,) = json.loads((out / "released-voc.json").read_text())["rows"]
    folder = out / "released" / recipe.name
    saved = checkpoint.load(folder / "weights.safetensors")
    assert all(torch.equal(saved.net.state_dict()[key], value) for key, value in net.state_dict().items())
    assert row["provenance"]["released"] == "fcn32s-heavy-pascal.caffemodel" and not row["trained"]
    found = json.loads((folder / "backends.json").read_text())["model.onnx"]
    assert found["backend"].startswith("ONNX Runtime") and found["pixels"] == 3 * folders.HEIGHT * folders.WIDTH
    assert found["pytorch"] == {key: row["tasks"]["label"][key] for key in METRICS}
    assert found["differ"] <= 1  # noise on a random net has a tie now and then
    page = (out / "released-voc.html").read_text()
    assert "released weights, scored here" in page and "Through every backend" in page
    assert f"{100 * found['onnx']['mean_iu']:.4f}" in page and "63.6261, " in page


def test_differences_are_ours_minus_theirs() -> None:
    tasks = {"label": dict(zip(METRICS, (0.9, 0.7, 0.64, 0.8), strict=True))}
    released, readme = compare(RECIPES["voc-fcn32s"], in_percent(tasks))
    assert released["difference"]["mean_iu"] == pytest.approx(64 - 63.6261)
    assert readme["figures"] == {"mean_iu": 63.6} and set(released["difference"]) == set(METRICS)


def test_the_archive_of_the_voc_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tree, palette and size; and the labels are the net's."""
    voc = folders.voc(tmp_path / "VOC2012")
    shutil.copy(voc / "ImageSets/Segmentation/val.txt", voc / "ImageSets/Segmentation/test.txt")
    shutil.rmtree(voc / "SegmentationClass")  # the server keeps it
    torch.manual_seed(0)
    net = build("voc-fcn32s", width=1 / 16)
    with torch.no_grad():
        net.get_parameter("score_fr.bias")[7] = 1
    about = checkpoint.About("voc-fcn32s", 1, "voc", CLASSES, tuple(map(tuple, voc_palette()[:21].tolist())), MEAN)
    checkpoint.save(tmp_path / "w.safetensors", net, about)
    archive = tmp_path / "server.tgz"
    common = [str(tmp_path / "w.safetensors"), "--data", str(voc), "--device", "cpu", "--voc-server"]
    assert evaluate.main([*common, str(archive)]) == 0
    assert "3 label maps" in capsys.readouterr().out
    with tarfile.open(archive) as opened:
        assert opened.getnames() == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in folders.VOC_NAMES
        ]
        with Image.open(opened.extractfile(opened.getmembers()[0])) as label:
            assert (label.mode, label.size) == ("P", (folders.WIDTH, folders.HEIGHT))
            assert label.getpalette() == voc_palette().ravel().tolist()
            assert set(np.unique(np.asarray(label))) == {7}
    assert evaluate.main([*common, str(tmp_path / "server.zip")]) == 2
    (voc / "JPEGImages" / f"{folders.VOC_NAMES[0]}.jpg").unlink()
    assert evaluate.main([*common, str(tmp_path / "other.tgz")]) == 2
    assert "unpack the test images" in capsys.readouterr().err and not (tmp_path / "other.tgz").exists()
