"""Why a layer comes out otherwise than in Caffe: the usual mistakes, each computed and held against what came out.

A cause is not guessed from the size of a difference. From the bottoms that the backend itself computed, the layer is
computed once as Caffe does and once with each mistake; a mistake that explains what came out is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.layers import (
    LRN,
    Convolution,
    Crop,
    Deconvolution,
    Dropout,
    Eltwise,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
)
from reference.net import Net

MOST = float(torch.finfo(torch.float16).max)
# A mistake explains what came out where it leaves less than this part of the difference. Structure (a window, an order)
# explains it to rounding; arithmetic (TF32) leaves some, since a card sums in an order of its own.
EXPLAINED = 0.3
Values = Mapping[str, Tensor]
Step = Callable[..., Tensor]


@dataclass(frozen=True)
class Cause:
    """What most likely made a top come out otherwise."""

    name: str
    """Such as "floor pooling"."""
    says: str
    """What was done, and what Caffe does."""
    fix: str


UNKNOWN = Cause(
    "unknown",
    "none of the known mistakes explains it",
    "compare this layer's parameters and weights with Caffe's; fcn show NET lists them",
)


def explain(
    net: Net, top: str, found: np.ndarray, values: Mapping[str, np.ndarray], mean: Sequence[float] | None = None
) -> Cause:
    """The likely cause why `top` came out as `found`.

    values: the input as it is due, N x C x H x W, and what the backend gave for the tops that `top` is made of (or
    Caffe's, where it did not say). mean: BGR, of the images that the input is made of.
    """
    layers = makers(net, top)
    got = torch.from_numpy(np.array(found, np.float32))
    read = sources(layers, top) or [top]
    given = {name: torch.from_numpy(np.array(values[name], np.float32)) for name in read}
    with torch.inference_mode():
        exact = _computed(net, layers, given)
        if cause := _overflow(exact, got):
            return cause
        best, left = UNKNOWN, EXPLAINED * _distance(exact, got)
        for cause, make in _mistakes(net, layers, given, got, mean):
            try:
                distance = _distance(make(), got)
            except (RuntimeError, ValueError):  # the mistake does not fit this shape
                continue
            if distance < left:
                best, left = cause, distance
    return best


def makers(net: Net, top: str) -> list[Layer]:
    """The layers that write `top`, one after another in place; a Dropout does nothing in inference."""
    return [x for x in net.spec.deploy().layers if top in x.tops and not isinstance(x, Input | Dropout)]


def sources(layers: Sequence[Layer], top: str) -> list[str]:
    """The tops that `top`'s `makers` read."""
    return list(dict.fromkeys(bottom for layer in layers for bottom in layer.bottoms if bottom != top))


def _computed(net: Net, layers: Sequence[Layer], given: Values, instead: Mapping[str, Step] | None = None) -> Tensor:
    """The last layer's top, or without layers the input; `instead` computes the layers of those names otherwise."""
    if not layers:
        return next(iter(given.values()))
    values = dict(given)
    for layer in layers:
        bottoms = [values[bottom] for bottom in layer.bottoms]
        step = (instead or {}).get(layer.name) or _step(net, layer)
        made = step(*bottoms)
        values.update(zip(layer.tops, made if isinstance(made, tuple) else (made,), strict=True))
    return values[layers[-1].tops[0]]


def _step(net: Net, layer: Layer, **blobs: Tensor) -> Callable[..., Any]:
    """The layer's own computation, with other `blobs` if given. Its bottom is left as it is."""
    own = {**dict(net.layer(layer.name).named_parameters()), **blobs}
    return lambda *bottoms: layer.forward(own, *(bottom.clone() if layer.in_place else bottom for bottom in bottoms))


def _distance(made: Tensor, found: Tensor) -> float:
    """The difference, relative, as L2 norms: a rounding that falls the other way here and there must not count for
    much. Infinite for another shape, or what is no number.
    """
    if made.shape != found.shape:
        return np.inf
    norms = [float(torch.linalg.vector_norm(each, dtype=torch.float64)) for each in (made - found, made)]
    return norms[0] / norms[1] if np.isfinite(norms[0]) and norms[1] else np.inf


def _overflow(exact: Tensor, found: Tensor) -> Cause | None:
    """float16 ends at 65,504: beyond stands infinity, or, where a library saturates, that number."""
    greatest = float(exact.abs().max())
    saturated = exact.shape == found.shape and _distance(exact.clamp(-MOST, MOST), found) < 1e-2
    if greatest > MOST and (saturated or not torch.isfinite(found).all()):
        return Cause(
            "float16 overflow",
            f"Caffe's values reach {greatest:.0f}, and float16 ends at {MOST:.0f}",
            "export it with python export/to_onnx.py --precision fp16, which lowers every top by a power of two",
        )
    return None


Mistake = tuple[Cause, Callable[[], Tensor]]


def _mistakes(
    net: Net, layers: Sequence[Layer], given: Values, found: Tensor, mean: Sequence[float] | None
) -> Iterator[Mistake]:
    """Every mistake that these layers could be computed with."""

    def other(layer: Layer, cause: Cause, step: Step) -> Mistake:
        return cause, lambda: _computed(net, layers, given, {layer.name: step})

    inputs = [name for name in given if name in net.spec.inputs]
    for name in inputs:
        for cause, changed in _images(given[name], mean):
            yield cause, lambda name=name, changed=changed: _computed(net, layers, {**given, name: changed})  # type: ignore[misc]
    for layer in layers:
        for cause, step in _steps(net, layer, given, found):
            yield other(layer, cause, step)
    yield from _dropouts(net, layers, given, found)
    weighted = [layer for layer in layers if isinstance(layer, Convolution | InnerProduct | Scale)]
    for cause, rounded, ends in ROUNDINGS if weighted else ():
        steps = {layer.name: _rounding(net, layer, rounded, ends) for layer in weighted}
        yield cause, lambda steps=steps: _computed(net, layers, given, steps)  # type: ignore[misc]


def _images(x: Tensor, mean: Sequence[float] | None) -> Iterator[tuple[Cause, Tensor]]:
    """What an input becomes where the image was prepared in another way."""
    fix = "give the net BGR from 0 to 255 minus the mean, as fcn.images.preprocess does, or export it with --io image"
    if x.shape[1] != 3:
        return
    yield Cause("RGB order", "the image's channels came as RGB; Caffe's nets take BGR", fix), x.flip(1)
    if mean is None:
        return
    offset = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
    pixels = x + offset
    yield (
        Cause("mean not subtracted", "the image came as it is; Caffe's has the data set's mean taken off", fix),
        pixels,
    )
    swapped = pixels.flip(1) - offset
    yield Cause("RGB order", "RGB channels, minus a BGR mean; Caffe's nets take BGR", fix), swapped
    yield Cause("0 to 1", "the image came as 0 to 1; Caffe's nets take 0 to 255 minus the mean", fix), pixels / 255
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    centre = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    normalised = (pixels.flip(1) / 255 - centre) / deviation
    yield Cause("torchvision's normalisation", "RGB from 0 to 1, centred and divided by a deviation", fix), normalised


def _steps(net: Net, layer: Layer, given: Values, found: Tensor) -> Iterator[tuple[Cause, Step]]:
    """The layer computed with each mistake that its kind is known for."""
    again = "export the net with python export/to_onnx.py, which writes it as Caffe computes it"
    match layer:
        case Deconvolution():
            yield from _upsamplings(layer, found)
        case Convolution():
            for pad in dict.fromkeys(((0, 0), (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2))):
                if pad != layer.pad:
                    says = f"padded by {pad[0]} and {pad[1]}; Caffe's {layer.name} by {layer.pad[0]} and {layer.pad[1]}"
                    yield Cause("missing padding", says, again), _step(net, replace(layer, pad=pad))
            flipped = net.layer(layer.name).get_parameter("weight").flip(2, 3)
            says = "the kernels lie mirrored: a convolution, where Caffe's is a correlation"
            yield Cause("mirrored kernels", says, again), _step(net, layer, weight=flipped)
            if layer.bias_term:
                none = torch.zeros(layer.num_output)
                yield Cause("missing bias", "the biases were left out", again), _step(net, layer, bias=none)
        case Pooling():
            if layer.round_mode == "CEIL":
                floor = replace(layer, round_mode="FLOOR")
                says = "sizes rounded down, as PyTorch's pooling does by default; Caffe's rounds up"
                yield Cause("floor pooling", says, "pool with ceil_mode=True; " + again), _step(net, floor)
            other = replace(layer, pool="AVE" if layer.pool == "MAX" else "MAX")
            yield (
                Cause("the other pooling", f"{other.pool} pooling; Caffe's {layer.name} is {layer.pool}", again),
                _step(net, other),
            )
            if layer.pool == "AVE" and any(layer.pad):
                says = "averages leave the padding out; Caffe counts it"
                step = lambda x: F.avg_pool2d(  # noqa: E731
                    x, layer.kernel_size, layer.stride, layer.pad, layer.round_mode == "CEIL", count_include_pad=False
                )
                yield Cause("padding not counted", says, again), step
        case ReLU():
            yield Cause("missing ReLU", "negative values were kept", again), lambda x: x
        case LRN():
            whole = replace(layer, alpha=layer.alpha * layer.local_size)
            yield (
                Cause("LRN's alpha", "alpha is not divided by the window's size; Caffe divides it", again),
                _step(net, whole),
            )
        case Scale():
            says = "the scores before it went through unscaled; at-once nets need the factor"
            yield Cause("missing Scale", says, again), lambda x: x
        case Eltwise():
            for index, bottom in enumerate(layer.bottoms):
                says = f"only {bottom} went through: the other bottoms were left out"
                yield Cause("missing skip", says, again), lambda *bottoms, index=index: bottoms[index]
        case Crop():
            yield from _crops(layer, given, found)


def _upsamplings(layer: Deconvolution, found: Tensor) -> Iterator[tuple[Cause, Step]]:
    size = tuple(found.shape[2:])
    caffe = f"Caffe's {layer.name} is a deconvolution of {layer.kernel_size[0]} pixels, stride {layer.stride[0]}"
    fix = "keep the deconvolution: export the net with python export/to_onnx.py"
    for name, options in (
        ("align_corners", {"mode": "bilinear", "align_corners": True}),
        ("half-pixel resize", {"mode": "bilinear", "align_corners": False}),
    ):
        says = f"upsampled by resizing ({options['mode']}, {name}); {caffe}, whose corners fade into zeros"
        yield Cause(name, says, fix), lambda x, options=options: F.interpolate(x, size, **options)


def _crops(layer: Crop, given: Values, found: Tensor) -> Iterator[tuple[Cause, Step]]:
    """The crop at the offset where its bottom holds what came out, if it does anywhere."""
    source = given[layer.bottoms[0]]
    height, width = found.shape[2:]
    room = source[:1, :, : source.shape[2] - height + 1, : source.shape[3] - width + 1]
    corner = (room - found[:1, :, :1, :1]).abs().amax(1)[0]
    top, left = divmod(int(corner.argmin()), corner.shape[1])
    says = f"cut from ({top}, {left}) on; Caffe's {layer.name} from {layer.offsets()}, which follows from the padding"
    fix = "take the offset from the net's coordinates (fcn show NET); export the net with python export/to_onnx.py"
    yield Cause("crop offset", says, fix), lambda x, _: x[:, :, top : top + height, left : left + width]


def _dropouts(net: Net, layers: Sequence[Layer], given: Values, found: Tensor) -> Iterator[Mistake]:
    """Dropout that was left on: some values are zero, the rest may be scaled up."""
    exact = _computed(net, layers, given)
    if exact.shape != found.shape or exact.ndim != 4:
        return
    live = exact != 0
    kept = live & (found != 0)
    dropped = live & (found == 0)
    if not kept.any() or dropped.sum() < 0.05 * live.sum():
        return
    factor = float((found[kept] / exact[kept]).median())
    whole = dropped.any(-1).any(-1) & ~kept.any(-1).any(-1)  # channels without a value left
    fix = "export the net in inference, where dropout does nothing: python export/to_onnx.py does"
    if torch.equal(dropped, live & whole[:, :, None, None]):
        says = f"{int(whole.sum())} of {whole.numel()} channels were dropped as a whole, the rest times {factor:.3g}"
        name = "per-channel dropout"
        says += ": in training too, Caffe drops elements"
    else:
        name = "dropout left on"
        says = f"{float(dropped.sum() / live.sum()):.0%} of the elements were dropped, the rest times {factor:.3g}"
    yield Cause(name, says, fix), lambda: torch.where(dropped, 0, exact * factor)


def _rounding(net: Net, layer: Layer, rounded: Step, ends: bool) -> Step:
    """The layer with its bottoms and weights rounded, and its top too if it `ends` in that type."""
    weight = net.layer(layer.name).get_parameter("weight")
    step = _step(net, layer, weight=rounded(weight))
    return lambda *bottoms: (rounded if ends else lambda x: x)(step(*map(rounded, bottoms)))


def tf32(x: Tensor) -> Tensor:
    """float32 with 10 of its 23 bits, the nearest such, as tensor cores take it."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _cut(x: Tensor) -> Tensor:
    """The same, cut off instead of rounded."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


_TF32 = Cause(
    "TF32",
    "factors were rounded to 10 bits, the default of NVIDIA's libraries; Caffe's float32 has 23",
    "build the engine without --tf32 (trtexec: --noTF32); in torch: torch.backends.cudnn.allow_tf32 = False",
)
_FP32 = "export it with python export/to_onnx.py --precision fp32"
# What rounds factors, and whether the tops as well: TF32 is a type of factors only.
ROUNDINGS: tuple[tuple[Cause, Step, bool], ...] = (
    (_TF32, tf32, False),
    (_TF32, _cut, False),
    (Cause("float16", "computed in float16, which keeps 10 bits", _FP32), lambda x: x.half().float(), True),
    (Cause("bfloat16", "computed in bfloat16, which keeps 7 bits", _FP32), lambda x: x.bfloat16().float(), True),
)
