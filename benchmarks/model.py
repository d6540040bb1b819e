"""A deployed model, the net that it claims to be with the weights that it holds, and further files run as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.subject import with_weights
from export.to_onnx import weights_sha256
from fcn.cli import BadInput
from fcn.files import existing, sha256
from reference.caffe import load_caffemodel, net_from_text
from reference.net import Net
from runtime import build
from runtime.engine import EngineBackend
from runtime.ort import OrtBackend
from runtime.profiles import Shape, text
from runtime.segmenter import ENGINES, Backend

AGAIN = "export it again with python export/to_onnx.py"
Opener = Callable[[Path, Sequence[Shape]], Backend]


@dataclass(frozen=True)
class Model:
    """An open model file."""

    path: Path
    onnx: Path
    """The file itself, or what the engine was built from."""
    backend: Backend
    open: Opener
    """Runs another ONNX file as this model runs, for inputs of the given shapes (the least, then the tuned one, which
    is the greatest too): an engine is built with the same library and options."""
    net: Net
    half: bool
    """Whether the file computes in float16."""
    unchanged: bool
    """Whether the weights are those that the file says it was exported with."""


def open_model(path: Path, source: Path | None, weights: Path | None, provider: str, folder: Path) -> Model:
    """Open a .onnx file, or an engine that was built from `source` (None: beside it).

    weights: the checkpoint (or caffemodel) of a float16 file, which holds rounded ones (None: beside it). Engines are
    built in `folder`. Raises BadInput where the model cannot run here, or lacks what tells its net and weights.
    """
    backend, onnx_file, opener = _opened(path, source, provider, folder)
    metadata = backend.metadata
    if not metadata.definition:
        raise BadInput(f"{path}: does not say what net it is; {AGAIN}")
    net = Net(net_from_text(metadata.definition, str(path))).eval().requires_grad_(False)
    half = metadata.provenance.get("precision") == "fp16"
    if weights and not half:
        raise BadInput(f"--weights {weights}: {path} holds its own; this is for float16 files, which hold rounded ones")
    state = _rounded(onnx_file, net, weights, metadata.weights_sha256) if half else _held(onnx_file, net)
    net.load_state_dict(state)
    return Model(path, onnx_file, backend, opener, net, half, weights_sha256(net) == metadata.weights_sha256)


def _opened(path: Path, source: Path | None, provider: str, folder: Path) -> tuple[Backend, Path, Opener]:
    if path.suffix.lower() not in ENGINES:
        if source:
            raise BadInput(f"--onnx {source}: belongs to an engine; {path} is none")
        return OrtBackend(path, provider), path, lambda other, _: OrtBackend(other, provider)
    engine = EngineBackend(path)
    source = existing(
        source or path.with_name(engine.about.onnx), hint=f"{path} was built from it: give it with --onnx"
    )
    if sha256(source) != engine.about.onnx_sha256:
        raise BadInput(f"{source}: not the file that {path} was built from; {engine.about.rebuild(path)}")

    def open_built(other: Path, shapes: Sequence[Shape]) -> Backend:
        built = folder / f"{other.stem}.engine"
        least, tuned = text(shapes[0]), text(shapes[-1])
        words = ["--minShapes", least, "--optShapes", tuned, "--maxShapes", tuned, *engine.about.options()]
        build.build(build.parse([str(other), "-o", str(built), *words]), built, engine.library)
        return EngineBackend(built)

    return engine, source, open_built


def _held(path: Path, net: Net) -> dict[str, torch.Tensor]:
    """The weights that a float32 file holds, under the net's keys."""
    held = {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}
    wanted = net.state_dict()
    if lost := sorted(set(wanted) - set(held)):
        raise BadInput(f"{path}: lacks the weights {', '.join(lost[:3])} of its net; {AGAIN}")
    found = {key: torch.from_numpy(numpy_helper.to_array(held[key]).copy()) for key in wanted}
    for key, blob in wanted.items():
        if found[key].numel() != blob.numel() or found[key].dtype != blob.dtype:
            raise BadInput(f"{path}: {key} is not what its net has ({tuple(blob.shape)}, float32); {AGAIN}")
    return {key: found[key].reshape(blob.shape) for key, blob in wanted.items()}


def _rounded(path: Path, net: Net, weights: Path | None, sha: str) -> dict[str, torch.Tensor]:
    """The weights that a float16 file was made of: of a checkpoint or a caffemodel, since it holds them rounded and
    scaled.
    """
    if weights and weights.suffix == ".caffemodel":
        own = Net(net.spec)
        load_caffemodel(own, weights)
        found = own if weights_sha256(own) == sha else None
    else:
        found = with_weights(path, weights, sha)
    if found:
        return found.state_dict()
    if weights:
        raise BadInput(f"{weights}: holds other weights than {path} was exported from; give those")
    raise BadInput(f"{path}: holds its weights rounded to float16: give their checkpoint or caffemodel with --weights")


def exposed(source: Path, target: Path, net: Net) -> list[str]:
    """Write the model again with every top of `net` that it computes as an output besides its own; their names."""
    model = onnx.load(str(source))
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    given = {output.name for output in graph.output}
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer)
    names = [top for top in net.spec.deploy().tops if top in made]
    for name in names:
        if name not in given:
            # In a float16 graph the net's input, made of pixels, is still float32.
            kind = TensorProto.FLOAT16 if half and name not in net.spec.inputs else TensorProto.FLOAT
            graph.output.append(helper.make_tensor_value_info(name, kind, None))
    target.write_bytes(model.SerializeToString())
    return names
