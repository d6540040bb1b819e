"""Caffe's net definitions (prototxt) against our NetSpec."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format

from fcn.cli import BadInput
from fcn.files import atomic, existing
from reference.builder import DEPLOY_SIZE
from reference.caffe import caffe_pb2 as pb
from reference.caffe import options
from reference.caffe.upgrade import layers_of
from reference.layers import TYPES, Input, Layer, Pair, Param, Shape
from reference.net import Net, NetSpec

# Layers that make images and labels, when they have no bottom: each of their tops becomes an Input.
DATA = {"Data", "HDF5Data", "ImageData", "MemoryData", "Python"}
# Layers that measure or swallow, and leave the scores as they are.
DROPPED = {"Accuracy", "Silence"}
# How many bottoms, where it is not one: at least, at most.
BOTTOMS = {"Crop": (2, 2), "SoftmaxWithLoss": (2, 2), "Eltwise": (2, math.inf), "Concat": (1, math.inf)}
# Types that also take blobs without height and width.
FLAT = {
    *("ReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "Power", "Dropout"),
    *("InnerProduct", "Eltwise", "Concat", "Slice", "Softmax", "SoftmaxWithLoss"),
}
# A text definition is some kilobytes long; ResNet-152's has 130. protobuf reads about one megabyte in a second.
TEXT_LIMIT = 1 << 20
# Caffe reads files of up to 2 GiB, so no net of its has more weights.
WEIGHTS_LIMIT = 2**31 // 4
# Caffe counts the numbers of a blob in an int (blob.cpp: Reshape).
BLOB_LIMIT = 2**31 - 1

Channels = int | tuple[int, int, int]


def load_prototxt(
    path: str | Path,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    inputs: Mapping[str, Channels] | None = None,
) -> Net:
    """The net that a Caffe definition describes, with fresh weights; the arguments are `net_from_text`'s.

    Raises BadInput for what cannot be read or is not supported.
    """
    path = existing(path)
    _check_length(path.stat().st_size, path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file; give the prototxt (weights are loaded into a net)") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    spec = net_from_text(text, str(path), phase=phase, level=level, stages=stages, inputs=inputs)
    try:
        return Net(spec)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; correct it") from error
    except RuntimeError as error:  # torch's word for what the memory does not hold
        raise BadInput(f"{path}: its weights do not fit in memory ({error}); check num_output") from error


def save_prototxt(net: Net, path: str | Path, deploy: bool = False, size: Pair | None = None) -> None:
    """Write the definition of `net`, data and labels as Input layers.

    deploy: without losses and labels. size: (height, width) that the Input layers declare; Caffe needs one, and
    readers that cannot reshape a net (OpenCV) take no other. Raises BadInput where `path` cannot be written.
    """
    spec = net.spec.deploy() if deploy else net.spec
    if size:
        resized = (
            replace(layer, shape=(*layer.shape[:2], *size))
            if isinstance(layer, Input) and len(layer.shape) == 4
            else layer
            for layer in spec.layers
        )
        spec = replace(spec, layers=tuple(resized))
    with atomic(path) as temporary:
        temporary.write_text(net_to_text(spec), encoding="utf-8")


def net_to_text(spec: NetSpec) -> str:
    """The definition of a net as Caffe reads it; `net_from_text` gives back an equal spec."""
    return text_format.MessageToString(net_message(spec), as_utf8=True)


def net_message(spec: NetSpec) -> pb.NetParameter:
    """The definition of a net as Caffe's message, without weights."""
    message = pb.NetParameter(name=spec.name)
    for layer in spec.layers:
        entry = message.layer.add(name=layer.name, type=layer.type, bottom=layer.bottoms, top=layer.tops)
        for param in layer.params:
            told = entry.param.add(lr_mult=param.lr_mult)
            # The authors say nothing of the decay of a frozen blob.
            if param != Param(0):
                told.decay_mult = param.decay_mult
        options.write(layer, entry)
    return message


