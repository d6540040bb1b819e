"""A layer's options: a `*_param` message of Caffe's against the fields of a dataclass in `reference.layers`.

Those fields bear Caffe's names, so one rule serves every type, new ones too: an option that both know is copied,
and an option that the dataclass does not know is refused unless it has Caffe's default value or cannot change the
result. What Caffe spells in several ways stands in the hooks below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from reference.caffe import caffe_pb2 as pb
from reference.layers import Filler, Layer, Pair, Window

# The message of a type that is not named after it.
HOLDERS = {"Deconvolution": "convolution_param", "SoftmaxWithLoss": "loss_param"}
# Every message by its type in lower case: "innerproduct" -> "inner_product_param".
_HOLDERS = {
    name.removesuffix("_param").replace("_", ""): name
    for name in pb.LayerParameter.DESCRIPTOR.fields_by_name
    if name.endswith("_param")
}
# Options that say how to compute, not what.
HARMLESS = {"engine", "stable_prod_grad"}
# Sizes that Caffe spells once, once an axis, or as _h and _w.
SIZES = {"kernel_size", "stride", "pad", "dilation"}
# Further spellings, which the hook of the type reads.
ALIASES = {"Concat": {"concat_dim"}, "Slice": {"slice_dim"}, "SoftmaxWithLoss": {"normalize"}}
# Below these Caffe stops; above MAXIMUM its int overflows.
MINIMUM = {"num_output": 1, "group": 1, "kernel_size": 1, "stride": 1, "pad": 0, "dilation": 1, "local_size": 1}
MAXIMUM = 2**31 - 1
# Defaults that the authors write out.
SHOWN = {("Pooling", "pool"), ("Dropout", "dropout_ratio"), ("Eltwise", "operation"), ("Crop", "axis")}


def holder(type_name: str) -> str | None:
    """The field of LayerParameter that holds the options of a type; None for a type without options."""
    return HOLDERS.get(type_name) or _HOLDERS.get(type_name.lower())


def own_fields(cls: type[Layer]) -> list[Field[Any]]:
    """The options of a dataclass: what it has beyond name, bottoms, tops and multipliers."""
    common = {field.name for field in fields(Layer)}
    return [field for field in fields(cls) if field.name not in common]


def read(cls: type[Layer], layer: pb.LayerParameter) -> dict[str, Any]:
    """The arguments of `cls` that `layer` declares. Raises ValueError (what, and what to do) for the rest."""
    name = holder(cls.__name__)
    if not name:
        return {}
    options = getattr(layer, name)
    own = {field.name: field.default for field in own_fields(cls)}
    values = _copy(options, own.keys() - SIZES)
    spellings = ALIASES.get(cls.__name__, set())
    if issubclass(cls, Window):
        pairs = {size: _pair(options, size) for size in SIZES}
        values |= {size: pair for size, pair in pairs.items() if pair}
        spellings = {spelling for size in SIZES for spelling in _split(size)}
    if cls.__name__ in READ_HOOKS:
        READ_HOOKS[cls.__name__](layer, values)
    _refuse_rest(options, own.keys() | spellings)
    for option, default in own.items():
        if default is MISSING and option not in values:
            raise ValueError(f"{option} is missing; add it")
    for option, minimum in MINIMUM.items():
        value = values.get(option, minimum)
        sides = value if isinstance(value, tuple) else (value,)
        if not minimum <= min(sides) <= max(sides) <= MAXIMUM:
            raise ValueError(f"{option} must be at least {minimum}, and {MAXIMUM} at most")
    return values


def write(layer: Layer, message: pb.LayerParameter) -> None:
    """Put the options of `layer` into `message`, leaving out what is Caffe's default."""
    name = holder(layer.type)
    if not name:
        return
    values = {
        field.name: getattr(layer, field.name)
        for field in own_fields(type(layer))
        if getattr(layer, field.name) != field.default or (layer.type, field.name) in SHOWN
    }
    if layer.type in WRITE_HOOKS:
        WRITE_HOOKS[layer.type](message, values)
    options = getattr(message, name)
    for key, value in values.items():
        field = options.DESCRIPTOR.fields_by_name[key]
        if key in SIZES:
            _put_pair(options, key, value)
        elif isinstance(value, Filler):
            parts = {part.name: getattr(value, part.name) for part in fields(Filler)}
            told = {k: v for k, v in parts.items() if k == "type" or v != getattr(Filler, k)}
            getattr(options, key).CopyFrom(pb.FillerParameter(**told))
        elif field.is_repeated:
            getattr(options, key).extend(value)
        elif field.enum_type:
            setattr(options, key, field.enum_type.values_by_name[value].number)
        else:
            setattr(options, key, value)


