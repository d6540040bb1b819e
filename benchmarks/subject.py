"""What is timed: one net as a PyTorch module, an ONNX file and an engine, as far as they are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.border import KEEP
from export.to_onnx import export_onnx, load, parse, weights_sha256
from fcn.cli import BadInput
from fcn.files import atomic, existing, sha256
from fcn.images import voc_palette, write_image, write_label
from reference import NETS, checkpoint
from reference.caffe import net_from_text
from reference.data.shapes import Shapes
from reference.data.voc import Voc
from reference.net import Net, NetSpec
from reference.runs import WEIGHTS
from runtime import sidecar
from runtime.metadata import Metadata
from runtime.segmenter import ENGINES, Segmenter


@dataclass(frozen=True)
class Subject:
    """A deployed net, the same weights in every form that is not None."""

    source: str
    model: Path | None
    """The .onnx file."""
    metadata: Metadata
    net: Net | None
    missing: str = ""
    """Why there is no `model`, or no `net`."""
    engine: Path | None = None
    """The engine that was given; only it, and the .onnx file beside it, are timed then."""

    @property
    def file(self) -> Path:
        """What was given, or exported of it."""
        file = self.engine or self.model
        assert file
        return file

    @property
    def precision(self) -> str:
        """What the file computes in: "float32" or "float16"."""
        return "float16" if self.metadata.provenance.get("precision") == "fp16" else "float32"

    @property
    def border(self) -> str:
        """How the file pads: of export.border.BORDERS."""
        return self.metadata.provenance.get("border", KEEP)

    @property
    def spec(self) -> NetSpec | None:
        """The graph; None for a file that does not carry its definition."""
        if self.net:
            return self.net.spec
        return net_from_text(self.metadata.definition, str(self.file)) if self.metadata.definition else None


def find(model: str | None, weights: Path | None, folder: Path, border: str = KEEP) -> Subject:
    """The subject that the command line asks for; what is no .onnx file yet is exported into `folder`.

    border: of export.border.BORDERS, for that export.

    model: a .onnx file (with the checkpoint `weights`, or the one beside it), an engine (with the .onnx file that it
    was built from beside it, or alone), a .safetensors checkpoint, the name of a net (random weights), or None: the
    latest run, or else random weights, as export/to_onnx.py has it.
    Raises BadInput for whatever cannot be executed: nothing else is ever taken in its place.
    """
    kind = Path(model or "").suffix.lower()
    if model and kind == ".onnx":
        return _opened(Path(model), weights)
    if weights:
        raise BadInput(f"--weights {weights}: belongs to a .onnx model; give one, or the checkpoint alone")
    if model and kind in ENGINES:
        return _built(Path(model))
    if model is None or model in NETS or model.endswith(".safetensors"):
        return _exported([] if model is None else ["--random", model] if model in NETS else [model], folder, border)
    raise BadInput(f"{model}: no model file; give a .onnx file, an engine, a .safetensors checkpoint or a net's name")


def _exported(words: list[str], folder: Path, border: str) -> Subject:
    """words: the arguments by which export/to_onnx.py would know the net."""
    net, about, _ = load(parse(words))
    if about is None:
        raise BadInput(f"{net.spec.name}: does not make one label map of one image; there is nothing to time here")
    model = folder / f"{net.spec.name}.onnx"
    print(f"exporting {net.spec.name} and verifying it in ONNX Runtime ...", flush=True)
    print(export_onnx(net, model, about, border=border))
    return Subject(f"{about.recipe}, iteration {about.iteration}", model, _metadata(model), net.eval())


def _opened(model: Path, weights: Path | None) -> Subject:
    metadata = _metadata(model)
    if net := with_weights(model, weights, metadata.weights_sha256):
        return Subject(str(model), model, metadata, net.eval())
    if weights:
        raise BadInput(f"{weights}: holds other weights than {model}; give the checkpoint that it was exported from")
    missing = f"no checkpoint with the weights of {model} lies beside it: give it with --weights"
    return Subject(str(model), model, metadata, None, missing)


def with_weights(model: Path, weights: Path | None, sha: str) -> Net | None:
    """The net of the checkpoint `weights`, or of one beside the file, if its weights have that hash."""
    # Where the export and the training put them: x.onnx beside x.safetensors, or in the folder of a run.
    beside = [path for path in (model.with_suffix(".safetensors"), model.with_name(WEIGHTS)) if path.exists()]
    for path in [weights] if weights else beside:
        net = checkpoint.load(path).net
        if weights_sha256(net) == sha:
            return net
    return None


def _built(engine: Path) -> Subject:
    about = sidecar.read(existing(engine, hint="build one with python runtime/build.py MODEL.onnx"))
    onnx = engine.with_name(about.onnx)
    same = onnx.is_file() and sha256(onnx) == about.onnx_sha256
    why = "an engine was given; give its .onnx file instead" if same else f"{onnx}, its source, is not there any more"
    return Subject(str(engine), onnx if same else None, about.described(), None, why, engine)


def _metadata(model: Path) -> Metadata:
    with Segmenter.open(model, provider="cpu") as segmenter:
        return segmenter.metadata


def scenes(batch: int, height: int, width: int) -> np.ndarray:
    """N x H x W x 3 uint8 RGB: pictures of `shapes`, repeated or cut to the size."""
    data = Shapes("val")
    return np.stack([_fit(data[index % len(data)].image, height, width) for index in range(batch)])


def voc_like(folder: Path, height: int, width: int, count: int = 16) -> Voc:
    """A VOC data set of `count` pictures of `shapes` as JPEG files with their labels, written into `folder`."""
    names = [f"{index:06}" for index in range(count)]
    for name, sample in zip(names, Shapes("train"), strict=False):
        write_image(folder / "JPEGImages" / f"{name}.jpg", _fit(sample.image, height, width))
        write_label(folder / "SegmentationClass" / f"{name}.png", _fit(sample.label, height, width), voc_palette())
    split = folder / "ImageSets" / "Segmentation" / "train.txt"
    with atomic(split) as temporary:
        temporary.write_text("\n".join(names))
    return Voc(folder, "train")


def _fit(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """H x W (x 3), repeated or cut to the size."""
    repeats = (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), *(1 for _ in pixels.shape[2:]))
    return np.tile(pixels, repeats)[:height, :width]
