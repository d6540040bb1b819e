"""Parts of a reproduction's report, and other files in its place; tests/reference/test_reproduce.py makes real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reproduction


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"{", "not a JSON file"), (b"[]", "of another version"), (b'{"rows": [], "released": false}', "lacks 'title'")],
)
def test_other_files_are_refused_in_one_line(
    content: bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "voc.json"
    path.write_bytes(content)
    assert reproduction.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and "reproduce.py GROUP makes it" in error and error.count("\n") == 1
    assert not path.with_suffix(".html").exists()


def test_what_makes_figures_incomparable_is_said_first() -> None:
    row = {"data": "voc seg11valid", "images": 736}
    whole = {"shortened": None, "narrow": False, "rows": [row, {"data": "shapes test", "images": 100}]}
    assert reproduction.warnings(whole) == ""
    assert "SHORTENED: every stage was cut to 9 it" in reproduction.warnings(whole | {"shortened": 9})
    assert "NARROW: " in reproduction.warnings(whole | {"narrow": True})
    said = reproduction.warnings(whole | {"rows": [row | {"images": 14}]})
    assert "PART OF THE SPLIT: 14 images of voc seg11valid; there are 736 in the authors" in said


def test_a_cell_is_ours_above_theirs_and_the_difference() -> None:
    assert reproduction.cell(63.5, 63.6261, 4) == ("63.5000", "63.6261, -0.1261")
    assert reproduction.cell(63.5, None, 2) == "63.50" and reproduction.cell(None, 1.0, 2) == ""


def test_notes_are_said_once(tmp_path: Path) -> None:
    size = {"parameters": 134_000_000, "total_stride": [32.0, 32.0], "receptive_field": [404, 404]}
    rows = [{"recipe": name, "note": "ours", "size": size} for name in ("a", "b")]
    told = "".join(reproduction.notes(json.loads(json.dumps(rows))))
    assert told.count("ours.") == 1 and "a, b: ours." in told and "134.0 M" in told and ">404<" in told
