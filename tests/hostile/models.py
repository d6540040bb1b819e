"""Good and hostile ONNX models, and what stands beside the engine that is built of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph import to_model
from reference import build
from runtime.sidecar import Sidecar
from tests.hostile.mutate import EXTREMES, Sample, field, protobuf_cuts, varint
from tests.runtime.models import CLASSES, metadata, model


def onnx_samples() -> list[Sample]:
    """A convolution's scores, its labels, also of pixels, and a narrow FCN as the exporter writes it."""
    net = to_model(build("voc-fcn8s", classes=5, width=1 / 64), "labels")
    helper.set_model_props(net, metadata("labels", output=net.graph.output[0].name).to_properties())
    files = [made.SerializeToString() for made in (model(), model("labels"), net, model("image"))]
    return [Sample(file, protobuf_cuts(file)) for file in files]


def node(op: str, bottoms: list[str], top: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, bottoms, [top], **attributes)


def graph(nodes: list[NodeProto], constants: dict[str, Any] | None = None, output: int = TensorProto.FLOAT) -> bytes:
    """A model of these nodes between data and score, with metadata that makes it one of ours."""
    shape = ["N", len(CLASSES), "H", "W"]
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("score", output, shape)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.array(value), name)
            for name, value in (constants or {}).items()
        ],
    )
    return finish(made)


def finish(made: onnx.GraphProto, properties: dict[str, str] | None = None) -> bytes:
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(whole, metadata().to_properties() if properties is None else properties)
    return whole.SerializeToString()


def tensor(dims: list[int], kind: int = TensorProto.FLOAT, raw: bytes = b"", name: str = "w") -> TensorProto:
    """A tensor whose dimensions say what they like."""
    return TensorProto(name=name, dims=dims, data_type=kind, raw_data=raw)


def hostile_onnx() -> Iterator[bytes]:
    """Graphs that are none, tensors that lie, weights in other people's files, and work without end."""
    yield from bad_metadata()
    yield from bad_tensors()
    yield from bad_graphs()
    good = model().SerializeToString()
    for length in (2**31, 2**40, 2**63 - 1, 2**64 - 1):
        yield varint(7 << 3 | 2) + varint(length)
        yield good + varint(7 << 3 | 2) + varint(length)
    nested = b""
    for _ in range(5000):  # a graph in an attribute of a node of a graph ...
        nested = field(1, field(5, field(6, nested)))
    yield field(7, nested)
    yield good * 50
    yield good + field(14, field(1, b"\xff\xfe") + field(2, b"\xff\xfe"))
    yield good + field(14, field(1, b"fcn.net") + field(2, b"\xff\xfe"))
    yield good + b"".join(field(14, field(1, b"k%d" % i) + field(2, b"v" * 20)) for i in range(20_000))
    yield bytes(10**6)
    yield b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."


def bad_metadata() -> Iterator[bytes]:
    """Descriptions that contradict themselves, the graph, or JSON."""
    good = metadata().to_properties()
    scraps = (
        *(
            "",
            "null",
            "true",
            "0",
            "-1",
            "1.5",
            "1e999",
            "NaN",
            "-Infinity",
            "9" * 5000,
            '"x"',
            "[]",
            "{}",
            "[[]]",
            "x",
        ),
        *("[" * 100_000, '{"a":' * 50_000, '["\\ud800"]', '["\\u0000", "a\\nb", "\\u001b[2J", "d", "e"]', "[1, 2, 3]"),
        *('["a", "b", "c"]', "[1e300, 1e300, 1e300]", "[-1e30, 0, 0]", "[[0, 0, 0]]", "[[256, 0, 0]]", "[null]"),
        *('"abcde"', "[" + "1," * 50_000 + "1]", '{"a": 1, "a": 2}', "[true, true, true]", "data", "score", "labels"),
    )
    for key in good:
        made = model(properties={k: v for k, v in good.items() if k != key})
        yield made.SerializeToString()
        for scrap in scraps:
            yield model(properties={**good, key: scrap}).SerializeToString()
    names = [["\ud800"] * 5, ["a\nb", "\x1b[2J", "\u202e", "", " "], ["x" * 10**5] * 5]
    for classes in names:
        yield model(properties={**good, "fcn.classes": json.dumps(classes)}).SerializeToString()
    for mean in ([1e300] * 3, [float("nan")] * 3, [1e39] * 3, [-1e38] * 3):
        yield model(properties={**good, "fcn.mean": json.dumps(mean)}).SerializeToString()


