"""runtime/metadata.py: the round trip, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from fcn.cli import BadInput
from runtime.metadata import Metadata, Tiling
from tests.runtime.models import metadata


def test_round_trip_keeps_every_field_exactly() -> None:
    said = metadata()
    properties = said.to_properties()
    assert all(key.startswith("fcn.") and isinstance(value, str) for key, value in properties.items())
    assert Metadata.from_properties({**properties, "other.tool": "ignored", "fcn.later": "1"}) == said
    assert len(properties) == len(dataclasses.fields(Metadata))


def test_files_of_earlier_versions_know_no_tiling() -> None:
    properties = metadata(tiling=[[32, 217, 223]] * 2).to_properties()
    assert Metadata.from_properties(properties).tiling == 2 * (Tiling(32, 217, 223),)
    del properties["fcn.tiling"]
    assert Metadata.from_properties(properties) == metadata()


def test_lists_become_tuples_and_fields_are_frozen() -> None:
    said = metadata(classes=["a", "b"], mean=[1.0, 2.0, 3.0])
    assert said.classes == ("a", "b") and said.mean == (1.0, 2.0, 3.0)
    assert all(isinstance(colour, tuple) for colour in said.palette)
    with pytest.raises(dataclasses.FrozenInstanceError):
        said.net = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "classes"),
        ({"classes": [1, 2]}, "classes"),
        ({"palette": [(0, 0, 0)]}, "palette"),
        ({"palette": [(0, 0, 256)] * 5}, "palette"),
        ({"palette": [(0, 0)] * 5}, "palette"),
        ({"mean": (1.0, 2.0)}, "mean"),
        ({"mean": (1.0, 2.0, float("nan"))}, "mean"),
        ({"channel_order": "GRB"}, "channel_order"),
        ({"io": "pixels"}, "io"),
        ({"void": 3}, "void"),
        ({"provenance": []}, "provenance"),
        ({"tiling": [[32, 1, 1]]}, "tiling"),
        ({"tiling": [[0, 1, 1]] * 2}, "tiling"),
        ({"tiling": [[32, -1, 1]] * 2}, "tiling"),
        ({"tiling": [[32, 1.5, 1]] * 2}, "tiling"),
    ],
)
def test_contradictions_are_refused_when_writing_and_reading(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metadata(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fcn.mean": "no json"}, "broken"),
        ({"fcn.mean": "3"}, "broken"),
        ({"fcn.mean": '["a", "b", "c"]'}, "broken"),
        ({"fcn.palette": "[1, 2, 3]"}, "broken"),
        ({"fcn.io": "pixels"}, 'io \'pixels\': only "scores", "labels" and "image"'),
        ({"fcn.format": "x"}, "broken"),
        ({"fcn.format": "2"}, "newer version .*format 2.* update"),
        ({"fcn.format": "2", "fcn.mean": "moved elsewhere"}, "newer version"),
    ],
)
def test_broken_or_newer_properties_are_bad_input(changes: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Metadata.from_properties({**metadata().to_properties(), **changes})


def test_foreign_and_incomplete_models_are_told_apart() -> None:
    with pytest.raises(BadInput, match=r"not a model written by this project's export; use python export/to_onnx.py"):
        Metadata.from_properties({"author": "someone"})
    properties = metadata().to_properties()
    for key in set(properties) - {"fcn.format", "fcn.tiling"}:
        with pytest.raises(BadInput, match=f"lacks '{key}'"):
            Metadata.from_properties({k: v for k, v in properties.items() if k != key})