def net_from_text(
    text: str,
    source_name: str,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    inputs: Mapping[str, Channels] | None = None,
    most_weights: int = WEIGHTS_LIMIT,
) -> NetSpec:
    """The net that a text definition describes for one phase, level and set of stages (as Caffe filters layers).

    Data layers become Input layers, one for each top, of the size that they crop to, or else 500 x 500. The second
    bottom of a loss is a label with one channel; other tops have three channels unless `inputs` says otherwise,
    by top: channels, or (channels, height, width). Accuracy and Silence layers are left out, Split layers become
    their bottom. Anything else that is not supported, and a net of more than `most_weights` numbers, raises BadInput,
    naming `source_name`, the layer and the fix.
    """
    if phase not in ("TRAIN", "TEST"):
        raise BadInput(f"phase {phase!r} is neither TRAIN nor TEST")
    _check_length(len(text), source_name)
    net = pb.NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        place = f"line {error.GetLine()}, column {error.GetColumn()}: " if error.GetLine() else ""
        # "12:3 : 'the line that was read': Expected identifier."
        problem = re.sub(r"^\d+:\d+ : |fcn\.caffe\.|\.$", "", str(error).rpartition("': ")[2])
        raise BadInput(f"{source_name}: {place}{problem:.200}; correct or remove it") from error
    state = pb.NetState(phase=pb.Phase.Value(phase), level=level, stage=[*net.state.stage, *stages])
    try:
        layers = layers_of(net, state)
    except ValueError as error:
        raise BadInput(f"{source_name}: {error}") from error
    reader = _Reader(source_name, layers, state.phase, dict(inputs or {}))
    spec = reader.spec(net.name or Path(source_name).stem)
    _check_shapes(spec, source_name, most_weights)
    return spec


