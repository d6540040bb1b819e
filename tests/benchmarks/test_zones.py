"""The table and picture of what a net's tops feel."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import zones
from reference import NETS


def test_shares_are_the_prototypes() -> None:
    """As a throw-away prototype measured them at 500x375, image against blank: shared/border-elision.md."""
    found = {region.top: region for region in zones.regions("voc-fcn8s", (500, 375))}
    felt = {top: round(100 * found[top].felt) for top in ("pool1", "pool2", "pool3", "pool4", "pool5")}
    assert felt == {"pool1": 48, "pool2": 50, "pool3": 56, "pool4": 72, "pool5": 100}


@pytest.mark.parametrize("net", ["voc-fcn8s", "voc-fcn-alexnet", "voc-fcn-googlenet"])
def test_what_is_computed_holds_what_feels_the_image(net: str) -> None:
    for size in ((1, 1), (375, 500), (101, 64)):
        found = zones.regions(net, size)
        assert any(region.window for region in found)
        for region in found:
            for axis in (0, 1):
                if region.window:
                    inside, held = region.image[axis], region.window[axis]
                    assert held.start <= inside.start and inside.stop <= held.stop <= region.zones[axis].cells


def test_the_picture_shows_the_last_top_of_each_stride(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "zones.png"
    assert zones.main(["voc-fcn8s", "--draw", str(picture)]) == 0
    said = capsys.readouterr().out
    assert picture.stat().st_size > 10_000
    assert [region.top for region in zones.deepest(zones.regions("voc-fcn8s", (375, 500)))] == [
        *("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "score_fr")
    ]
    (line,) = (line for line in said.splitlines() if line.startswith("pool4 "))
    assert line.split()[-2:] == ["72.0%", "72.0%"] and "36x44" in line


@pytest.mark.parametrize(
    "words",
    [
        ["voc-fcn8s", "--size", "1x1,2x2"],
        ["voc-fcn8s", "--draw", "x.txt"],
        ["nyud-fcn32s-color-hha"],
        ["vgg16"],
    ],
)
def test_what_cannot_be_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert words[0] in NETS
    assert zones.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
