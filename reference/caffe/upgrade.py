"""Older spellings of a net made into today's, and the layers of one phase (Caffe: util/upgrade_proto.cpp, net.cpp)."""

from __future__ import annotations

from collections.abc import Iterator

from reference.caffe import caffe_pb2 as pb

# Types of the 2014 format whose name of today is not its words capitalised (INNER_PRODUCT is InnerProduct).
V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
# What the 2014 format lists blob by blob beside the blobs, by its name in a ParamSpec.
V1_MULTIPLIERS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}


def layers_of(net: pb.NetParameter, state: pb.NetState) -> list[pb.LayerParameter]:
    """The layers of `net` that stand in `state`, in today's format, inputs first.

    Raises ValueError for a net in two formats at once and for inputs without shapes.
    """
    if net.layer and net.layers:
        raise ValueError("it has both `layer` and `layers` (the format of 2014); keep one of them")
    layers = [*_legacy_inputs(net), *net.layer, *map(_from_v1, net.layers)]
    return [layer for layer in layers if _included(layer, state)]


def _legacy_inputs(net: pb.NetParameter) -> Iterator[pb.LayerParameter]:
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes = shapes or [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if len(shapes) != len(net.input) or (not net.input_shape and len(net.input_dim) % 4):
        raise ValueError(
            f"it names {len(net.input)} inputs with {len(shapes)} shapes; "
            "give each `input` four `input_dim` or one `input_shape`"
        )
    for name, shape in zip(net.input, shapes, strict=True):
        options = pb.InputParameter(shape=[pb.BlobShape(dim=shape)])
        yield pb.LayerParameter(name=name, type="Input", top=[name], input_param=options)


def _from_v1(old: pb.V1LayerParameter) -> pb.LayerParameter:
    word = pb.V1LayerParameter.LayerType.Name(old.type)
    today = V1_TYPES.get(word, "".join(part.capitalize() for part in word.split("_")))
    layer = pb.LayerParameter(name=old.name, type=today)
    for field, value in old.ListFields():
        if field.name in V1_MULTIPLIERS:
            for i, item in enumerate(value):
                if i == len(layer.param):
                    layer.param.add()
                setattr(layer.param[i], V1_MULTIPLIERS[field.name], item)
        elif field.name not in ("name", "type"):
            getattr(layer, field.name).MergeFrom(value)
    return layer


def _included(layer: pb.LayerParameter, state: pb.NetState) -> bool:
    """Whether a layer stands in `state`: any rule of `include` must hold, or none of `exclude`."""
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name!r} has include and exclude rules; Caffe allows one kind")
    if layer.include:
        return any(_holds(rule, state) for rule in layer.include)
    return not any(_holds(rule, state) for rule in layer.exclude)


def _holds(rule: pb.NetStateRule, state: pb.NetState) -> bool:
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
