"""Good and hostile files of Caffe."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from benchmarks.records import FOLDER
from reference import NETS
from reference.caffe import caffe_pb2 as pb
from reference.caffe import net_to_text
from tests.hostile.mutate import EXTREMES, Sample, field, protobuf_cuts, varint

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 40 } } }\n'
# One of each type, and every kind of option.
ALL_TYPES = (
    DATA
    + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  convolution_param { num_output: 6 kernel_h: 3 kernel_w: 5 stride: 2 pad_h: 1 dilation: 1 group: 3
    weight_filler { type: "gaussian" mean: 0.1 std: 0.01 } bias_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" lrn_param { local_size: 3 alpha: 1e-4 beta: 0.75 } }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "scale" type: "Scale" bottom: "pool" top: "scale" scale_param { filler { value: 0.01 } } }
layer { name: "up" type: "Deconvolution" bottom: "scale" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 6 group: 6 kernel_size: 4 stride: 2 bias_term: false
    weight_filler { type: "bilinear" } } }
layer { name: "sum" type: "Eltwise" bottom: "up" bottom: "up" top: "sum" eltwise_param { coeff: 1 coeff: -0.5 } }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "up" top: "cat" concat_param { axis: 1 } }
layer { name: "drop" type: "Dropout" bottom: "cat" top: "cat" dropout_param { dropout_ratio: 0.5 } }
layer { name: "crop" type: "Crop" bottom: "cat" bottom: "conv" top: "crop" crop_param { axis: 2 offset: 1 offset: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "crop" top: "fc" inner_product_param { num_output: 4
    weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST min_level: 0 not_stage: "x" } }
"""
)


def prototxt_samples() -> list[Sample]:
    texts = [
        (FOLDER / "solverstate/train.prototxt").read_text(),
        (FOLDER / "v1-small.prototxt").read_text(),
        ALL_TYPES,
        net_to_text(NETS["voc-fcn16s"](classes=3, width=1 / 64)),
    ]
    return [Sample(text.encode(), text=True) for text in texts]


def layer(kind: str, rest: str, top: str = "x", bottom: str = "data") -> str:
    return f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {rest} }}\n'


def conv(options: str, top: str = "x", bottom: str = "data") -> str:
    return layer("Convolution", f"convolution_param {{ {options} }}", top, bottom)


