"""The command `fcn show`, and the drawing: what it says, that it can be read, and that the committed ones are true."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import reference
from fcn.__main__ import main as fcn
from fcn.cli import BadInput
from fcn.record import ROOT
from reference import checkpoint
from reference.drawing import draw, facts, save
from reference.show import find, main, parse_size
from reference.summary import summarise

IMAGES = ROOT / "docs" / "images"
PICTURES = {"fcn32s-padding.png": "voc-fcn32s", "fcn8s-crops.png": "voc-fcn8s"}  # at 224 pixels
NARROW = {"classes": 3, "width": 1 / 64}


# --- the command --------------------------------------------------------------------------------------------


def test_a_net_by_name(capsys, tmp_path: Path) -> None:
    assert fcn(["show", "voc-fcn32s", "--json", str(tmp_path / "net.json")]) == 0
    printed = capsys.readouterr().out
    assert "134,346,581 without deconvolutions" in printed
    assert "coarsest top    score_fr: stride 32, receptive field 404" in printed
    assert re.search(r"^score +Crop +21 x 375 x 500 .* 19$", printed, re.MULTILINE)
    written = json.loads((tmp_path / "net.json").read_text())
    assert written == json.loads(json.dumps(summarise(reference.NETS["voc-fcn32s"]()).to_json()))


@pytest.mark.parametrize("suffix", [".prototxt", ".safetensors"])
def test_a_net_from_a_file(suffix: str, tmp_path: Path, capsys) -> None:
    net, path = reference.build("voc-fcn16s", **NARROW), tmp_path / f"net{suffix}"
    if suffix == ".prototxt":
        reference.save_prototxt(net, path)
    else:
        about = checkpoint.About("r", 1, "d", ("a", "b", "c"), ((0, 0, 0),) * 3, (0.0, 0.0, 0.0))
        checkpoint.save(path, net, about)
    assert find(str(path), {}) == net.spec
    assert main([str(path), "--size", "20x30"]) == 0
    assert capsys.readouterr().out == f"{net.summary((20, 30))}\n"
    assert main([str(path), "--width", "0.5"]) == 2
    assert "net" + suffix + ": a file says how wide its net is; leave out --width" in capsys.readouterr().err


def test_a_recipe_and_options() -> None:
    own = find("shapes-fcn8s", {})
    assert own.shapes()["score"][1] == 12 and own.shapes()["conv1_1"][1] == 8
    other = find("shapes-fcn8s", {"classes": 5, "width": 1 / 32})
    assert other.shapes()["score"][1] == 5 and other.shapes()["conv1_1"][1] == 2
    assert find("voc-fcn8s", {"classes": 60}) == reference.NETS["voc-fcn8s"](classes=60)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no-net"], "no net 'no-net'; give a .prototxt, a .safetensors, or one of vgg16, voc-fcn32s"),
        (["none.prototxt"], "none.prototxt: no such file"),
        (["voc-fcn8s", "--size", "375"], "--size 375: give height x width, as 375x500"),
        (["voc-fcn8s", "--size", "0x9"], "--size 0x9"),
        (["voc-fcn8s", "--size", "20000x20000"], "10000 at most"),
        (["voc-fcn8s", "--classes", "0"], "--classes from 1 to 10000"),
        (["voc-fcn8s", "--width", "-1"], "--width above 0"),
        (["vgg16", "--size", "375x500"], "vgg16: fc6 is fully connected: vgg16 takes images of 224x224 only"),
        (["voc-fcn8s", "--draw", "net.jpg"], "net.jpg: give a name that ends in .png or .svg or .pdf"),
        (["vgg16", "--draw", "net.png"], "vgg16: only nets that upsample the scores of one image can be drawn"),
    ],
)
def test_what_cannot_be_shown(words: list[str], line: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    complaint = capsys.readouterr().err
    assert line in complaint and complaint.startswith("error: ") and complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sizes_are_height_by_width() -> None:
    assert parse_size("375x500") == (375, 500) and parse_size(None) is None
    with pytest.raises(BadInput):
        parse_size("3x4x5")


# --- the drawing --------------------------------------------------------------------------------------------


def texts(figure: Figure) -> list[str]:
    return [text.get_text().replace("\N{MINUS SIGN}", "-") for text in figure.findobj(Text)]


def test_fcn32s_is_explained() -> None:
    """The numbers that people ask about, each where it comes from."""
    written = "\n".join(texts(draw(reference.NETS["voc-fcn32s"](), 224)))
    assert "padded by 1, half of the first kernel: the upsampled scores begin 80 pixels inside" in written
    assert "an image below 193 pixels gets none at all" in written
    assert "padded by 100: the upsampled scores begin 19 pixels outside of it.\nCropped by 19" in written
    assert "every image from 1x1 pixels up" in written
    assert "-100 (padding) + 16.5 (conv1_1, pool1 \N{EN DASH} pool5) + 96 (fc6) - 31.5 (upscore) = -19" in written
    for number in ("100", "80", "19", "45", "12.5", "-83.5"):
        assert re.search(rf"^{number}$", written, re.MULTILINE), number


def test_the_skips_are_explained() -> None:
    written = "\n".join(texts(draw(reference.NETS["voc-fcn8s"](), 224)))
    assert "score_pool4 and score_pool3, cropped by 5 and 9 of their own pixels, lie over what they are" in written
    assert "Cropped by 31" in written and "- 24 (upscore2) - 12 (upscore_pool4) - 7.5 (upscore8) = -31" in written
    assert "as the classifier" not in written
    assert "score_pool4, cropped by 5 of" in "\n".join(texts(draw(reference.NETS["voc-fcn16s"](), 224)))


@pytest.mark.parametrize(
    ("name", "width"),
    [("voc-fcn32s", 224), ("voc-fcn16s", 500), ("voc-fcn8s", 224), ("voc-fcn8s-atonce", 1), ("voc-fcn32s", 33)],
)
def test_every_word_stands_in_the_picture(name: str, width: int) -> None:
    """Nothing runs over the edge, and no title or footer into a strip."""
    figure = draw(reference.NETS[name](), width)
    renderer = FigureCanvasAgg(figure).get_renderer()
    long = [text.get_window_extent(renderer) for text in figure.texts if len(text.get_text()) > 20]
    for text in figure.findobj(Text):
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text.get_text()
    for box in long:
        assert not any(box.overlaps(ax.get_window_extent(renderer)) for ax in figure.axes)
    assert long


def test_a_net_of_another_geometry() -> None:
    """SqueezeNet's padding is no more than it needs: no second panel, and odd kernels."""
    written = "\n".join(texts(draw(find("camvid-squeezenet-16s", {}), 224)))
    assert "padded by 10" in written and "classifier" not in written
    assert "-10 (padding) + 3 (conv1) + 14 (pool1, pool4 \N{EN DASH} pool8) - 15 (upscore16) = -8, so crop 8" in written


