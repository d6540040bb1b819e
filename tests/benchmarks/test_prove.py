"""`fcn prove` from end to end, against records of genuine Caffe and on files that are not what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from benchmarks import prove
from benchmarks.definition import differences
from benchmarks.prove import DIVERGES, recorded
from export import nodes
from export.border import whole_tops
from export.to_onnx import plain_about, randomise, write_model
from fcn.files import sha256
from reference import NETS, build, save_caffemodel
from reference.data.voc import MEAN
from reference.layers import Convolution, Pooling
from reference.net import Net, NetSpec

NET = "voc-fcn32s"  # one small record, and the net whose weights are made fastest


def write(path: Path, net: Net | None = None, io: str = "image", precision: str = "fp32") -> Path:
    net = net or build(NET, width=1 / 16)
    randomise(net, 0)
    write_model(net, path, plain_about(net, "test", MEAN), io, precision=precision)
    return path


def certificate(model: Path) -> dict[str, Any]:
    return json.loads(model.with_name(f"{model.name}.proof.json").read_text())


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the records, which have a test of their own and take their time."""
    monkeypatch.setattr(prove, "_records", lambda *_: iter(()))


def test_a_faithful_file_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "model.onnx")
    assert prove.main([str(model), "--provider", "cpu"]) == 0
    found = certificate(model)
    assert found["agrees"] and found["diverges"] is None and found["differences"] == []
    assert found["model_sha256"] == sha256(model)
    assert "ONNX Runtime" in found["backend"] and found["versions"]["onnxruntime-gpu"] and found["date"]
    (record,) = found["records"]
    assert record["record"] == "voc-fcn32s-120x160" and record["labels_that_differ"] == 0
    # Every top of the net but its input, each as close as the suite demands of PyTorch.
    tops = {top for layer in NETS[NET]().deploy().layers for top in layer.tops} - {"data"}
    assert set(record["tops"]) == tops and 0 < record["worst"] < 1e-5
    assert {tuple(each["input"]) for each in found["untouched"]} >= {(1, 1, 1), (2, 37, 53), (1, 375, 500)}
    said = capsys.readouterr().out
    assert "agrees: every difference is below 5e-05" in said and "voc-fcn32s-120x160" in said


def test_an_export_that_floors_is_caught_by_caffe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mistake is in the export, so the file and what it was made of share it: the record does not."""

    def floors(made: nodes.Graph, layer: Pooling, bottoms: Any, top: str) -> None:
        faithful(made, replace(layer, round_mode="FLOOR"), bottoms, top)

    faithful = nodes.EMITTERS[Pooling]
    monkeypatch.setitem(nodes.EMITTERS, Pooling, floors)
    model = write(tmp_path / "model.onnx")
    assert prove.main([str(model), "--provider", "cpu"]) == DIVERGES
    diverges = certificate(model)["diverges"]
    assert (diverges["where"], diverges["top"]) == ("voc-fcn32s-120x160", "pool2")  # 159 x 179 before, then 80 x 90
    assert diverges["cause"]["name"] == "floor pooling"
    assert "likely cause: floor pooling" in capsys.readouterr().out


def test_what_a_layer_reads_need_not_be_in_the_file() -> None:
    """An elided file holds conv4_3 on a window only: where pool4 diverges, it is computed from PyTorch's."""
    net = build(NET, width=1 / 16).eval().requires_grad_(False)  # of other shapes than the record's
    x = torch.ones(1, 3, 120, 160)
    whole = tuple(top for top in whole_tops(net.spec.deploy()) if top != "data")
    found = {top: value.numpy() for top, value in net.run(whole, {"data": x}).items()}
    compared = prove._against_caffe("voc-fcn32s-120x160", net, found, x, 1e-5)
    assert not compared["agrees"] and compared["diverges"]["layers"] == ["pool4"]


