"""Caffe's files: against what genuine Caffe wrote, OpenCV's own importer, and protobuf."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

import reference
from benchmarks.records import FOLDER
from fcn.cli import BadInput
from fcn.record import ROOT
from reference import layers as L
from reference.caffe import (
    binary,
    caffe_pb2,
    load_caffemodel,
    load_prototxt,
    net_from_text,
    net_to_text,
    options,
    prototxt,
    read_caffemodel,
    save_caffemodel,
    save_prototxt,
    wire,
)
from reference.net import Net, NetSpec
from tests.tolerances import MATRIX_PRODUCT, OPENCV

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 40 } } }'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 1 dim: 1 dim: 40 dim: 40 } } }'
TWO = "data data"


def layer(kind: str, rest: str = "", name: str = "x", bottom: str = 'bottom: "data"', top: str = "x") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" {bottom} top: "{top}" {rest} }}'


def use(kind: str, rest: str = "", bottoms: str = "data", **names: str) -> str:
    """A layer on an image, with as many bottoms as named."""
    return DATA + layer(kind, rest, bottom=" ".join(f'bottom: "{name}"' for name in bottoms.split()), **names)


def conv(rest: str, before: str = "") -> str:
    return use("Convolution", f"{before} convolution_param {{ num_output: 4 {rest} }}")


def loss(rest: str) -> str:
    return DATA + LABEL + layer("SoftmaxWithLoss", rest, bottom='bottom: "data" bottom: "label"')


def parse(text: str, **state: object) -> NetSpec:
    return net_from_text(text, "net.prototxt", **state)


def narrow(name: str = "voc-fcn8s", **given: object) -> Net:
    """A 1/16 net with random weights of a sensible size, to be evaluated."""
    torch.manual_seed(0)
    net = reference.build(name, width=1 / 16, **given).eval()
    for key, blob in net.named_parameters():
        if blob.requires_grad:
            torch.nn.init.normal_(blob, std=(2 / blob[0].numel()) ** 0.5 if key.endswith("weight") else 0.1)
    return net


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.detach().numpy() - theirs).max() / np.abs(theirs).max())


# --- the schema -------------------------------------------------------------------------------------------------


def test_generated_code_is_that_of_the_schema(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools: pip install -e .[dev]")
    out = tmp_path / "caffe.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, str(ROOT / "reference/caffe/caffe.proto")], check=True)
    (fresh,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(fresh)
    assert described(caffe_pb2.DESCRIPTOR) == described(pool.FindFileByName(fresh.name)), (
        "regenerate caffe_pb2.py: the command stands in caffe.proto"
    )


def described(file: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        for field in message.field:
            field.ClearField("json_name")  # which the Python generator leaves out
    return proto


@pytest.mark.parametrize("kind", L.TYPES)
def test_defaults_are_caffes(kind: str) -> None:
    """An option that a definition leaves out has Caffe's default in our dataclass."""
    name = options.holder(kind)
    known = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[name].message_type.fields_by_name if name else {}
    for field in options.own_fields(L.TYPES[kind]):
        if field.default is MISSING or field.default is None or field.name not in known:
            continue
        theirs = known[field.name]
        if field.name in options.SIZES or theirs.is_repeated or theirs.message_type:
            continue
        value = options.shortest(theirs.default_value) if theirs.type == theirs.TYPE_FLOAT else theirs.default_value
        if theirs.enum_type:
            value = theirs.enum_type.values_by_number[value].name
        assert str(field.default).lower() == str(value).lower(), field.name


# --- round trips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"classes": 5, "width": 1 / 16}, {"classes": 2, "dropout": 0.25}])
@pytest.mark.parametrize("name", reference.NETS)
def test_every_net_reads_back_equal(name: str, given: dict[str, float]) -> None:
    spec = reference.NETS[name](**given)
    assert parse(net_to_text(spec)) == spec
    assert parse(net_to_text(spec.deploy())) == spec.deploy()