def bad_tensors() -> Iterator[bytes]:
    conv = [node("Conv", ["data", "w"], "score")]
    for dim in EXTREMES:
        for dims in ([dim], [dim, 3, 1, 1], [5, 3, dim, 1], [dim] * 4, [5, 3, dim, dim], [0, dim, dim, dim]):
            for raw in (b"", bytes(60)):
                yield graph(conv, {"w": tensor(dims, raw=raw)})
    for kind in (*range(25), 99, 2**31 - 1):
        yield graph(conv, {"w": tensor([5, 3, 1, 1], kind, bytes(60))})
    for numbers in (np.nan, np.inf, -np.inf, 3e38):
        yield graph(conv, {"w": np.full((5, 3, 1, 1), numbers, np.float32)})
    places = (
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "..",
        ".",
        "",
        "/dev/zero",
        "/dev/stdin",
        "model.onnx",
    )
    for place in (*places, "\0", "a\nb", "/proc/self/mem", "x" * 5000, "file:///etc/passwd", "C:\\x"):
        for offset, length in ((0, 60), (-1, 60), (0, -1), (10**30, 60), (0, 2**62)):
            yield outside(place, offset, length)


def outside(place: str, offset: int, length: int) -> bytes:
    """A model whose weights lie in another file."""
    weight = TensorProto(name="w", dims=[5, 3, 1, 1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", str(offset)), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    return graph([node("Conv", ["data", "w"], "score")], {"w": weight})


def bad_graphs() -> Iterator[bytes]:
    weight = {"w": np.ones((5, 3, 1, 1), np.float32)}
    for size in (0, -1, 2, 2**15, 2**31 - 1, 2**31, 2**62, -(2**63)):
        for name, value in (("strides", [size] * 2), ("pads", [size] * 4), ("dilations", [size] * 2), ("group", size)):
            yield graph([node("Conv", ["data", "w"], "score", **{name: value})], weight)
        yield graph(
            [node("MaxPool", ["data"], "p", kernel_shape=[size] * 2), node("Conv", ["p", "w"], "score")], weight
        )
        yield graph(
            [node("ConvTranspose", ["data", "w"], "score", strides=[size] * 2)], {"w": np.ones((3, 5, 2, 2), "f")}
        )
        for op in ("ConstantOfShape", "Expand", "Tile", "Reshape"):
            given = {"ConstantOfShape": ["s"], "Expand": ["c", "s"], "Tile": ["c", "s"], "Reshape": ["c", "s"]}[op]
            constants = {"s": np.array([1, 5, size, size]), "c": np.ones((1, 5, 1, 1), "f")}
            yield graph([node(op, given, "x"), node("Add", ["x", "x"], "score")], constants)
        yield graph([node("Range", ["a", "b", "c"], "score")], {"a": 0, "b": size, "c": 1})
        yield graph([node("Range", ["a", "b", "c"], "score")], {"a": 0.0, "b": float(size), "c": 1e-30})
    # Circles.
    yield graph([node("Add", ["data", "score"], "score")])
    yield graph([node("Relu", ["b"], "a"), node("Relu", ["a"], "b"), node("Conv", ["data", "w"], "score")], weight)
    yield graph([node("Relu", ["score"], "score")])
    yield graph([node("Relu", ["data"], "data"), node("Conv", ["data", "w"], "score")], weight)
    yield graph([], {})
    yield graph([node("Conv", ["data", "w"], "score")] * 2, weight)
    yield graph([node("Conv", ["data", "nothing"], "score")])
    yield graph([node("Conv", [], "score")])
    yield graph([node("Conv", ["data", "w"] * 2000, "score")], weight)
    yield graph([node(op, ["data"], "score") for op in ("", "\xff", "Python", "PyOp", "os.system")])
    yield graph([node("PyOp", ["data"], "score", domain="ai.onnx.contrib", module="os", compute="system")])
    yield graph([node("EPContext", ["data"], "score", domain="com.microsoft", ep_cache_context="/etc/passwd")])
    # Other types than float32, other sizes than promised.
    for kind in range(25):
        if kind not in (0, 8):
            yield graph([node("Conv", ["data", "w"], "x"), node("Cast", ["x"], "score", to=kind)], weight, kind)
    yield graph([node("Conv", ["data", "w"], "x"), node("SequenceConstruct", ["x"], "score")], weight)
    for shape in ([1], [0], [1, 2], [1, 7, 9, 8], [0, 5, 9, 8], [1, 5, 9, 9], [], [1, 300, 9, 8]):
        made = node("ConstantOfShape", ["s"], "score")
        one = helper.make_graph(
            [made], "g", [_input()], [helper.make_empty_tensor_value_info("score")], [_sizes(shape)]
        )
        one.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        yield finish(one)
    # Work without end: a loop that never ends is cut off by its bound here; the nest of branches by its depth.
    body = helper.make_graph(
        [node("Identity", ["go"], "again"), node("Identity", ["x"], "y")],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("go", 9, []), ("x", 1, None))],
        [helper.make_tensor_value_info("again", 9, []), helper.make_tensor_value_info("y", 1, None)],
    )
    loop = helper.make_node("Loop", ["many", "yes", "data"], ["z"], body=body)
    yield graph([loop, node("Conv", ["z", "w"], "score")], {**weight, "many": 1000, "yes": True})
    inner = helper.make_graph([node("Identity", ["data"], "out")], "g", [], [_out()])
    for _ in range(25):
        both = {
            "then_branch": inner,
            "else_branch": helper.make_graph([node("Identity", ["data"], "out")], "e", [], [_out()]),
        }
        inner = helper.make_graph([node("If", ["yes"], "out", **both)], "g", [], [_out()])
    yield graph([*inner.node, node("Conv", ["out", "w"], "score")], {**weight, "yes": True})
    chain = [node("Relu", [f"t{i - 1}" if i else "data"], f"t{i}") for i in range(3000)]
    yield graph([*chain, node("Conv", ["t2999", "w"], "score")], weight)
    doubling = [node("Concat", [f"t{i - 1}" if i else "data"] * 2, f"t{i}", axis=1) for i in range(40)]
    yield graph([*doubling, node("Conv", ["t39", "w"], "score")], weight)
    swap = helper.make_node("Conv", ["data", "w"], ["score"])
    swap.attribute.append(AttributeProto(name="group", type=AttributeProto.STRING, s=b"\xff"))
    yield graph([swap], weight)


