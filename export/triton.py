"""A Triton model repository of a net: NAME-onnxruntime, ready to be served, and NAME-tensorrt, which lacks its plan.

Fields, names and rules are those of Triton's model_config.proto and user guide, and of its backends' sources; the files
are protobuf's text format.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import TensorProto

from fcn.cli import BadInput
from fcn.files import PARTIAL, writing
from runtime.metadata import PREFIX

# Triton joins requests that wait for the same size into one run, of as many images as runtime/build.py's default
# profile holds: of a plan that holds fewer, lower it in config.pbtxt.
MOST_IMAGES = 4
LABELS = "labels.txt"
TYPES: dict[int, str] = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.UINT8: "TYPE_UINT8"}
# As runtime/ort.py runs it: float32 without TF32, and no search through all algorithms for each new image size (the
# backend reads that option under `parameters` only, where 1 is HEURISTIC).
ONNXRUNTIME = """\
platform: "onnxruntime_onnx"
backend: "onnxruntime"
optimization { execution_accelerators { gpu_execution_accelerator [
  { name: "cuda" parameters { key: "use_tf32" value: "0" } }
] } }
parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
instance_group [ { kind: KIND_AUTO count: 1 } ]  # on each GPU, or else on the CPU
"""
TENSORRT = """\
platform: "tensorrt_plan"
backend: "tensorrt"
instance_group [ { kind: KIND_GPU count: 1 } ]  # of several profiles, name those to use: profile: [ "0", "1" ]
"""


def folders(name: str) -> tuple[str, str]:
    """The models of the net `name`: for ONNX Runtime and for TensorRT. Names are folders, and parts of addresses."""
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip(".-") or "net"
    return f"{plain}-onnxruntime", f"{plain}-tensorrt"


def files(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the repository `folder` has the net's ONNX file, and where its TensorRT plan belongs."""
    first, second = folders(name)
    return folder / first / "1" / "model.onnx", folder / second / "1" / "model.plan"


@contextmanager
def repository(folder: Path, name: str) -> Iterator[Path]:
    """Yield where to write the ONNX file of the net `name`; on success `folder` appears, a whole repository.

    There is no version of NAME-tensorrt yet: building its plan makes it. Raises BadInput where `folder` holds something
    or cannot be written.
    """
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder}: is there already; give --triton a new folder (Triton serves several of them)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{folder.name}-", dir=folder.parent) as temporary:
            made = Path(temporary, "repository")
            model, _ = files(made, name)
            yield model
            describe(made, name)
            made.replace(folder)


def commands(folder: Path, name: str) -> str:
    """What to type next, in two lines. Triton starts without a plan only where it is told which models to load."""
    model, plan = files(folder, name)
    served, waiting = folders(name)
    server = shlex.join(["tritonserver", "--model-repository", str(folder), "--model-control-mode=explicit"])
    build = shlex.join(["python", "runtime/build.py", str(model), "-o", str(plan)])
    return f"serve it:     {server} --load-model={served}\non TensorRT:  {build}, then --load-model={waiting}"


def describe(folder: Path, name: str) -> None:
    """Write what stands beside the ONNX file that the repository `folder` has of the net `name`."""
    path, _ = files(folder, name)
    model = onnx.load(str(path))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    for model_name, backend in zip(folders(name), (ONNXRUNTIME, TENSORRT), strict=True):
        place = folder / model_name
        place.mkdir(exist_ok=True)
        (place / "config.pbtxt").write_text(config(model_name, backend, model.graph, properties), "utf-8")
        classes = json.loads(properties[f"{PREFIX}classes"])
        (place / LABELS).write_text("".join(f"{' '.join(each.split())}\n" for each in classes), "utf-8")


def config(name: str, backend: str, graph: onnx.GraphProto, properties: Mapping[str, str]) -> str:
    """The text of config.pbtxt. What the ONNX file says of itself becomes parameters, which clients can ask for."""
    parts = [f"name: {quoted(name)}\nmax_batch_size: {MOST_IMAGES}\ndynamic_batching {{ }}\n{backend}"]
    parts += [f"input [ {{ {tensor(each)} }} ]\n" for each in graph.input]
    for each in graph.output:  # of several outputs, the metadata and its classes are about one
        labels = f" label_filename: {quoted(LABELS)}" if each.name == properties[f"{PREFIX}output"] else ""
        parts.append(f"output [ {{ {tensor(each)}{labels} }} ]\n")
    for key, value in properties.items():
        parts.append(f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}\n")
    return "".join(parts)


def tensor(value: onnx.ValueInfoProto) -> str:
    """Name, type and shape of an end of the graph; its first axis is Triton's own, the batch. -1: any size."""
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim[1:]
    sizes = ", ".join(str(dim.dim_value if dim.HasField("dim_value") else -1) for dim in dims)
    kind = TYPES[value.type.tensor_type.elem_type]
    return f"name: {quoted(value.name)} data_type: {kind} dims: [ {sizes} ]"


def quoted(text: str) -> str:
    """A string of protobuf's text format, which knows all of JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