def test_every_option_reads_back_equal() -> None:
    def one(cls: type[L.Layer], bottoms: str, top: str, **given: object) -> L.Layer:
        return cls(name=f"{top} of {cls.__name__}", bottoms=tuple(bottoms.split()), tops=(top,), **given)

    filler = L.Filler("uniform", min=-0.1, max=0.3)
    spec = NetSpec(
        "every option",
        (
            L.Input(name="in", tops=("data",), shape=(2, 3, 80, 90)),
            L.Input(name="label", tops=("label",), shape=(2, 1, 1, 1)),
            one(
                L.Convolution,
                "data",
                "a",
                params=(L.Param(0.1, 0), L.Param(0, 0)),
                num_output=6,
                kernel_size=(3, 5),
                stride=(1, 2),
                pad=(1, 0),
                dilation=(2, 1),
                group=3,
                weight_filler=filler,
                bias_filler=L.Filler("gaussian", mean=0.7, std=1e-5),
            ),
            one(L.ReLU, "a", "a", negative_slope=0.1),
            one(L.Deconvolution, "a", "b", num_output=6, kernel_size=(9, 9), stride=(2, 2), group=6, bias_term=False),
            one(L.LRN, "b", "c", local_size=3, alpha=1e-4, beta=0.7, k=2.0),
            one(L.Pooling, "c", "d", pool="AVE", kernel_size=(3, 3), pad=(1, 1), round_mode="FLOOR"),
            one(L.Scale, "d", "e", params=(L.Param(0),), filler=L.Filler("msra"), bias_term=True, bias_filler=filler),
            one(L.Eltwise, "d e", "f", operation="SUM", coeff=(0.3, -1.0)),
            one(L.Eltwise, "f d", "g", operation="MAX"),
            one(L.Concat, "f g", "h"),
            one(L.Crop, "h data", "i", offset=(3,)),
            one(L.Dropout, "i", "i", dropout_ratio=0.1),
            one(
                L.BatchNorm,
                "i",
                "i",
                params=(L.Param(0),),
                use_global_stats=True,
                moving_average_fraction=0.9,
                eps=1e-3,
            ),
            one(L.PReLU, "i", "p", filler=L.Filler("gaussian", std=0.1), channel_shared=True),
            one(L.ELU, "p", "p", alpha=0.3),
            one(L.Sigmoid, "p", "p of Sigmoid"),
            one(L.TanH, "p", "p of TanH"),
            one(L.AbsVal, "p", "p of AbsVal"),
            one(L.Power, "p", "p of Power", power=2.0, scale=-0.1, shift=3.0),
            one(L.Bias, "p", "p of Bias", filler=filler),
            L.Slice(name="slice", bottoms=("p",), tops=("one", "two", "three"), slice_point=(2, 3)),
            one(L.Softmax, "i", "j"),
            one(L.Pooling, "j", "k", kernel_size=(1, 1), global_pooling=True),
            one(L.InnerProduct, "k", "l", num_output=7, bias_term=False, weight_filler=L.Filler("xavier")),
            one(L.SoftmaxWithLoss, "l label", "m", normalization="none", loss_weight=0.1),
            one(L.SoftmaxWithLoss, "l label", "n", normalization="full", ignore_label=0),
        ),
    )
    assert set(L.TYPES) == {layer.type for layer in spec.layers}, "a new type belongs here"
    assert parse(net_to_text(spec)) == spec
    assert Net(spec).spec == spec


def authors_fcn8s() -> str:
    """voc-fcn8s/train.prototxt as the authors' net.py writes it (their spelling: pad 0, stride 1, a Python layer)."""
    both = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"

    def conv(name: str, bottom: str, out: int, kernel: int, pad: int, stride: str = "stride: 1") -> str:
        sizes = f"num_output: {out} pad: {pad} kernel_size: {kernel} {stride}"
        return layer("Convolution", f"{both} convolution_param {{ {sizes} }}", name, f'bottom: "{bottom}"', name)

    def up(name: str, bottom: str, kernel: int) -> str:
        sizes = f"num_output: 21 bias_term: false kernel_size: {kernel} stride: {kernel // 2}"
        rest = f"param {{ lr_mult: 0 }} convolution_param {{ {sizes} }}"
        return layer("Deconvolution", rest, name, f'bottom: "{bottom}"', name)

    def crop(name: str, bottom: str, like: str, offset: int) -> str:
        rest = f"crop_param {{ axis: 2 offset: {offset} }}"
        return layer("Crop", rest, name, f'bottom: "{bottom}" bottom: "{like}"', name)

    def fuse(name: str, first: str, second: str) -> str:
        rest = "eltwise_param { operation: SUM }"
        return layer("Eltwise", rest, name, f'bottom: "{first}" bottom: "{second}"', name)

    lines = [layer("Python", 'top: "label" python_param { module: "voc_layers" }', "data", "", "data")]
    top = "data"
    for block, (convs, out) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        for i in range(1, convs + 1):
            name = f"conv{block}_{i}"
            lines.append(conv(name, top, out, 3, 100 if name == "conv1_1" else 1))
            lines.append(layer("ReLU", "", f"relu{block}_{i}", f'bottom: "{name}"', name))
            top = name
        rest = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
        lines.append(layer("Pooling", rest, f"pool{block}", f'bottom: "{top}"', f"pool{block}"))
        top = f"pool{block}"
    for i, kernel in ((6, 7), (7, 1)):
        lines.append(conv(f"fc{i}", top, 4096, kernel, 0))
        top = f"fc{i}"
        lines.append(layer("ReLU", "", f"relu{i}", f'bottom: "{top}"', top))
        rest = "dropout_param { dropout_ratio: 0.5 }"
        lines.append(layer("Dropout", rest, f"drop{i}", f'bottom: "{top}"', top))
    lines += [
        conv("score_fr", "fc7", 21, 1, 0, ""),
        up("upscore2", "score_fr", 4),
        conv("score_pool4", "pool4", 21, 1, 0, ""),
        crop("score_pool4c", "score_pool4", "upscore2", 5),
        fuse("fuse_pool4", "upscore2", "score_pool4c"),
        up("upscore_pool4", "fuse_pool4", 4),
        conv("score_pool3", "pool3", 21, 1, 0, ""),
        crop("score_pool3c", "score_pool3", "upscore_pool4", 9),
        fuse("fuse_pool3", "upscore_pool4", "score_pool3c"),
        up("upscore8", "fuse_pool3", 16),
        crop("score", "upscore8", "data", 31),
    ]
    rest = "loss_param { ignore_label: 255 normalize: false }"
    return "\n".join([*lines, layer("SoftmaxWithLoss", rest, "loss", 'bottom: "score" bottom: "label"', "loss")])