class _Reader:
    """Makes layers of messages, one after another, while it follows the names of the tops."""

    def __init__(self, source: str, messages: list[pb.LayerParameter], phase: int, inputs: dict[str, Channels]) -> None:
        self.source, self.messages, self.phase, self.inputs = source, messages, phase, inputs
        self.layers: list[Layer] = []
        self.made: set[str] = set()  # every top so far
        self.given: set[str] = set()  # those of Input layers
        self.aliases: dict[str, str] = {}  # a Split's top -> what it is a copy of
        self.shared: dict[str, str] = {}  # the name of a blob -> the layer that has it
        self.names = {message.name for message in messages if message.type not in DATA}
        self.labels = _labels(messages)

    def spec(self, name: str) -> NetSpec:
        for message in self.messages:
            try:
                self._add(message)
            except ValueError as error:
                raise _refusal(self.source, message, error) from error
        if self.inputs:
            raise BadInput(f"{self.source}: no data layer makes {', '.join(self.inputs)}; correct `inputs`")
        unread = self.aliases.keys() - {bottom for message in self.messages for bottom in message.bottom}
        if unread:
            raise BadInput(f"{self.source}: nothing reads {min(unread)!r}, a Split's top; remove it")
        # What only fed a dropped layer (the label of an Accuracy) is no input of ours.
        read = {bottom for layer in self.layers for bottom in layer.bottoms}
        kept = tuple(x for x in self.layers if not isinstance(x, Input) or read.intersection(x.tops))
        if not kept:
            raise BadInput(f"{self.source}: no layer computes anything in this phase; give a net definition")
        try:
            return NetSpec(name, kept)
        except ValueError as error:
            raise BadInput(f"{self.source}: {error}; correct the names") from error

    def _add(self, message: pb.LayerParameter) -> None:
        if not message.name:
            raise ValueError("it has no name; give it one")
        if message.blobs:
            raise ValueError("it holds weights, which are not read from text; save them as a caffemodel")
        bottoms = tuple(self.aliases.get(name, name) for name in message.bottom)
        if message.type in DROPPED:
            return
        if message.type == "Split" and len(bottoms) == 1:
            for top in message.top:
                self._make(top)
                self.aliases[top] = bottoms[0]
        elif message.type == "Input" or (message.type in DATA and not bottoms):
            self._add_inputs(message)
        elif message.type in TYPES:
            self._add_layer(message, bottoms)
        else:
            supported = ", ".join(sorted(TYPES))
            raise ValueError(f"this type is not supported; replace or remove the layer (there are {supported})")

    def _make(self, top: str) -> None:
        if top in self.made:
            raise ValueError(f"another layer makes {top!r} too; remove one, or load the phase that has only one")
        self.made.add(top)

    def _add_layer(self, message: pb.LayerParameter, bottoms: tuple[str, ...]) -> None:
        cls = TYPES[message.type]
        least, most = BOTTOMS.get(message.type, (1, 1))
        if not least <= len(bottoms) <= most:
            raise ValueError(f"{len(bottoms)} bottoms are not supported; give it {least}")
        # A loss of the 2014 format may do without a top.
        tops = tuple(self.aliases.get(name, name) for name in message.top)
        tops = tops or ((message.name,) if message.type == "SoftmaxWithLoss" else ())
        if len(tops) != 1 and not (tops and message.type == "Slice"):
            raise ValueError(f"{len(tops)} tops are not supported; give it one")
        if tops != bottoms[:1]:
            for top in tops:
                self._make(top)
        elif not cls.pointwise:
            raise ValueError("it cannot work in place; give its top a name of its own")
        self._check_training(message, bottoms)
        params = tuple(
            Param(options.shortest(param.lr_mult), options.shortest(param.decay_mult)) for param in message.param
        )
        values = options.read(cls, message)
        self.layers.append(cls(name=message.name, bottoms=bottoms, tops=tops, params=params, **values))

    def _check_training(self, message: pb.LayerParameter, bottoms: tuple[str, ...]) -> None:
        """Refuse what would make training another than Caffe's."""
        for param in message.param:
            if param.name in self.shared:
                other = self.shared[param.name]
                raise ValueError(f"it shares {param.name!r} with {other!r}; shared weights are not supported")
            if param.name:
                self.shared[param.name] = message.name
        if message.type == "Dropout" and message.HasField("phase") and message.phase != self.phase:
            raise ValueError("it is fixed to another phase; remove `phase` or load that one")
        if message.type != "SoftmaxWithLoss" and any(message.loss_weight):
            raise ValueError("a loss_weight is supported on SoftmaxWithLoss only; remove it")
        for bottom, down in zip(bottoms, message.propagate_down, strict=False):
            if not down and bottom not in self.given:
                raise ValueError("propagate_down: false is supported for inputs only; freeze with lr_mult: 0")

    def _add_inputs(self, message: pb.LayerParameter) -> None:
        declared = [tuple(shape.dim) for shape in message.input_param.shape]
        if message.type == "Input" and len(declared) not in (0, 1, len(message.top)):
            raise ValueError(f"it has {len(message.top)} tops but {len(declared)} shapes; give one, or one each")
        for i, top in enumerate(message.top):
            self._make(top)
            self.given.add(top)
            shape: Shape | None = None
            if declared:
                shape = declared[i % len(declared)]
            elif message.type != "Input":
                shape = (1, 1 if top in self.labels else _channels(message, i), *_size(message))
            name = message.name
            if len(message.top) > 1:
                name = f"{top}_input" if top in self.names else top
            self.layers.append(Input(name=name, tops=(top,), shape=self._shape(top, shape)))

    def _shape(self, top: str, declared: Shape | None) -> Shape:
        """The shape of an input, `inputs` first."""
        given = self.inputs.pop(top, None)
        shape = declared or ()
        if isinstance(given, tuple):
            shape = (1, *given)
        elif given is not None:
            shape = (1, given, *(shape[2:] or DEPLOY_SIZE))
        if min(shape, default=0) < 1:
            raise ValueError(f"{top!r} has no proper shape; give it one (dim: 1 dim: 3 dim: 500 dim: 500)")
        if len(shape) > 4 or (len(shape) < 4 and top not in self.labels):
            raise ValueError(f"{top!r} has {len(shape)} axes; only N x C x H x W inputs are supported")
        return shape