def test_wrong_offsets_are_told() -> None:
    """A definition may say any offset; the drawing says what it does, and which would be right."""
    wrong = {"score": (34,), "score_pool3c": (8,)}
    spec = reference.NETS["voc-fcn8s"]()
    layers = tuple(replace(x, offset=wrong[x.name]) if x.name in wrong else x for x in spec.layers)
    written = "\n".join(texts(draw(replace(spec, layers=layers), 224)))
    assert "Cropped by 34, score pixel i lies over image pixel i + 3; 31 would be right." in written
    assert "cropped by 5 and 8 of their own pixels, do NOT lie over what they are added to" in written


def test_a_net_without_crop_is_drawn() -> None:
    spec = reference.NETS["voc-fcn32s"]()
    whole = replace(spec, layers=spec.needed(("upscore",)))
    assert "The image padded by 100" in texts(draw(whole, 224))


@pytest.mark.parametrize("name", PICTURES)
def test_the_committed_pictures_show_todays_nets(name: str) -> None:
    """Each holds the facts it was drawn from; and it is opaque, for pages of any colour."""
    with Image.open(IMAGES / name) as image:
        assert image.info["Description"] == facts(reference.NETS[PICTURES[name]](), 224)
        assert image.width == 1700 and image.convert("RGBA").getextrema()[3] == (255, 255)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    spec = reference.NETS["voc-fcn32s"](**NARROW)
    save(tmp_path / f"net{suffix}", spec, 60)
    start = (tmp_path / f"net{suffix}").read_bytes()[:8]
    assert start.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    if suffix == ".svg":
        first = (tmp_path / "net.svg").read_bytes()
        save(tmp_path / "net.svg", spec, 60)
        assert (tmp_path / "net.svg").read_bytes() == first
