"""runtime/profiles.py: shapes as trtexec writes them, and which profile an input runs under."""

from __future__ import annotations

import pytest

from fcn.cli import BadInput
from runtime.profiles import VOC, Profile, check, choose, default, from_options, largest, parse, text

FREE = (-1, 3, -1, -1)
SMALL = Profile((1, 3, 1, 1), (1, 3, 100, 100), (8, 3, 300, 300))
LARGE = Profile((1, 3, 200, 200), (1, 3, 800, 800), (2, 3, 1024, 1024))


@pytest.mark.parametrize("given", ["1x3x375x500", "data:1x3x375x500"])
def test_shapes_are_written_as_trtexec_writes_them(given: str) -> None:
    assert parse(given) == (1, 3, 375, 500) and text(parse(given)) == "1x3x375x500"


@pytest.mark.parametrize("given", ["", "1x3", "1x3xHxW", "1x-3x1x1", "1,3,2,2", "1x3x375x9999999999", "1x3x1x1x1", "x"])
def test_what_is_no_shape_is_refused(given: str) -> None:
    with pytest.raises(BadInput, match="shape"):
        from_options([given], ["1x3x1x1"], ["1x3x1x1"], FREE)


@pytest.mark.parametrize(
    "shapes", [("1x3x2x2", "1x3x1x1", "1x3x4x4"), ("1x3x1x1", "1x3x4x4", "1x3x2x2"), ("0x3x1x1", "1x3x1x1", "1x3x1x1")]
)
def test_a_profile_is_in_order(shapes: tuple[str, str, str]) -> None:
    with pytest.raises(BadInput, match="1 <= min <= opt <= max"):
        from_options(*([shape] for shape in shapes), FREE)


def test_each_end_is_given_once_a_profile() -> None:
    with pytest.raises(BadInput, match="--minShapes, --optShapes and --maxShapes"):
        from_options(["1x3x1x1"], ["1x3x1x1"], [], FREE)
    two = from_options(["1x3x1x1", "1x3x8x8"], ["1x3x9x9"] * 2, ["4x3x9x9"] * 2, FREE)
    assert two == [Profile((1, 3, 1, 1), (1, 3, 9, 9), (4, 3, 9, 9)), Profile((1, 3, 8, 8), (1, 3, 9, 9), (4, 3, 9, 9))]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (FREE, VOC),
        ((-1, -1, -1, 3), ((1, 1, 1, 3), (1, 375, 500, 3), (4, 1024, 1024, 3))),
        ((1, 3, 64, 48), ((1, 3, 64, 48),) * 3),
        ((-1, 3, -1, 3), ((1, 3, 1, 3), (1, 3, 375, 3), (4, 3, 1024, 3))),
    ],
)
def test_the_default_is_vocs_in_the_networks_order(declared: tuple[int, ...], expected: tuple) -> None:
    made = default(declared)
    assert (made.min, made.opt, made.max) == expected
    check([made], declared)


def test_what_the_network_fixes_no_profile_frees() -> None:
    check([SMALL], FREE)
    with pytest.raises(BadInput, match=r"1x3x1x1: the network takes \?x\?x\?x3"):
        check([SMALL], (-1, -1, -1, 3))
    with pytest.raises(BadInput, match=r"1x3x100x100: the network takes 1x3x1x1"):
        check([SMALL], (1, 3, 1, 1))


def test_an_input_runs_under_the_profile_tuned_nearest() -> None:
    both = [SMALL, LARGE]
    assert choose(both, (1, 3, 100, 120)) == 0  # the second does not hold it
    assert choose(both, (1, 3, 1000, 1000)) == 1
    assert choose(both, (1, 3, 210, 210)) == 0  # both do: 2.1 times 100, or 800 / 3.8
    assert choose(both, (1, 3, 300, 300)) == 1  # 3 times 100, or 800 / 2.7
    assert choose([SMALL, SMALL], (1, 3, 9, 9)) == 0


@pytest.mark.parametrize("shape", [(1, 3, 1025, 1), (9, 3, 9, 9), (1, 4, 9, 9), (3, 3, 400, 400), (1, 3, 9), ()])
def test_what_no_profile_holds_runs_under_none(shape: tuple[int, ...]) -> None:
    assert choose([SMALL, LARGE], shape) is None


def test_the_greatest_input_is_that_of_the_profile_with_most_room() -> None:
    assert largest([SMALL, LARGE], (1, 3, 250, 5000)) == LARGE.max
    assert largest([SMALL, LARGE], (4, 3, 250, 5000)) == SMALL.max  # the other takes two images
    assert largest([SMALL, LARGE], (9, 3, 250, 250)) is None
    assert largest([SMALL, LARGE], (2, 3, 250, 999)) == (2, 3, 250, 999)