def test_our_fcn8s_is_the_authors() -> None:
    """Layer for layer; their data layer stands for our two Input layers."""
    theirs = parse(f'name: "voc-fcn8s" {authors_fcn8s()}')
    assert theirs == reference.NETS["voc-fcn8s"]()
    assert theirs == parse(net_to_text(theirs))


# --- against genuine Caffe --------------------------------------------------------------------------------------


def test_v1_file_computes_what_caffe_computed() -> None:
    net = load_prototxt(FOLDER / "v1-small.prototxt").eval()
    report = load_caffemodel(net, FOLDER / "v1-small.caffemodel")
    assert len(report.copied) == 4 and not (report.coerced or report.dropped or report.missing)
    with np.load(FOLDER / "v1-small.npz") as record:
        for key, blob in net.state_dict().items():
            assert np.array_equal(blob.numpy(), record[key])
        assert relative(net(torch.from_numpy(record["data"])), record["fc6.out"]) < MATRIX_PRODUCT


def test_caffes_own_snapshot_loads_exactly() -> None:
    net = load_prototxt(FOLDER / "solverstate/train.prototxt", phase="TRAIN")
    load_caffemodel(net, FOLDER / "solverstate/tiny_iter_0.caffemodel")
    load_caffemodel(net, FOLDER / "solverstate/tiny_iter_6.caffemodel")
    with np.load(FOLDER / "solverstate/tiny.npz") as record:
        for key, blob in net.state_dict().items():
            name, which = key.split(".")
            index = ("weight", "bias").index(which)
            assert np.array_equal(blob.numpy(), record[f"iter6/weight/{name}/{index}"])


def test_real_vgg_weights_fill_the_trunk(shared: Path) -> None:
    net = reference.build("voc-fcn32s", fc_width=1 / 64)
    path = shared / "weights/vgg16-conv1-3.caffemodel"
    report = load_caffemodel(net, path)
    assert len(report.copied) == 14 and not report.dropped and "fc6.weight" in report.missing
    # protobuf reads the same numbers, a Python float each.
    theirs = caffe_pb2.NetParameter.FromString(path.read_bytes())
    blobs = {entry.name: entry.blobs for entry in [*theirs.layer, *theirs.layers] if entry.blobs}
    for name in ("conv1_1", "conv2_1"):
        loaded = net.get_parameter(f"{name}.weight").detach().numpy().ravel()
        assert np.array_equal(loaded, np.fromiter(blobs[name][0].data, np.float32))


def squeezenet() -> str:
    """SqueezeNet v1.0's layers (Iandola et al. 2016, table 1) under the names in the shared weights."""
    lines = [DATA.replace("40", "96")]

    def add(kind: str, rest: str, name: str, *bottoms: str) -> str:
        lines.append(layer(kind, rest, name, " ".join(f'bottom: "{bottom}"' for bottom in bottoms), name))
        return name

    def conv(name: str, bottom: str, out: int, kernel: int, rest: str = "") -> str:
        add("Convolution", f"convolution_param {{ num_output: {out} kernel_size: {kernel} {rest} }}", name, bottom)
        lines.append(layer("ReLU", "", f"{name}/relu", f'bottom: "{name}"', name))
        return name

    top = conv("conv1", "data", 96, 7, "stride: 2")
    for i, squeeze in enumerate((0, 16, 16, 32, 32, 48, 48, 64, 64), start=1):
        if squeeze:
            small = conv(f"fire{i}/conv1x1_1", top, squeeze, 1)
            parts = (
                conv(f"fire{i}/conv1x1_2", small, 4 * squeeze, 1),
                conv(f"fire{i}/conv3x3_2", small, 4 * squeeze, 3, "pad: 1"),
            )
            top = add("Concat", "", f"fire{i}/concat", *parts)
        if i in (1, 4, 8):
            top = add("Pooling", "pooling_param { kernel_size: 3 stride: 2 }", f"pool{i}", top)
    top = conv("conv_final", top, 1000, 1)
    top = add("Pooling", "pooling_param { pool: AVE global_pooling: true }", "pool_final", top)
    add("Softmax", "", "prob", top)
    return "\n".join(lines)


