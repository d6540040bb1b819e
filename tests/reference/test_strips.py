"""The strips of a net over the image, and the numbers of docs/padding-and-crop.md."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import reference
from fcn.record import ROOT
from reference.builder import Builder
from reference.coordinates import relative_map
from reference.net import Net, NetSpec
from reference.strips import as_classifier, smallest, strips
from reference.summary import summarise

PAGE = (ROOT / "docs" / "padding-and-crop.md").read_text(encoding="utf-8")
LAST_CROP = {"voc-fcn32s": 19, "voc-fcn16s": 27, "voc-fcn8s": 31}


def padded(name: str, pad: int) -> NetSpec:
    """The net up to its last upsampling, with another padding of the image."""
    spec = as_classifier(reference.NETS[name]())
    layers = tuple(replace(x, pad=(pad, pad)) if x.name == "conv1_1" else x for x in spec.layers)
    return NetSpec(name, layers)


def last_crop(spec: NetSpec) -> int:
    offset = relative_map(spec.layers, "data", spec.outputs[0], 0).shift
    assert offset.denominator == 1
    return int(offset)


# --- strips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LAST_CROP))
def test_strips_are_the_tops_of_the_net(name: str) -> None:
    """As many pixels as the running net makes; those of a crop fit into its source."""
    net = Net(reference.NETS[name](classes=1, width=1 / 512)).eval()
    found = strips(net.spec, 83)
    with torch.inference_mode():
        blobs = net.blobs(data=torch.zeros(1, 3, 83, 83))
    told = [top for strip in found for top in strip.tops]
    assert sorted(told) == sorted(set(blobs) - {"label"})
    for strip in found[1:]:
        assert {blobs[top].shape[3] for top in strip.tops} == {strip.count}
        if strip.cut:
            assert strip.source is not None
            assert sum(strip.cut) + strip.count == found[strip.source].count


def test_strips_of_fcn32s() -> None:
    found = strips(reference.NETS["voc-fcn32s"](), 224)
    assert [strip.tops[0] for strip in found] == [
        *("data", "pool1", "pool2", "pool3", "pool4", "pool5"),
        *("fc6", "upscore", "score"),
    ]
    assert [strip.first for strip in found] == [-100, -98.5, -97.5, -95.5, -91.5, -83.5, 12.5, -19, 0]
    assert [strip.count for strip in found] == [224, 211, 106, 53, 27, 14, 8, 288, 224]
    assert found[0].span == (-100.5, 323.5) and found[-1].span == (-0.5, 223.5)
    assert found[6].tops == ("fc6", "fc7", "score_fr") and found[6].reach(0, 0) == (-3.5, 28.5)
    assert found[-1].cut == (19, 45) and found[-2].span == (-19.5, 268.5)


def test_strips_of_fcn8s() -> None:
    """The skips begin where the scores do that they are added to."""
    found = {strip.tops[0]: strip for strip in strips(reference.NETS["voc-fcn8s"](), 224)}
    added = {top: strip.cut for top, strip in found.items() if strip.added is not None}
    assert added == {"score_pool4c": (5, 4), "score_pool3c": (9, 6)}
    assert found["score_pool4c"].place == found["upscore2"].place
    assert found["score_pool3c"].place == found["upscore_pool4"].place
    assert found["upscore2"].tops == ("upscore2", "fuse_pool4") and found["score"].cut == (31, 57)


def test_what_has_no_strips() -> None:
    two = Builder("two")
    data = two.input("data", 3)
    two.upscore("up", two.conv("half", data, 4, 2, stride=2), 4, kernel=4, stride=2)
    two.conv("other", data, 4, 1)
    for spec in (reference.NETS["vgg16"](), two.spec()):
        with pytest.raises(ValueError, match="only nets that upsample the scores of one image"):
            strips(spec, 224)
    flat = Builder("flat")
    flat.inner_product("fc", flat.upscore("up", flat.input("data", 3), 3, kernel=4, stride=2), 2)
    with pytest.raises(ValueError, match="fc: a InnerProduct layer has no coordinate map"):
        strips(flat.spec(), 224)
    with pytest.raises(ValueError, match="half: an input of 1 pixels is smaller"):
        strips(replace(two.spec(), layers=two.spec().layers[:-1]), 1)


# --- the page -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [1, 81, 90, 97, 100])
def test_other_paddings(pad: int) -> None:
    spec = padded("voc-fcn32s", pad)
    crop, least = last_crop(spec), smallest(spec)
    assert crop == pad - 81 and least == max(1, 195 - 2 * pad)
    assert f"| {pad} | {crop if crop >= 0 else f'none: {crop}'} | {least} |" in PAGE


def test_81_is_the_least_padding_and_97_takes_every_image() -> None:
    assert last_crop(padded("voc-fcn32s", 80)) == -1 and smallest(padded("voc-fcn32s", 96)) == 3
    assert all(smallest(reference.NETS[name]()) == 1 for name in LAST_CROP)
    assert smallest(as_classifier(reference.NETS["voc-fcn32s"]())) == 193
    with pytest.raises(ValueError, match="takes no image of up to 192 pixels"):
        smallest(as_classifier(reference.NETS["voc-fcn32s"]()), largest=192)


@pytest.mark.parametrize(("name", "crop"), LAST_CROP.items())
def test_what_is_left_over(name: str, crop: int) -> None:
    """For every width: the crop is the same, and the far end has between the crop and 31 pixels more left."""
    spec = reference.NETS[name]()
    left = set()
    for width in (*range(1, 66), 500):
        found = [strip for strip in strips(spec, width) if strip.cut]
        assert found[-1].cut is not None and found[-1].cut[0] == crop
        left.add(found[-1].cut[1])
    assert (min(left), max(left)) == (crop, crop + 31)
    crops = ", ".join(str(strip.cut[0]) for strip in found if strip.cut)
    assert f"| {crops} | *p* - {100 - crop} | {crop} to {crop + 31} |" in PAGE
    assert last_crop(padded(name, 123)) == 123 - (100 - crop)


def test_the_padding_costs() -> None:
    for pad in (1, 100):
        cost = summarise(padded("voc-fcn32s", pad)).multiply_adds
        assert f"{cost / 1e9:.4g} G" in PAGE


def test_the_offsets_of_the_page() -> None:
    rows = {row.name: row.offset for row in summarise(reference.NETS["voc-fcn8s"]()).rows}
    wanted = {"conv1_1": 1, "pool5": 16.5, "fc6": 112.5, "upscore2": 88.5, "pool4": 8.5}
    for top, offset in wanted.items():
        assert rows[top] == (offset - 100, offset - 100)
        assert f"{offset:g} - *p*" in PAGE
    upsampled = strips(reference.NETS["voc-fcn8s"](), 500)[-2].count
    assert upsampled == 568 and f"({(568 - 500) // 2} for FCN-8s: upsampled 568, image 500)" in PAGE
