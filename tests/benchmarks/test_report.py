from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy, latency, page, pictures, report, study
from benchmarks.accuracy import First
from reference.data.shapes import Shapes
from reference.engine import METRICS

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects what the page refers to, its tags and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._look(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data} "

    def _look(self, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.fixture(scope="module", autouse=True)
def few_pictures() -> Iterator[None]:
    """To look through all validation images takes seconds: nine are enough to choose six from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "Shapes", lambda split: First(Shapes(split), 9))
        yield


@pytest.fixture(scope="module")
def measured(weights: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """accuracy.json, latency/latency.json and a study of made-up runs."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        words = [str(model), "--sizes", "16x24,33x20", "--threads", "1", "--repeat", "2", "--device", "cpu"]
        assert latency.main([*words, "--out", str(folder / "latency")]) == 0
    words = [str(weights), "--model", str(model), "--limit", "2", "--device", "cpu"]
    assert accuracy.main([*words, "--out", str(folder / "accuracy.json")]) == 0
    figures = dict.fromkeys(study.FIGURES, 0.1234)
    runs = [{"seed": 7, "net": net, "val": figures, "test": figures} for net in study.NETS]
    machine = json.loads((folder / "accuracy.json").read_text())["machine"]
    committed = {
        "command": "python benchmarks/study.py <&>",
        "date": "2001-02-03",
        "machine": {**machine, "processor": "A Study's Machine"},
        "versions": {},
        "seeds": [7],
        "iterations": 1200,
        "thin": ["wheel", "stool"],
        "runs": runs,
        **study.conclude(runs),
    }
    (folder / "shapes-study.json").write_text(json.dumps(committed))
    passed = {"blob": 1.5e-6, "labels that differ": 0.0, "loss": 1e-8, "gradient": 2e-6}
    trained = {"loss": 3e-7, "history": 4e-4, "history of score layers": 6e-6, "change of the weights": 0.0}
    resumed = {"weights": 1.25e-7, "history": 2e-7}
    records = {"a": passed, "b": passed | {"blob": 1e-9}, "train-voc-fcn8s": trained, "solverstate": resumed}
    (folder / "caffe.json").write_text(json.dumps({"command": "python -m pytest a <&>", "records": records}))
    real = [
        {
            "arm": "An arm",
            "recipe": f"camvid-x-{stage}",
            "iterations": 60,
            "mean_iu": 0.47,
            "solver": {"base_lr": 1e-9},
        }
        for stage in report.STRIDES
    ]
    camvid = {"command": "python benchmarks/camvid.py", "data": "camvid test", "images": 233, "runs": real}
    (folder / "camvid.json").write_text(json.dumps(camvid))
    return folder


def arguments(runs: Path, measured: Path, out: Path) -> list[str]:
    return [
        *("--runs", str(runs), "--accuracy", str(measured / "accuracy.json"), "--results", str(measured)),
        *("--latency", str(measured / "latency" / "latency.json"), "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def written(runs: Path, measured: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert report.main(arguments(runs, measured, out)) == 0
    assert out.with_name("grid.png").read_bytes().startswith(b"\x89PNG")
    return out.read_text()


def test_the_page_is_self_contained(written: str) -> None:
    found = Page(written)
    assert not re.search(r"https?:|//www|@import|<script|<link", written)
    assert all(link.startswith(("data:image/", "#")) for link in found.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", written))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)
    assert found.tags.count("img") == 5 * 6 and found.tags.count("svg") == 4
    assert 'name="viewport"' in written and "prefers-color-scheme: dark" in written


def test_the_page_holds_the_figures(written: str, runs: Path, measured: Path) -> None:
    text = " ".join(Page(written).text.split())
    for stride in report.STRIDES:
        result = json.loads((runs / f"shapes-fcn{stride}" / "result.json").read_text())
        assert " ".join(f"{100 * result['metrics'][key]:.2f}" for key in METRICS) in text
    compared = json.loads((measured / "accuracy.json").read_text())
    assert f"{100 * compared['onnx']['mean_iu']:.4f}" in text and compared["weights_sha256"] in text
    timed = json.loads((measured / "latency" / "latency.json").read_text())
    assert all(f"{row['median_ms']:.2f}" in text for at in timed["sizes"] for row in at["rows"])
    assert "TensorRT is absent: runs on a GPU only" in text and "PASCAL VOC: never trained here" in text
    assert "Committed result, not of this run: shapes val, seeds 7" in text and "12.3 12.3 to 12.3" in text
    assert "it DID NOT HOLD for 7" in text and "2001-02-03, A Study's Machine" in text
    assert "python benchmarks/study.py <&>" in text
    assert "2 records, 1x1 and 375x500 among them: all tops within 1.5e-06" in text and "within 1.2e-07" in text
    assert "An arm (60 iterations a stage, rate from 1e-09): 32s 47.0, 16s 47.0, 8s 47.0" in text
    assert "python -m pytest a <&>" in text and "tests/reference/test_killed.py" in text


def test_a_missing_study_is_said_and_claims_without_figures_are_not_made(
    runs: Path, measured: Path, tmp_path: Path
) -> None:
    words = [*arguments(runs, measured, tmp_path / "report.html"), "--results", str(tmp_path)]
    assert report.main(words) == 0
    assert "genuine Caffe" not in Page((tmp_path / "report.html").read_text()).text
    assert "There is none yet: python benchmarks/study.py" in Page((tmp_path / "report.html").read_text()).text


def test_missing_inputs_name_their_command(
    runs: Path, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    words = arguments(runs, measured, out)
    for option, maker in (("--runs", "train.py"), ("--accuracy", "accuracy.py"), ("--latency", "latency.py")):
        assert report.main([*words, option, str(tmp_path / "none")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and maker in said and not out.exists()


def test_figures_of_other_weights_are_refused(
    runs: Path, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads((measured / "accuracy.json").read_text()) | {"weights_sha256": "0" * 64}
    (tmp_path / "accuracy.json").write_text(json.dumps(other))
    words = [*arguments(runs, measured, tmp_path / "report.html"), "--accuracy", str(tmp_path / "accuracy.json")]
    assert report.main(words) == 2
    assert "of other weights" in capsys.readouterr().err
    right = json.loads((measured / "accuracy.json").read_text())["weights_sha256"]
    (tmp_path / "accuracy.json").write_text(json.dumps({"weights_sha256": right}))
    assert report.main(words) == 2
    assert "another version" in capsys.readouterr().err


def test_an_incomplete_run_is_refused(
    runs: Path, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    (copy / "shapes-fcn16s" / "scores.csv").unlink()
    assert report.main(arguments(copy, measured, tmp_path / "report.html")) == 2
    assert "scores.csv: no such file; python reference/train.py shapes-fcn8s --staged" in capsys.readouterr().err


def test_pictures_show_the_thin_classes() -> None:
    data, thin = First(Shapes("val"), 12), ("wheel", "stool")
    chosen = pictures.choose(data, thin, 2)
    assert len(chosen) == 4 == len(set(chosen)) and chosen == sorted(chosen)
    for name in thin:
        most = max(range(len(data)), key=lambda i: np.sum(data[i].label == data.classes.index(name)))
        assert most in chosen


def test_text_is_escaped() -> None:
    text = page.document("a<b", page.table(("<i>",), [["&"]]), page.paragraph("<p>"), page.legend([("<", (1, 2, 3))]))
    found = Page(text)
    assert "<i>" in found.text and "i" in found.tags and "a<b" in found.text and "&amp;" in text
