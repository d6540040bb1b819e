"""export/triton.py: what the configuration declares is what ONNX Runtime takes and gives, and all of it or nothing.

Triton itself has never loaded these folders: it runs in NVIDIA's container.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from grpc_tools import protoc

from export.to_onnx import export_onnx, main, randomise
from export.triton import MOST_IMAGES, files, folders, repository
from export.verify import Disagreement
from fcn.cli import BadInput
from reference import build
from reference.caffe import save_caffemodel, save_prototxt
from reference.checkpoint import About
from runtime import Segmenter, profiles
from runtime.metadata import Metadata
from tests.export.nets import WIDTH, narrow

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A strict reader of config.pbtxt: fields and values that model_config.proto does not list are errors."""
    out = tmp_path_factory.mktemp("schema") / "set"
    here = Path(__file__).parent
    assert protoc.main(["", f"-I{here}", f"--descriptor_set_out={out}", str(here / "model_config.proto")]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return lambda path: text_format.Parse(path.read_text(), kind())


def name_of(message: Any, field: str) -> str:
    """The name of an enum field's value."""
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name


@pytest.mark.parametrize("io", ["scores", "labels", "image"])
def test_the_file_is_what_both_configurations_declare(
    io: str, parse: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "repository"
    assert main(["--width", str(WIDTH), "--io", io, "--triton", str(folder)]) == 0
    model, plan = files(folder, "voc-fcn8s")
    opened = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    backends = [("onnxruntime_onnx", "onnxruntime", "KIND_AUTO"), ("tensorrt_plan", "tensorrt", "KIND_GPU")]
    for name, (platform, backend, kind) in zip(folders("voc-fcn8s"), backends, strict=True):
        said = parse(folder / name / "config.pbtxt")
        assert (said.name, said.platform, said.backend, said.max_batch_size) == (name, platform, backend, MOST_IMAGES)
        assert said.HasField("dynamic_batching")
        assert [(name_of(group, "kind"), group.count) for group in said.instance_group] == [(kind, 1)]
        for declared, ends in ((said.input, opened.get_inputs()), (said.output, opened.get_outputs())):
            assert [(each.name, name_of(each, "data_type")) for each in declared] == [
                (end.name, TYPES[end.type]) for end in ends
            ]
            for each, end in zip(declared, ends, strict=True):  # Triton puts the free batch before `dims`
                assert [-1, *each.dims] == [size if isinstance(size, int) else -1 for size in end.shape]
        about = Metadata.from_properties({key: value.string_value for key, value in said.parameters.items()})
        assert about == Metadata.from_properties(opened.get_modelmeta().custom_metadata_map)
        assert (folder / name / said.output[0].label_filename).read_text().splitlines() == list(about.classes)

        size = (2, *({-1: 37}.get(side, side) for side in said.input[0].dims))
        given = np.zeros(size, {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}[name_of(said.input[0], "data_type")])
        (found,) = opened.run([said.output[0].name], {said.input[0].name: given})
        assert found.shape == (2, *({-1: 37}.get(side, side) for side in said.output[0].dims))
    assert not plan.parent.exists()  # an empty version would be an error of its own to Triton
    assert [path.name for path in folder.parent.iterdir()] == ["repository"]
    assert model.stat().st_mode & 0o077 and (folder / name).stat().st_mode & 0o077 and folder.stat().st_mode & 0o077
    serve, prepare = capsys.readouterr().out.splitlines()[-2:]
    assert serve.endswith("--model-control-mode=explicit --load-model=voc-fcn8s-onnxruntime") and str(folder) in serve
    assert shlex.join(["python", "runtime/build.py", str(model), "-o", str(plan)]) in prepare
    with Segmenter.open(model, "cpu", threads=1) as segmenter:
        assert segmenter(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7)


def test_what_triton_may_join_fits_the_default_profile() -> None:
    assert profiles.VOC[2][0] == MOST_IMAGES


def test_float32_is_float32_and_new_sizes_are_not_searched(parse: Any, tmp_path: Path) -> None:
    """As runtime/ort.py has it, in the two places where Triton's backend reads it."""
    assert main(["--width", "0.02", "--triton", str(tmp_path / "repository")]) == 0
    said = parse(tmp_path / "repository" / "voc-fcn8s-onnxruntime" / "config.pbtxt")
    (accelerator,) = said.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert said.parameters["cudnn_conv_algo_search"].string_value == "1"


def test_of_two_outputs_one_has_the_classes(parse: Any, tmp_path: Path) -> None:
    net = build("siftflow-fcn32s", width=0.02)
    randomise(net, 0)
    first, second = net.spec.outputs
    channels = net.spec.shapes()[first][1]
    known = About("two", 1, "siftflow", tuple(map(str, range(channels))), ((0, 0, 0),) * channels, (1.0, 2.0, 3.0))
    with repository(tmp_path / "repository", net.spec.name) as model:
        export_onnx(net, model, known)
    said = parse(tmp_path / "repository" / "siftflow-fcn32s-onnxruntime" / "config.pbtxt")
    assert [(each.name, each.label_filename) for each in said.output] == [(first, "labels.txt"), (second, "")]
    assert [each.dims[0] for each in said.output] == [net.spec.shapes()[top][1] for top in (first, second)]


def test_a_name_that_no_folder_or_address_could_bear(parse: Any, tmp_path: Path) -> None:
    net, definition, weights = narrow(), tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    save_prototxt(net, definition)
    definition.write_text(definition.read_text().replace('"voc-fcn8s"', r'"../FCN 8s \"\303\244\"/."', 1))
    save_caffemodel(net, weights)
    assert main([str(definition), "--weights", str(weights), "--triton", str(tmp_path / "repository")]) == 0
    names = sorted(path.name for path in (tmp_path / "repository").iterdir())
    assert names == ["FCN-8s-onnxruntime", "FCN-8s-tensorrt"]
    said = parse(tmp_path / "repository" / names[0] / "config.pbtxt")
    assert said.parameters["fcn.net"].string_value == '../FCN 8s "ä"/.'


def test_a_place_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name, message in (("full", "is there already; give --triton a new folder"), ("file", "is there already")):
        assert main(["--width", "0.02", "--triton", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: {tmp_path / name}: {message}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]
    (tmp_path / "empty").mkdir()
    assert main(["--width", "0.02", "--triton", str(tmp_path / "empty")]) == 0


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    for error in (Disagreement("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), repository(tmp_path / "repository", "net") as model:
            model.parent.mkdir(parents=True)
            model.touch()
            raise error
    with pytest.raises(BadInput, match="cannot be written"), repository(Path("/proc/repository"), "net"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_net_that_gives_no_label_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build("vgg16", width=1 / 64, size=32)
    save_prototxt(net, tmp_path / "vgg.prototxt")
    save_caffemodel(net, tmp_path / "vgg.caffemodel")
    words = [str(tmp_path / "vgg.prototxt"), "--weights", str(tmp_path / "vgg.caffemodel")]
    assert main([*words, "--triton", str(tmp_path / "repository")]) == 2
    assert "vgg16 does not make one label map of one image: leave out --triton" in capsys.readouterr().err
