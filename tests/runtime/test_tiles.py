"""runtime/tiles.py and what the Segmenter does with it: every pixel once, from a tile that may decide it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.cli import BadInput
from fcn.images import read_label, write_image
from runtime.metadata import Tiling
from runtime.ort import OrtBackend
from runtime.profiles import Profile, Shape, choose, largest
from runtime.segment import main
from runtime.segmenter import Segmenter
from runtime.tiles import Span, spans, tiles
from tests.runtime.models import image, metadata, save

ANY = ((1, 0, 0), (1, 0, 0))  # what the 1x1 convolution of tests/runtime/models.py allows


@settings(derandomize=True)
@given(st.integers(1, 3000), st.integers(1, 64), st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_every_pixel_is_kept_once_by_a_tile_that_may(size: int, stride: int, low: int, high: int, more: int) -> None:
    tiling = Tiling(stride, low, high)
    most = tiling.least + more
    found = spans(size, most, tiling)
    assert [pixel for span in found for pixel in range(span.first, span.last)] == list(range(size))
    for span in found:
        assert 0 <= span.start < span.end <= size and span.end - span.start <= most
        assert span.start % stride == 0 and (span.end == size or span.end % stride == 0)
        assert span.start == 0 or span.first >= span.start + low
        assert span.end == size or span.last <= span.end - high


def test_the_least_tile_is_the_least() -> None:
    """A stride shorter, and the next tile would begin where this one does."""
    tiling = Tiling(32, 217, 223)
    assert tiling.least == 480 and (480 - 32 - 217 - 223) // 32 == 0


def test_only_the_axis_that_is_too_long_is_cut() -> None:
    tiling = (Tiling(32, 217, 223), Tiling(32, 217, 223))
    found = tiles((300, 700), (480, 480), tiling)
    assert {tile.rows for tile in found} == {Span(0, 300, 0, 300)} and len(found) > 1
    for alone in (
        tiles((480, 480), (480, 480), tiling),
        tiles((9, 700), (479, 479), tiling),
        tiles((9, 7), (1, 1), None),
    ):
        assert len(alone) == 1


@pytest.fixture(params=["scores", "labels", "image"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / "model.onnx", request.param, properties=metadata(request.param, tiling=ANY).to_properties())


def test_tiles_give_the_labels_of_one_pass(model: Path) -> None:
    pictures = [image(20, 31, seed) for seed in range(3)]
    with Segmenter.open(model, "cpu", 1) as one, Segmenter.open(model, "cpu", 1, tile=8) as tiled:
        seen: list[int] = []

        def progress(parts):  # type: ignore[no-untyped-def]
            seen.append(len(parts))
            return parts

        np.testing.assert_array_equal(tiled.batch(pictures, progress), one.batch(pictures, progress))
        np.testing.assert_array_equal(tiled.batch(np.stack(pictures)), one.batch(pictures))
        np.testing.assert_array_equal(tiled(pictures[0][::2, ::-1]), one(pictures[0][::2, ::-1]))
        assert seen == [3 * 4]  # one pass has no progress
        if one.metadata.io == "scores":
            np.testing.assert_array_equal(tiled.scores(pictures[0]), one.scores(pictures[0]))
            np.testing.assert_array_equal(tiled.probabilities(pictures[0]), one.probabilities(pictures[0]))


class Limited(OrtBackend):
    """ONNX Runtime with the limits of an engine, which refuses what its profiles do not hold."""

    def profiles(self) -> list[Profile]:
        shapes = ((1, 3, 2, 2), (1, 3, 4, 4), (2, 3, 8, 10))
        order = (0, 2, 3, 1) if self.metadata.io == "image" else (0, 1, 2, 3)
        return [Profile(*(tuple(shape[axis] for axis in order) for shape in shapes))]

    def largest(self, shape: Shape) -> Shape | None:
        return largest(self.profiles(), shape)

    def run(self, x: np.ndarray) -> np.ndarray:
        assert choose(self.profiles(), x.shape) is not None
        return super().run(x)


def test_tiles_are_as_large_as_an_engines_profiles(model: Path) -> None:
    pictures = [image(20, 32, seed) for seed in range(2)]
    seen: list[tuple[int, int]] = []

    def progress(parts):  # type: ignore[no-untyped-def]
        seen.append((parts[0].rows.end, parts[0].columns.end))
        return parts

    with Segmenter.open(model, "cpu", 1) as one:
        for tile, first in ((None, (8, 10)), (9, (8, 9)), (6, (6, 6))):
            with Segmenter(Limited(model, "cpu", 1), tile) as limited:
                np.testing.assert_array_equal(limited.batch(pictures, progress), one.batch(pictures))
                assert seen.pop() == first
                assert limited(pictures[0][:6, :5], progress).shape == (6, 5) and not seen


def test_the_command_takes_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path / "model.onnx", properties=metadata(tiling=ANY).to_properties())
    write_image(tmp_path / "photo.png", image(20, 31))
    given = [str(model), str(tmp_path / "photo.png"), "--provider", "cpu", "--threads", "1"]
    assert main([*given, "--out", str(tmp_path / "one")]) == 0
    assert main([*given, "--out", str(tmp_path / "tiled"), "--tile", "8"]) == 0
    one, tiled = (read_label(tmp_path / folder / "photo.png") for folder in ("one", "tiled"))
    np.testing.assert_array_equal(one, tiled)
    capsys.readouterr()
    assert main([*given, "--out", str(tmp_path / "none"), "--tile", "0"]) == 2
    assert "--tile 0: too small" in capsys.readouterr().err


def test_tiles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    fcn8s = ((32, 217, 223), (32, 217, 223))
    path = save(tmp_path / "model.onnx", properties=metadata(tiling=fcn8s).to_properties())
    with pytest.raises(
        BadInput, match=r"--tile 479: too small for what a pixel of .*model.onnx sees; give 480 or more"
    ):
        Segmenter.open(path, "cpu", tile=479)
    old = metadata().to_properties()
    del old["fcn.tiling"]
    with pytest.raises(BadInput, match=r"old.onnx: knows no tiles: .*export it again"):
        Segmenter.open(save(tmp_path / "old.onnx", properties=old), "cpu", tile=4096)
    with Segmenter.open(tmp_path / "old.onnx", "cpu", 1) as whole:
        assert whole(image(3, 5000)).shape == (3, 5000)