def _input() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, "H", "W"])


def _out() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("out", TensorProto.FLOAT, None)


def _sizes(shape: list[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(shape, np.int64), "s")


# --- beside an engine -----------------------------------------------------------------------------------------


def _sidecar() -> dict[str, Any]:
    shapes = {end: [1, 3, size, size] for end, size in (("min", 1), ("opt", 500), ("max", 1000))}
    return asdict(
        Sidecar(
            backend="tensorrt",
            version="10.16.1.11",
            cuda="13.0",
            driver="580.1",
            gpu="NVIDIA L4",
            capability="8.9",
            targets=[],
            profiles=[shapes],
            precision={"FLOAT": 51},
            tf32=False,
            version_compatible=False,
            hardware_compatibility="none",
            onnx="model.onnx",
            onnx_sha256="0" * 64,
            plan_sha256="0" * 64,
            metadata=metadata().to_properties(),
        )
    )


def sidecar_samples() -> list[Sample]:
    return [Sample(json.dumps(_sidecar(), indent=indent).encode(), text=True) for indent in (2, None)]


def hostile_sidecar() -> Iterator[bytes]:
    good = _sidecar()
    scraps = (
        None,
        7,
        -1,
        2**70,
        1e400,
        True,
        "",
        "x",
        "\x1b[2J",
        "\ud800",
        "; touch pwned",
        "$(touch pwned)",
        [],
        {},
        [[]],
    )
    shapes = ([0] * 4, [-1] * 4, [2**62] * 4, [1] * 40, ["1"] * 4, [1.5] * 4, 7)
    for key in good:
        yield from (json.dumps({**good, key: scrap}).encode() for scrap in scraps)
        yield json.dumps({name: value for name, value in good.items() if name != key}).encode()
    for shape in shapes:
        for end in ("min", "opt", "max", "another"):
            yield json.dumps({**good, "profiles": [{**good["profiles"][0], end: shape}]}).encode()
    for key in good["metadata"]:
        yield json.dumps({**good, "metadata": {**good["metadata"], key: "[" * 10**5}}).encode()
    yield b"[" * 10**6
    yield b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR."