def _labels(messages: list[pb.LayerParameter]) -> set[str]:
    """The tops that losses and measures read second, through Splits too."""
    judges = (m for m in messages if m.type == "Accuracy" or m.type.endswith("Loss"))
    labels = {bottom for message in judges for bottom in message.bottom[1:2]}
    for message in reversed(messages):
        if message.type == "Split" and labels.intersection(message.top):
            labels.update(message.bottom)
    return labels


def _channels(message: pb.LayerParameter, index: int) -> int:
    """Channels of an image that a data layer makes; `index` counts its tops."""
    if message.type == "MemoryData" and index == 0 and message.memory_data_param.channels:
        return message.memory_data_param.channels
    grey = message.transform_param.force_gray or not message.image_data_param.is_color
    return 1 if grey else 3


def _size(message: pb.LayerParameter) -> Pair:
    """Height and width that a data layer declares."""
    images, memory = message.image_data_param, message.memory_data_param
    crops = (message.transform_param.crop_size, message.data_param.crop_size, images.crop_size)
    sizes = [(crop, crop) for crop in crops]
    sizes += [(images.new_height, images.new_width), (memory.height, memory.width)]
    return next((size for size in sizes if min(size)), DEPLOY_SIZE)


def _check_length(characters: int, source: str | Path) -> None:
    if characters > TEXT_LIMIT:
        raise BadInput(f"{source}: too large for a prototxt; weights (caffemodel) are loaded into a net")


def _check_shapes(spec: NetSpec, source: str, most_weights: int) -> None:
    """Raise BadInput where layers do not fit, a blob is too large for Caffe, or there are more than `most_weights`."""
    shapes: dict[str, Shape] = {}
    weights = 0
    for layer in spec.layers:
        bottoms = [shapes[bottom] for bottom in layer.bottoms]
        shown = " and ".join(" x ".join(map(str, shape)) or "a loss" for shape in bottoms)
        axes = (2, math.inf) if layer.type in FLAT else (4, 4)
        data = bottoms[:1] if layer.type == "SoftmaxWithLoss" else bottoms
        if not all(axes[0] <= len(shape) <= axes[1] for shape in data):
            raise _refusal(source, layer, f"cannot work on {shown}; only N x C x H x W blobs are supported")
        try:
            blobs = layer.blob_shapes(*bottoms)
            tops = layer.top_shapes(*bottoms)
        except (ValueError, IndexError) as error:
            raise _refusal(source, layer, f"does not fit its bottoms of {shown} ({error})") from error
        if len(layer.params) > len(blobs):
            raise _refusal(source, layer, f"has {len(layer.params)} `param` for {len(blobs)} blobs; remove some")
        if max(map(math.prod, (*tops, *blobs.values()))) > BLOB_LIMIT:
            raise _refusal(source, layer, "makes a blob of more than 2^31 numbers; check its sizes")
        weights += sum(math.prod(shape) for shape in blobs.values())
        shapes.update(zip(layer.tops, tops, strict=True))
    if weights > most_weights:
        raise BadInput(f"{source}: {weights:.4g} weights are more than a file holds ({most_weights}); check num_output")


def _refusal(source: str, layer: Layer | pb.LayerParameter, problem: object) -> BadInput:
    told = str(problem).replace(f"{layer.name}: ", "")
    if ";" not in told:  # the layers themselves say what is wrong, not what to do
        told += "; correct the layer or what it reads"
    return BadInput(f"{source}: layer {layer.name!r} ({layer.type}): {told}")