def test_real_squeezenet_agrees_with_opencv(shared: Path, tmp_path: Path) -> None:
    """OpenCV reads the weights that Caffe wrote, and the definition that we write of the definition that we read."""
    path = shared / "weights/squeezenet-v1.0.caffemodel"
    net = Net(parse(squeezenet())).eval()
    report = load_caffemodel(net, path)
    assert len(report.copied) == 52 and not (report.missing or report.dropped or report.coerced)
    save_prototxt(net, tmp_path / "net.prototxt")
    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(path))
    torch.manual_seed(0)
    image = 50 * torch.randn(1, 3, 96, 96)
    theirs.setInput(image.numpy())
    assert relative(net(image), theirs.forward()) < OPENCV


# --- against OpenCV's importer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (97, 131), (1, 1)])
@pytest.mark.parametrize(
    "name",
    [
        *("voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet", "voc-fcn-googlenet"),
        *("nyud-fcn32s-color-d", "nyud-fcn32s-color-hha", "siftflow-fcn8s"),
    ],
)
def test_opencv_reads_what_we_write(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    net = narrow(name)
    save_prototxt(net, tmp_path / "deploy.prototxt", deploy=True, size=size)
    save_caffemodel(net, tmp_path / "net.caffemodel")
    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "deploy.prototxt"), str(tmp_path / "net.caffemodel"))
    shapes, tops = net.spec.shapes(), net.spec.outputs
    images = {top: 50 * torch.randn(1, shapes[top][1], *size) for top in net.spec.inputs}
    for top, image in images.items():
        theirs.setInput(image.numpy(), top)
    for (top, ours), score in zip(net.run(tops, images).items(), theirs.forward(tops), strict=True):
        assert relative(ours, score) < OPENCV, top


# --- spellings --------------------------------------------------------------------------------------------------

SPELLINGS = [
    (conv("kernel_size: 3"), conv("kernel_h: 3 kernel_w: 3")),
    (conv("kernel_size: 3"), conv("kernel_size: [3, 3] pad: 0 stride: 1 dilation: [1, 1] group: 1 engine: CUDNN")),
    (conv("kernel_size: 3 kernel_size: 5"), conv("kernel_h: 3 kernel_w: 5")),
    (conv("kernel_size: 3 pad_h: 2"), conv("kernel_size: 3 pad: [2, 0]")),
    (conv("kernel_size: 3 stride_h: 2 stride_w: 1"), conv("kernel_size: 3 stride: [2, 1]")),
    (conv("kernel_size: 3 axis: 1"), conv("kernel_size: 3 force_nd_im2col: false")),
    (conv("kernel_size: 1", "param { lr_mult: 0 }"), conv("kernel_size: 1", "param { lr_mult: 0 decay_mult: 1 }")),
    (conv("kernel_size: 1", "param { }"), conv("kernel_size: 1", 'param { name: "w" decay_mult: 1 }')),
    (conv("kernel_size: 1"), conv("kernel_size: 1", "propagate_down: false")),
    (
        use("Pooling", "pooling_param { kernel_h: 2 kernel_w: 2 stride: 2 }"),
        use("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride_h: 2 stride_w: 2 round_mode: CEIL }"),
    ),
    (loss(""), loss("loss_param { normalize: true }")),
    (loss(""), loss("loss_param { normalization: VALID normalize: false } loss_weight: 1")),
    (loss("loss_param { normalize: false }"), loss("loss_param { normalization: BATCH_SIZE }")),
    (use("Crop", "", TWO), use("Crop", "crop_param { axis: 2 }", TWO)),
    (use("Concat", "concat_param { concat_dim: 1 }", TWO), use("Concat", "concat_param { axis: 1 }", TWO)),
    (use("Slice", "slice_param { slice_dim: 1 }"), use("Slice", "slice_param { axis: 1 }")),
    (use("Eltwise", "", TWO), use("Eltwise", "eltwise_param { stable_prod_grad: false }", TWO)),
    (
        use("ReLU"),
        'layer { name: "x" type: "ReLU" bottom: "data" top: "x" }'
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 40 input_dim: 40',
    ),
    (
        use("ReLU"),
        'input: "data" input_shape { dim: [1, 3, 40, 40] } layers { name: "x" type: RELU bottom: "data" top: "x" }',
    ),
    (
        conv("kernel_size: 1", "param { lr_mult: 0.5 decay_mult: 0 } param { lr_mult: 2 }"),
        'input: "data" input_shape { dim: [1, 3, 40, 40] } layers { name: "x" type: CONVOLUTION bottom: "data" top: "x"'
        "blobs_lr: 0.5 blobs_lr: 2 weight_decay: 0 convolution_param { num_output: 4 kernel_size: 1 } }",
    ),
    (
        loss("").replace('top: "x"', 'top: "loss"').replace('name: "x"', 'name: "loss"'),
        'input: "data" input_shape { dim: [1, 3, 40, 40] } input: "label" input_shape { dim: [1, 1, 40, 40] }'
        'layers { name: "loss" type: SOFTMAX_LOSS bottom: "data" bottom: "label" }',
    ),
    (
        use("Eltwise", "", TWO),
        DATA
        + 'layer { name: "s" type: "Split" bottom: "data" top: "data_0" top: "data_1" }'
        + layer("Eltwise", bottom='bottom: "data_0" bottom: "data_1"'),
    ),
    (use("ReLU"), DATA + LABEL + layer("ReLU") + layer("Accuracy", "", "acc", 'bottom: "x" bottom: "label"', "acc")),
]