def shortest(value: float) -> float:
    """The float whose shortest decimal is that of the float32 `value`: 0.0001, not 9.999999747378752e-05.

    Raises ValueError for nan and infinity, which no option of a net may be.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number; give a finite one")
    return float(str(np.float32(value)))


def _copy(options: Message, names: set[str]) -> dict[str, Any]:
    """The options of these names that are set, as Python values."""
    return {f.name: _value(f, value) for f, value in options.ListFields() if f.name in names}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return tuple(shortest(item) if field.type == field.TYPE_FLOAT else item for item in value)
    if field.type == field.TYPE_FLOAT:
        return shortest(value)
    if field.enum_type:
        return field.enum_type.values_by_number[value].name
    if field.message_type:
        known = {part.name for part in fields(Filler)}
        _refuse_rest(value, known)
        return Filler(**_copy(value, known))
    return value


def _refuse_rest(options: Message, known: set[str]) -> None:
    for field, value in options.ListFields():
        if field.name not in known | HARMLESS and (field.is_repeated or value != field.default_value):
            raise ValueError(f"the option {field.name} is not supported; remove it or set Caffe's default")


def _split(size: str) -> tuple[str, str]:
    """The spellings by axis: kernel_size -> kernel_h, kernel_w."""
    stem = size.removesuffix("_size")
    return f"{stem}_h", f"{stem}_w"


def _pair(options: Any, size: str) -> Pair | None:
    """A size as (height, width), None where it is not given."""
    given = {field.name for field, _ in options.ListFields()}
    split = _split(size)
    if given.intersection(split):
        if size in given:
            raise ValueError(f"{size} is given together with {' or '.join(split)}; keep one spelling")
        return getattr(options, split[0]), getattr(options, split[1])
    if size not in given:
        return None
    repeated = options.DESCRIPTOR.fields_by_name[size].is_repeated
    values = getattr(options, size) if repeated else [getattr(options, size)]
    if len(values) > 2:
        raise ValueError(f"{size} is given {len(values)} times; only two axes are supported")
    return values[0], values[-1]


def _put_pair(options: Any, size: str, value: Pair) -> None:
    known, split = options.DESCRIPTOR.fields_by_name, _split(size)
    if value[0] != value[1] and split[0] in known:
        for name, side in zip(split, value, strict=True):
            setattr(options, name, side)
    elif known[size].is_repeated:
        getattr(options, size).extend(value[:1] if value[0] == value[1] else value)
    else:
        setattr(options, size, value[0])


# Hooks: complete and check `values`, which hold what the general rule has read (or will write).


def _read_pooling(layer: pb.LayerParameter, values: dict[str, Any]) -> None:
    if values.get("global_pooling"):
        if values.keys() & SIZES:
            raise ValueError("global_pooling allows no kernel, stride or pad; remove them")
        # The kernel is the whole input, whatever its size; the dataclass wants a number.
        values["kernel_size"] = (1, 1)


def _read_dropout(layer: pb.LayerParameter, values: dict[str, Any]) -> None:
    if not 0 <= values.get("dropout_ratio", 0) < 1:
        raise ValueError("dropout_ratio must be at least 0 and less than 1")


def _read_crop(layer: pb.LayerParameter, values: dict[str, Any]) -> None:
    if values.get("axis", 2) != 2 or len(values.get("offset", ())) > 2:
        raise ValueError("only crops of height and width are supported; set axis: 2 and at most two offsets")


def _read_channels(layer: pb.LayerParameter, values: dict[str, Any]) -> None:
    for options, older in ((layer.concat_param, "concat_dim"), (layer.slice_param, "slice_dim")):
        if options.HasField(older):
            if "axis" in values:
                raise ValueError(f"{older} is an older name of axis; keep one of them")
            values["axis"] = getattr(options, older)
    if values.get("axis", 1) != 1:
        raise ValueError("only axis: 1 (channels) is supported")


def _read_loss(layer: pb.LayerParameter, values: dict[str, Any]) -> None:
    _refuse_rest(layer.softmax_param, set())
    if "normalization" in values:
        values["normalization"] = values["normalization"].lower()
    elif layer.loss_param.HasField("normalize"):
        values["normalization"] = "valid" if layer.loss_param.normalize else "batch_size"
    if layer.loss_weight:
        values["loss_weight"] = shortest(layer.loss_weight[0])


def _write_input(message: pb.LayerParameter, values: dict[str, Any]) -> None:
    message.input_param.shape.add(dim=values.pop("shape"))


def _write_pooling(message: pb.LayerParameter, values: dict[str, Any]) -> None:
    if values.get("global_pooling"):
        del values["kernel_size"]


def _write_loss(message: pb.LayerParameter, values: dict[str, Any]) -> None:
    if "loss_weight" in values:
        message.loss_weight.append(values.pop("loss_weight"))
    normalization = values.pop("normalization", None)
    if normalization == "batch_size":
        # The authors' spelling, which every version of Caffe reads.
        values["normalize"] = False
    elif normalization:
        values["normalization"] = normalization.upper()


Hook = Callable[[pb.LayerParameter, dict[str, Any]], None]
READ_HOOKS: dict[str, Hook] = {
    "Pooling": _read_pooling,
    "Dropout": _read_dropout,
    "Crop": _read_crop,
    "Concat": _read_channels,
    "Slice": _read_channels,
    "Softmax": _read_channels,
    "SoftmaxWithLoss": _read_loss,
}
WRITE_HOOKS: dict[str, Hook] = {"Input": _write_input, "Pooling": _write_pooling, "SoftmaxWithLoss": _write_loss}
