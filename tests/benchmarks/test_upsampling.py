from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import upsampling
from export.graph import to_model
from export.to_onnx import randomise
from reference import build, surgery
from tests.export.nets import blobs, compute, image
from tests.tolerances import BLOB


@pytest.mark.parametrize("form", upsampling.FORMS)
def test_every_form_gives_the_nets_scores(form: str) -> None:
    """At an even and an odd size, and where the last upsampling sees little more than its border."""
    net = build("voc-fcn8s", width=1 / 64).eval()
    randomise(net, 0)
    surgery.interpolate(net)
    opened = upsampling.open_form(to_model(net, expose=["upscore8"]), upsampling.FORMS[form], 1)
    for size in ((1, 1), (37, 53), (40, 64)):
        data = image(1, 3, *size)
        found, expected = compute(opened, data=data), blobs(net, ("score", "upscore8"), data=data)
        for top, value in expected.items():
            assert found[top].shape == value.shape
            assert np.abs(found[top] - value).max() < BLOB * np.abs(value).max()


def test_the_forms_are_timed_and_their_labels_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "upsampling.json"
    assert upsampling.main(["--width", "0.02", "--size", "24x32", "--repeat", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [row["form"] for row in found["rows"]] == list(upsampling.FORMS)
    assert all(row["runs"] == 2 and row["median"] >= row["fastest"] > 0 for row in found["rows"])
    assert found["rows"][0]["labels_differ"] == 0 and found["classes"] > 1
    assert "resize" in capsys.readouterr().out
    assert upsampling.main(["--threads", "0"]) == 2