@pytest.mark.parametrize("pair", SPELLINGS, ids=range(len(SPELLINGS)))
def test_spellings_mean_the_same(pair: tuple[str, str]) -> None:
    assert parse(pair[0]) == parse(pair[1])


def test_phases_levels_and_stages() -> None:
    text = DATA + "".join(
        layer("ReLU", rule, name=f"x{i}", top=f"x{i}")
        for i, rule in enumerate(
            (
                "",
                "include { phase: TRAIN }",
                "exclude { phase: TRAIN }",
                "include { min_level: 1 max_level: 2 }",
                'include { stage: "deploy" not_stage: "small" }',
                'include { phase: TRAIN } include { stage: "small" }',
            )
        )
    )

    def stand(**state: object) -> str:
        return "".join(entry.name[1:] for entry in parse(text, **state).layers[1:])

    assert stand() == "02"
    assert stand(phase="TRAIN") == "015"
    assert stand(level=2) == "023" and stand(level=3) == "02"
    assert stand(stages=("deploy",)) == "024" and stand(stages=("deploy", "small")) == "025"
    assert "".join(e.name[1:] for e in parse('state { stage: "deploy" }' + text).layers[1:]) == "024"


def test_data_layers_become_inputs(tmp_path: Path) -> None:
    python = layer("Python", 'top: "depth" top: "label"', "color", "", "color")
    concat = layer("Concat", "", "data", 'bottom: "color" bottom: "depth"', "data")
    judge = layer("SoftmaxWithLoss", "", "loss", 'bottom: "data" bottom: "label"', "loss")
    spec = parse(python + concat + judge, inputs={"depth": 1})
    assert spec.inputs == ("color", "depth") and spec.labels == ("label",)
    assert [x.shape for x in spec.layers[:3]] == [(1, 3, 500, 500), (1, 1, 500, 500), (1, 1, 500, 500)]
    relu = layer("ReLU", "", "r", 'bottom: "color"', "r")
    for kind, rest, shape in (
        ("Data", "transform_param { crop_size: 227 }", (1, 3, 227, 227)),
        ("ImageData", "image_data_param { new_height: 30 new_width: 40 is_color: false }", (1, 1, 30, 40)),
        ("MemoryData", "memory_data_param { channels: 4 height: 5 width: 6 }", (1, 4, 5, 6)),
        ("HDF5Data", 'hdf5_data_param { source: "x" }', (1, 3, 500, 500)),
    ):
        # The label feeds no loss, so nothing reads it: no input.
        made = parse(layer(kind, rest + ' top: "label"', "color", "", "color") + relu).layers
        assert made[0] == L.Input(name="color", tops=("color",), shape=shape) and len(made) == 2
    assert parse(python + relu, inputs={"color": (2, 8, 9)}).layers[0].shape == (1, 2, 8, 9)


# --- what is refused --------------------------------------------------------------------------------------------