@pytest.mark.usefixtures("unjudged")
def test_weights_changed_since_the_export_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "model.onnx")
    changed = onnx.load(str(model))
    tensor = next(each for each in changed.graph.initializer if each.name == "conv3_1.bias")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-3), tensor.name))
    model.write_bytes(changed.SerializeToString())
    assert prove.main([str(model), "--provider", "cpu"]) == DIVERGES
    found = certificate(model)
    assert not found["weights_unchanged"] and all(each["agrees"] for each in found["untouched"])
    assert "the weights are not those" in capsys.readouterr().out


@pytest.mark.usefixtures("unjudged")
def test_a_net_that_is_not_the_authors_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What many reproductions do: PyTorch's usual padding, and crops that follow from it."""
    spec = NETS[NET](width=1 / 16)
    layers = [replace(x, pad=(81, 81)) if x.name == "conv1_1" else x for x in spec.layers]
    layers = [replace(x, offset=(0,)) if x.name == "score" else x for x in layers]
    model = write(tmp_path / "model.onnx", Net(NetSpec(spec.name, tuple(layers))))
    assert prove.main([str(model), "--provider", "cpu"]) == DIVERGES
    assert certificate(model)["differences"] == [
        "conv1_1: pad 81, 81; the authors' has 100, 100",
        "score: offset 0; the authors' has 19",
    ]
    assert "conv1_1: pad 81, 81" in capsys.readouterr().out


@pytest.mark.usefixtures("unjudged")
def test_float16_needs_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "model.onnx", precision="fp16")
    assert prove.main([str(model), "--provider", "cpu"]) == 2
    assert "give their checkpoint or caffemodel with --weights" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [model]
    net = build(NET, width=1 / 16)
    randomise(net, 0)
    save_caffemodel(net, tmp_path / "net.caffemodel")
    assert prove.main([str(model), "--provider", "cpu", "--weights", str(tmp_path / "net.caffemodel")]) == 0
    assert certificate(model)["precision"] == "fp16" and certificate(model)["weights_unchanged"]


def test_what_cannot_be_proven_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "model.onnx")
    net = onnx.load(str(model))
    for entry in net.metadata_props:
        if entry.key == "fcn.definition":
            entry.value = ""
    (tmp_path / "mute.onnx").write_bytes(net.SerializeToString())
    for given, complaint in (
        ([str(tmp_path / "none.onnx")], "no such file"),
        ([str(tmp_path / "mute.onnx")], "does not say what net it is"),
        ([str(model), "--onnx", str(model)], "belongs to an engine"),
        ([str(model), "--weights", str(model)], "holds its own"),
        ([str(tmp_path / "none.engine")], "no such file"),
    ):
        assert prove.main([*given, "--provider", "cpu"]) == 2
        error = capsys.readouterr().err.strip()
        assert complaint in error and "\n" not in error


def test_differences_are_of_places_and_kinds_only() -> None:
    authors = NETS["voc-fcn8s"]()
    assert differences(NETS["voc-fcn8s"](classes=5, width=1 / 8), authors) == []
    found = differences(NETS["voc-fcn16s"](), authors)
    assert "score_pool3: missing; the authors' net has a Convolution there" in found
    assert all(":" in each for each in found)
    without = NetSpec("voc-fcn8s", tuple(x for x in authors.layers if x.name != "relu3_1"))
    assert differences(without, authors) == ["relu3_1: missing; the authors' net has a ReLU there"]
    extra = replace(next(x for x in authors.layers if isinstance(x, Convolution)), name="conv0", tops=("conv0",))
    assert differences(replace(authors, layers=(authors.layers[0], extra, *authors.layers[1:])), authors) == []


def test_records_are_found_by_the_nets_full_name() -> None:
    assert recorded("voc-fcn8s") == ["voc-fcn8s-1x1", "voc-fcn8s-97x131", "voc-fcn8s-375x500"]
    assert recorded("voc-fcn8s-atonce") == ["voc-fcn8s-atonce-120x160"]
    assert recorded("camvid-squeezenet") == recorded("a net of (one's own") == []