def hostile_prototxt() -> Iterator[str]:
    """Definitions that ask for too much, go round in circles, or hold numbers that are none."""
    relu = layer("ReLU", "")
    for size in ("0", "-1", "4294967295", "4294967296", "99999999999999999999", "nan", "1e9", "2.5", "true", "'3'"):
        yield DATA + conv(f"num_output: {size} kernel_size: 3")
        for option in ("kernel_size", "stride", "pad", "dilation", "group", "kernel_h", "pad_w", "stride_h"):
            yield DATA + conv(f"num_output: 3 kernel_h: 1 kernel_w: 1 {option}: {size}")
            yield DATA + conv(f"num_output: 3 kernel_size: 1 {option}: {size}").replace("Convol", "Deconvol", 1)
            yield DATA + layer("Pooling", f"pooling_param {{ kernel_size: 2 {option}: {size} }}")
        for kind, options in (
            ("InnerProduct", f"inner_product_param {{ num_output: {size} }}"),
            ("LRN", f"lrn_param {{ local_size: {size} }}"),
            ("LRN", f"lrn_param {{ alpha: {size} beta: {size} k: {size} }}"),
            ("Dropout", f"dropout_param {{ dropout_ratio: {size} }}"),
            ("ReLU", f"relu_param {{ negative_slope: {size} }}"),
            ("Scale", f"scale_param {{ filler {{ value: {size} }} }}"),
            ("Scale", f"scale_param {{ filler {{ type: 'gaussian' std: {size} }} }}"),
            ("Scale", f"scale_param {{ filler {{ type: 'uniform' min: {size} max: -{size} }} }}"),
        ):
            yield DATA + layer(kind, options)
        yield DATA + relu.replace('"x" }', f'"x" param {{ lr_mult: {size} }} }}')
        yield DATA.replace("dim: 3", f"dim: {size}") + conv("num_output: 3 kernel_size: 3")
        yield DATA.replace("dim: 40", f"dim: {size}") + conv("num_output: 3 kernel_size: 3")
        yield f'input: "data" input_dim: 1 input_dim: {size} input_dim: 9 input_dim: 9 ' + relu
    for filler in ("bilinear", "gaussian", "uniform", "msra", "none", "", "\\xff", "os.system"):
        for blob in ("weight_filler", "bias_filler"):
            yield DATA + conv(f'num_output: 3 kernel_h: 3 kernel_w: 5 {blob} {{ type: "{filler}" std: -1 min: 5 }}')
    grey = DATA.replace("dim: 3", "dim: 1")
    yield DATA + conv("num_output: 170000000 kernel_size: 1 bias_term: false")  # 2 GB of float32, as Caffe allows
    yield grey.replace("dim: 40", "dim: 30000") + conv("num_output: 1 kernel_size: 20000")
    yield grey.replace("dim: 40", "dim: 9999") + conv(
        "num_output: 1 kernel_size: 8000 weight_filler { type: 'bilinear' }"
    )
    yield DATA.replace("dim: 1 ", "dim: 4611686018427387904 ") + relu
    yield DATA.replace("dim: 40", "dim: 2147483647") + relu
    # Circles, and names that refer to themselves or to what comes later.
    yield DATA + layer("ReLU", "", "a", "b") + layer("ReLU", "", "b", "a")
    yield layer("ReLU", "", "data", "data")
    yield DATA + layer("Split", "", "data", "data") + relu
    yield DATA + layer("Split", 'top: "b"', "a", "data") + layer("Split", 'top: "a"', "b", "b")
    yield DATA + DATA
    yield DATA + layer("Crop", "", "x", "x") + layer("Eltwise", "", "y", "y")
    yield layer("Python", 'python_param { module: "os" layer: "system" param_str: "touch pwned" }') + relu
    yield DATA + layer("Python", 'python_param { module: "os" layer: "system" param_str: "touch pwned" }')
    for kind in ("HDF5Data", "ImageData", "Data"):
        yield layer(kind, f"{'data' if kind == 'Data' else 'image_data'}_param {{ source: '/etc/passwd' }}") + relu
    # Sums that double at every layer: 2 ** 2000 channels.
    yield DATA + "".join(
        layer("Concat", f'bottom: "{i - 1 if i else "data"}"', str(i), str(i - 1 if i else "data")) for i in range(2000)
    )
    # As many layers, bottoms, dimensions and brackets as a file may hold.
    yield DATA + "".join(layer("ReLU", "", str(i), str(i - 1 if i else "data")) for i in range(13_000))
    yield DATA + "".join(layer("ReLU", "", "data").replace('"data" type', f'"{i}" type') for i in range(13_000))
    yield DATA + layer("Concat", 'bottom: "data" ' * 30_000)
    yield DATA + layer("Eltwise", "eltwise_param { coeff: 1 }" * 20_000)
    yield "layer { input_param { shape { " + "dim: 1 " * 50_000 + "} } }"
    for nest in ("layer {", "layer { input_param { shape {", "[", "<", "{", "[type.googleapis.com/x] {", "("):
        yield nest * (2**19 // len(nest))
    yield 'name: "' + "x" * 10**6 + '"' + DATA + layer("Unknown", "")
    yield DATA + layer("U" * 10**6, "")
    yield DATA + layer("ReLU", "", "y", "b" * 10**6)
    for name in (
        "a\\nb",
        "\\x1b[2J\\x07",
        "\\xff\\xfe",
        "\\000",
        "..",
        "../../x",
        "",
        "%",
        "%2E",
        "\u202e",
        "__class__",
    ):
        yield f'name: "{name}" ' + DATA + layer("ReLU", "", name) + layer("ReLU", "", name)
        yield f'name: "{name}" ' + DATA + layer("ReLU", "", name)
        yield f'name: "{name}" ' + DATA + layer(name, "")
        yield f'name: "{name}" ' + DATA + layer("ReLU", "", "x", name)


def caffemodel_samples() -> list[Sample]:
    files = ("solverstate/tiny_iter_0.caffemodel", "solverstate/tiny_iter_6.caffemodel")
    contents = [(FOLDER / file).read_bytes() for file in files]
    return [Sample(content, protobuf_cuts(content)) for content in contents]


def v1_samples() -> list[Sample]:
    content = (FOLDER / "v1-small.caffemodel").read_bytes()
    return [Sample(content, protobuf_cuts(content))]


NEW, OLD = (100, 1, 7), (2, 4, 6)  # fields of the layers in a net; of the name and of the blobs in a layer


def hostile_caffemodel(fields: tuple[int, int, int] = NEW, layer_name: bytes = b"conv1") -> Iterator[bytes]:
    """Weights of impossible shapes, lengths and names."""
    layers, name, blobs = fields

    def file(*contents: bytes, called: bytes = layer_name) -> bytes:
        parts = b"".join(field(blobs, content) for content in contents)
        return field(layers, field(name, called) + parts)

    def blob(dims: list[int], numbers: int = 4, data: int = 5) -> bytes:
        shape = field(1, b"".join(varint(dim % 2**64) for dim in dims))
        return field(7, shape) + field(data, struct.pack("<f", float("nan")) * numbers)

    for dim in (0, 1, 4, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -1, -4, -(2**63)):
        for dims in ([dim], [dim, dim], [dim] * 32, [0, dim], [dim, 0], [0, dim, dim], [2, dim, 2], [dim] * 33):
            for numbers in (0, 1, 4):
                yield file(blob(dims, numbers))
        for legacy in range(1, 5):
            yield file(varint(legacy << 3) + varint(dim % 2**64) + field(5, bytes(16)))
    for data in (6, 8, 9, 5):
        for extra in (b"", b"\0", b"\0" * 3):
            yield file(field(7, field(1, b"\1")) + field(data, bytes(8) + extra))
    for length in (2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1):
        for number in (1, 100, 2):
            yield varint(number << 3 | 2) + varint(length)
            yield file(blob([4]))[:-16] + varint(5 << 3 | 2) + varint(length) + bytes(16)
    for called in (b"", b"\xff\xfe", b"a\nb", b"\x1b[2J", b".", b"..", b"x" * 10**6, b"conv1.weight", b"__init__"):
        yield file(blob([4]), called=called)
    yield file(*[blob([1], 1)] * 5000)
    yield file(blob([4])) * 5000
    yield file(b"") * 20_000
    yield b"\x0a\x00" * 99_000
    yield file(field(7, b"") * 90_000)
    yield file(field(7, field(1, b"\1" * 90_000)) + field(5, bytes(4)))
    yield b"".join([b"\x0b" * 100_000])  # groups in groups
    nested = b""
    for _ in range(3000):
        nested = field(25, nested)
    yield nested
    yield b"\x80" * 100_000
    yield bytes(100_000)
    yield b"\x1f\x8b\x08" + bytes(500)  # gzip
    yield b"PK\x03\x04" + bytes(500)  # zip: a torch checkpoint
    yield b"\x80\x04\x95" + b"cos\nsystem\n(S'touch pwned'\ntR."  # a pickle
    empty = pb.NetParameter(name="x" * 1000)
    yield empty.SerializeToString()


def hostile_v1() -> Iterator[bytes]:
    return hostile_caffemodel(OLD, b"conv1_1")


def solverstate_samples() -> list[Sample]:
    content = (FOLDER / "solverstate/tiny_iter_6.solverstate").read_bytes()
    return [Sample(content, protobuf_cuts(content))]


def hostile_solverstate() -> Iterator[bytes]:
    """Counts, names and histories that are none."""
    good = solverstate_samples()[0].content
    for number in EXTREMES:
        yield good + varint(1 << 3) + varint(number % 2**64)
        yield good + varint(4 << 3) + varint(number % 2**64)
        yield good + varint(3 << 3 | 2) + varint(number % 2**64)
        yield good + field(3, varint(1 << 3) + varint(number % 2**64))
    for name in (b"", b"\xff\xfe", b"../../../etc/passwd", b"a\nb\x1b[2J", b"x" * 10**6, b"\0"):
        yield good + field(2, name)
    yield good * 2
    yield good + field(3, b"") * 50_000
    yield from hostile_caffemodel((3, 1, 7))