REFUSED = [
    ("", "no layer computes anything"),
    (DATA, "no layer computes anything"),
    ("layer {", "line 1"),
    ("nonsense", "line 1"),
    (
        DATA + "\n" + layer("Interp", "interp_param { }"),
        'line 2, column 58: Message type "LayerParameter" has no field',
    ),
    (use("Upsample"), "'x' (Upsample): this type is not supported"),
    (DATA + 'layers { name: "x" type: RELU }', "both `layer` and `layers`"),
    ('layers { layer { name: "x" type: "conv" } }', 'no field named "layer"'),
    ('input: "data" input_dim: 1 ' + layer("ReLU"), "1 inputs with 1 shapes"),
    ('layer { name: "data" type: "Input" top: "data" }' + layer("ReLU"), "no proper shape"),
    (DATA.replace("dim: 3", "dim: 0") + layer("ReLU"), "no proper shape"),
    (DATA.replace("dim: 3", "") + layer("ReLU"), "3 axes"),
    (DATA + DATA, "another layer makes 'data'"),
    (use("ReLU") + layer("ReLU", top="y"), "two layers bear the name 'x'"),
    (use("ReLU", "", "nothing"), "'nothing', which nothing made"),
    (use("ReLU", name=""), "no name"),
    (use("ReLU", "", TWO), "2 bottoms"),
    (use("ReLU", 'top: "y"'), "2 tops"),
    (use("ReLU", "blobs { data: 1 }"), "weights"),
    (use("ReLU", "loss_weight: 1"), "loss_weight"),
    (use("ReLU", "param { }"), "1 `param` for 0 blobs"),
    (use("ReLU", "include { phase: TEST } exclude { phase: TRAIN }"), "include and exclude"),
    (use("Split", 'top: "y"'), "nothing reads 'x'"),
    (use("Dropout", "phase: TRAIN"), "another phase"),
    (use("Dropout", "dropout_param { dropout_ratio: 1 }"), "dropout_ratio"),
    (use("Scale", "", TWO), "2 bottoms"),
    (use("Scale", "scale_param { num_axes: 0 }"), "num_axes"),
    (use("Scale", "scale_param { axis: 2 }"), "axis"),
    (use("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"), "norm_region"),
    (use("LRN", "lrn_param { local_size: 4 }"), "odd"),
    (use("Softmax", "softmax_param { axis: 2 }"), "axis: 1"),
    (use("Concat", "concat_param { axis: 0 }", TWO), "axis: 1"),
    (use("Concat", "concat_param { axis: 1 concat_dim: 1 }", TWO), "older name"),
    (use("Slice", "slice_param { axis: 2 }"), "axis: 1"),
    (DATA + 'layer { name: "x" type: "Slice" bottom: "data" }', "0 tops"),
    (DATA + 'layer { name: "x" type: "Slice" bottom: "data" top: "a" top: "b" }', "do not divide"),
    (use("Slice", "slice_param { slice_point: 1 }"), "1 tops need 0 slice_point"),
    (use("AbsVal", name="data", top="data"), "in place"),
    (use("BatchNorm", "param { lr_mult: 1 }"), "lr_mult: 0"),
    (use("Bias", "bias_param { num_axes: 0 }"), "num_axes"),
    (use("Crop", "crop_param { axis: 1 }", TWO), "axis: 2"),
    (use("Crop", "crop_param { offset: 1 }", TWO), "do not fit"),
    (use("Eltwise", "eltwise_param { coeff: 1 }", TWO), "coefficients"),
    (use("Eltwise", "eltwise_param { operation: PROD coeff: [1, 1] }", TWO), "coefficients"),
    (use("Pooling"), "kernel_size is missing"),
    (use("Pooling", "pooling_param { kernel_size: 2 pool: STOCHASTIC }"), "STOCHASTIC"),
    (use("Pooling", "pooling_param { kernel_size: 3 pad: 2 }"), "half the kernel"),
    (use("Pooling", "pooling_param { global_pooling: true kernel_size: 3 }"), "global_pooling"),
    (use("Pooling", "pooling_param { kernel_size: 3 }", top="data"), "in place"),
    (use("InnerProduct", "inner_product_param { num_output: 2 transpose: true }"), "transpose"),
    (conv(""), "kernel_size is missing"),
    (conv("kernel_size: 0"), "at least 1"),
    (conv("kernel_size: 50"), "smaller than its kernel"),
    (conv("kernel_h: 3"), "at least 1"),
    (conv("kernel_size: 3 kernel_h: 3 kernel_w: 3"), "keep one spelling"),
    (conv("kernel_size: [3, 3, 3]"), "3 times"),
    (conv("kernel_size: 3 pad: -1"), "line 1"),
    (conv("kernel_size: 3 axis: 2"), "axis"),
    (conv("kernel_size: 3 force_nd_im2col: true"), "force_nd_im2col"),
    (conv("kernel_size: 3 group: 2"), "do not divide"),
    (conv("kernel_size: 3 hole: 2"), 'no field named "hole"'),
    (conv("kernel_size: 3 weight_filler { sparse: 3 }"), "sparse"),
    (conv("kernel_size: 3 weight_filler { type: 'msra' variance_norm: FAN_OUT }"), "variance_norm"),
    (conv("kernel_size: 9000").replace("dim: 40", "dim: 9000"), "more than a file holds"),
    (conv("kernel_size: 3000000").replace("dim: 40", "dim: 3000000"), "a blob of more than 2^31 numbers"),
    (conv("kernel_size: 3 weight_filler { type: 'none' }"), "unknown filler"),
    (conv("kernel_size: 3 weight_filler { type: 'gaussian' std: -1 }"), "std -1 is below 0"),
    (conv("kernel_size: 3 weight_filler { type: 'uniform' min: 2 }"), "min 2 is not below its max 1"),
    (conv("kernel_size: 3 weight_filler { value: nan }"), "finite"),
    (use("Deconvolution", "convolution_param { num_output: 4 kernel_size: 2 pad: 30 }"), "leaves nothing"),
    (conv("kernel_size: 3") + layer("ReLU", "propagate_down: false", "y", 'bottom: "x"', "y"), "propagate_down"),
    (
        conv("kernel_size: 1", 'param { name: "w" }') + conv("kernel_size: 1", 'param { name: "w" }')[len(DATA) :],
        "another layer makes",
    ),
    (
        conv("kernel_size: 1", 'param { name: "w" }')
        + layer("Convolution", 'param { name: "w" } convolution_param { num_output: 4 }', "y", top="y"),
        "shares 'w' with 'x'",
    ),
    (loss("softmax_param { axis: 2 }"), "axis"),
    (
        DATA
        + layer("InnerProduct", "inner_product_param { num_output: 2 }")
        + layer("Scale", "", "y", 'bottom: "x"', "y"),
        "cannot work on 1 x 2",
    ),
]


@pytest.mark.parametrize("text, words", REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_the_file_and_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parse(text)
    told = str(refusal.value)
    assert told.startswith("net.prototxt: ") and words in told and "\n" not in told and len(told) < 400


def test_arguments_are_checked() -> None:
    with pytest.raises(BadInput, match="TRAIN nor TEST"):
        parse(use("ReLU"), phase="test")
    with pytest.raises(BadInput, match="makes depth"):
        parse(use("ReLU"), inputs={"depth": 1})


def test_prototxt_files_that_are_none(tmp_path: Path) -> None:
    for name, content, words in (
        ("empty", b"", "empty"),
        ("binary", b"\x0a\xff\xfe", "not a text file"),
        ("filler", conv("kernel_h: 1 kernel_w: 3 weight_filler { type: 'bilinear' }").encode(), "square kernels"),
        ("large", b" " * (prototxt.TEXT_LIMIT + 1), "too large"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name}.*{words}"):
            load_prototxt(tmp_path / name)
    with pytest.raises(BadInput, match="no such file"):
        load_prototxt(tmp_path / "missing")
    with pytest.raises(BadInput, match="not a file"):
        load_prototxt(tmp_path)
    with pytest.raises(BadInput, match="cannot be written"):
        save_prototxt(Net(parse(conv("kernel_size: 1"))), tmp_path / "empty" / "net.prototxt")


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Net:
    """Two convolutions under names that torch refuses, with random weights."""
    torch.manual_seed(1)
    first = layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", "conv1.1", top="x")
    second = layer("Convolution", "convolution_param { num_output: 2 kernel_size: 1 }", "type", 'bottom: "x"', "type")
    net = Net(parse(f'name: "small" {DATA}{first}{second}'))
    for blob in net.parameters():
        torch.nn.init.normal_(blob)
    return net


def message_of(net: Net) -> caffe_pb2.NetParameter:
    """The net with its weights, made by protobuf alone."""
    message = prototxt.net_message(net.spec)
    for entry in message.layer:
        if entry.type != "Input":
            for blob in net.layer(entry.name).parameters():
                entry.blobs.add(shape=caffe_pb2.BlobShape(dim=blob.shape), data=blob.detach().ravel().tolist())
    return message


def zeros(net: Net) -> Net:
    return Net(net.spec)


def same(a: Net, b: Net) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_our_file_is_protobufs(small: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    save_caffemodel(small, path)
    assert caffe_pb2.NetParameter.FromString(path.read_bytes()) == message_of(small)
    again = zeros(small)
    assert load_caffemodel(again, path).copied == list(small.state_dict()) and same(small, again)


def test_protobufs_file_is_read(small: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    message = message_of(small)
    for entry in message.layer[1:]:  # as Caffe does in double precision, gradients included
        for blob in entry.blobs:
            blob.double_data.extend(blob.data)
            blob.double_diff.extend(blob.data)
            blob.ClearField("data")
    path.write_bytes(message.SerializeToString())
    again = zeros(small)
    load_caffemodel(again, path)
    assert same(small, again)
    assert read_caffemodel(path)["conv1.1"][0].dtype == torch.float64


def test_report_says_what_was_done(small: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    message = message_of(small)
    message.layer[1].blobs[0].shape.CopyFrom(caffe_pb2.BlobShape(dim=[4, 27]))
    message.layer[1].blobs.add(shape=caffe_pb2.BlobShape(dim=[1]), data=[7.0])
    message.layer[2].name = "other"
    path.write_bytes(message.SerializeToString())
    report = load_caffemodel(zeros(small), path)
    assert report.coerced == ["conv1%2E1.weight"] and report.copied == ["conv1%2E1.bias"]
    assert report.dropped == ["conv1%2E1.2", "other.weight", "other.bias"]
    assert report.missing == ["%74ype.weight", "%74ype.bias"]


def test_weights_that_would_be_read_as_others_are_refused(small: Net, tmp_path: Path) -> None:
    """A transposed InnerProduct has as many numbers as an upright one; of 2013's files no layer has a name."""
    path = tmp_path / "net.caffemodel"
    flat = Net(parse(use("InnerProduct", "inner_product_param { num_output: 4 }")))
    message = message_of(flat)
    message.layer[1].inner_product_param.transpose = True
    path.write_bytes(message.SerializeToString())
    with pytest.raises(BadInput, match="the weights of 'x' are transposed"):
        load_caffemodel(flat, path)
    old = wire.key(2, 8) + wire.key(1, 6) + wire.key(1, 4) + b"conv"
    path.write_bytes(caffe_pb2.NetParameter(name="old").SerializeToString() + old)
    with pytest.raises(BadInput, match="format of 2013; upgrade it with Caffe's upgrade_net_proto_binary"):
        load_caffemodel(small, path)


def test_a_file_that_does_not_fit_changes_nothing(small: Net, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    for dims, count, words in (
        ([2, 5], 10, "but"),
        ([4, 4], 15, "15 numbers"),
        ([-1, -4], 4, "4 numbers"),
        ([1] * 33, 1, "33 axes"),
    ):
        message = message_of(small)
        blob = message.layer[2].blobs[0]
        blob.shape.dim[:] = dims
        blob.data[:] = [1.0] * count
        path.write_bytes(message.SerializeToString())
        before = zeros(small)
        with pytest.raises(BadInput, match=f"net.caffemodel.*{words}"):
            load_caffemodel(before, path)
        assert same(before, zeros(small))


def test_weight_files_that_are_none(small: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.caffemodel"
    huge = b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    for content, words in (
        (b"", "empty"),
        (net_to_text(small.spec).encode(), "prototxt defines a net"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (huge, "bytes are missing"),
        (message_of(narrow("voc-fcn32s")).SerializeToString(), "has no layer of small"),
        (prototxt.net_message(small.spec).SerializeToString(), "holds no weights"),
        (b"\x10\x00" * 100_001, "more than"),
        ((FOLDER / "solverstate/tiny_iter_6.solverstate").read_bytes(), "not a whole caffemodel"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=f"net.caffemodel.*{words}"):
            load_caffemodel(small, path)
    with pytest.raises(BadInput, match="no such file"):
        load_caffemodel(small, tmp_path / "missing")
    with pytest.raises(BadInput, match="cannot be written"):
        save_caffemodel(small, path / "net.caffemodel")
    monkeypatch.setattr(binary, "FILE_LIMIT", 100)
    with pytest.raises(BadInput, match="more than Caffe can read"):
        save_caffemodel(small, tmp_path / "new.caffemodel")
    assert not (tmp_path / "new.caffemodel").exists()


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    for name, source in (
        ("v1-small.caffemodel", "v1-small.prototxt"),
        ("solverstate/tiny_iter_0.caffemodel", "solverstate/train.prototxt"),
    ):
        net, whole = load_prototxt(FOLDER / source), (FOLDER / name).read_bytes()
        path = tmp_path / "cut.caffemodel"
        for length in [*range(1, 200), *range(200, len(whole), len(whole) // 100), len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(BadInput, match="cut"):
                load_caffemodel(net, path)


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    """Flipped bytes may go unnoticed in the numbers; elsewhere they are one line."""
    dice = random.Random(1337)
    whole = (FOLDER / "solverstate/tiny_iter_0.caffemodel").read_bytes()
    text = (FOLDER / "solverstate/train.prototxt").read_bytes()
    net = load_prototxt(FOLDER / "solverstate/train.prototxt")
    path, refused = tmp_path / "file", 0
    scraps = [b"0", b"-1", b"1e30", b"4294967295", b'"x"', b"{", b"}", b"nan", b"''", b'"\\xff"', b"<", b"\xff", b""]
    for turn in range(300):
        damaged = bytearray(whole if turn % 3 else dice.randbytes(dice.randint(1, 300)))
        for _ in range(dice.randint(1, 6)):
            damaged[dice.randrange(min(len(damaged), dice.choice((60, 700, 8000))))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            load_caffemodel(net, path)
        except BadInput as error:
            refused += 1
            assert "\n" not in str(error)
        words = text.split(b" ")
        for _ in range(dice.randint(1, 3)):
            words[dice.randrange(len(words))] = dice.choice(scraps)
        path.write_bytes(b" ".join(words))
        try:
            load_prototxt(path)
        except BadInput as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 300
