"""The graph as plain data, and the torch module that runs it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import unquote

import torch
from torch import Tensor, nn

from reference.layers import Convolution, InnerProduct, Input, Layer, Pair, Param, Scale, Shape, SoftmaxWithLoss
from reference.summary import Summary, summarise


@dataclass(frozen=True)
class NetSpec:
    """A net: its name and its layers in the order of execution. An in-place layer's top bears its bottom's name."""

    name: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        names: set[str] = set()
        for layer in self.layers:
            if layer.name in names:
                raise ValueError(f"{self.name}: two layers bear the name {layer.name!r}")
            for bottom in layer.bottoms:
                if bottom not in known:
                    raise ValueError(f"{self.name}: layer {layer.name!r} reads {bottom!r}, which nothing made")
            names.add(layer.name)
            known.update(layer.tops)

    @property
    def labels(self) -> tuple[str, ...]:
        """Inputs that hold class ids: the second bottoms of the losses."""
        return tuple(dict.fromkeys(x.bottoms[1] for x in self.layers if isinstance(x, SoftmaxWithLoss)))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that the scores are computed from, in order."""
        tops = (layer.tops[0] for layer in self.layers if isinstance(layer, Input))
        return tuple(top for top in tops if top not in self.labels)

    @property
    def losses(self) -> tuple[str, ...]:
        """Tops of the loss layers."""
        return tuple(x.tops[0] for x in self.layers if isinstance(x, SoftmaxWithLoss))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The score tops that feed the losses; without a loss, the tops that no layer reads."""
        scores = tuple(dict.fromkeys(x.bottoms[0] for x in self.layers if isinstance(x, SoftmaxWithLoss)))
        if scores:
            return scores
        read = {bottom for layer in self.layers for bottom in layer.bottoms if bottom not in layer.tops}
        return tuple(dict.fromkeys(top for layer in self.layers for top in layer.tops if top not in read))

    @property
    def tops(self) -> tuple[str, ...]:
        """Every top, in the order in which they are first made."""
        return tuple(dict.fromkeys(top for layer in self.layers for top in layer.tops))

    def needed(self, tops: Iterable[str]) -> tuple[Layer, ...]:
        """The layers that `tops` are computed from, in order."""
        wanted, kept = set(tops), []
        for layer in reversed(self.layers):
            if wanted.intersection(layer.tops):
                kept.append(layer)
                wanted.update(layer.bottoms)
        return tuple(reversed(kept))

    def deploy(self) -> NetSpec:
        """The net without losses and labels, as the authors' deploy.prototxt."""
        return replace(self, layers=self.needed(self.outputs))

    def shapes(self, **inputs: Shape) -> dict[str, Shape]:
        """Shape of every top; `inputs` overrides the shapes that the Input layers declare.

        Raises ValueError where layers do not fit.
        """
        shapes: dict[str, Shape] = {}
        for layer in self.layers:
            if isinstance(layer, Input) and layer.tops[0] in inputs:
                shapes[layer.tops[0]] = inputs[layer.tops[0]]
            else:
                tops = layer.top_shapes(*(shapes[bottom] for bottom in layer.bottoms))
                shapes.update(zip(layer.tops, tops, strict=True))
        return shapes


# Layers whose top is memory of its own that their gradient does not need. (Crop and, outside training, Dropout
# hand their bottom's on; ReLU's gradient needs its top.)
OWN_OUTPUT = (Convolution, InnerProduct, Scale)


class LayerModule(nn.Module):
    """One layer with its blobs as parameters; a module each, so that hooks and profilers see Caffe's names."""

    def __init__(self, layer: Layer, shapes: dict[str, Shape]) -> None:
        super().__init__()
        self.layer = layer
        fillers = layer.fillers()
        for index, (name, shape) in enumerate(shapes.items()):
            blob = torch.zeros(shape)
            if name in fillers:
                fillers[name].fill_(blob)
            # As in Caffe (net.cpp), a blob whose rate is 0 gets no gradient.
            self.register_parameter(name, nn.Parameter(blob, requires_grad=layer.param(index).lr_mult != 0))

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.layer.forward(self._parameters, *bottoms, training=self.training)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{self.layer.type}: {', '.join(self.layer.bottoms)} -> {', '.join(self.layer.tops)}"


class Net(nn.Module):
    """Runs a NetSpec. State dict keys are "<Caffe layer>.weight" and ".bias" (see `module_name` for odd names).

    `spec` may be changed by nobody: build another net instead.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        known: dict[str, Shape] = {}
        for layer in spec.layers:
            if isinstance(layer, Input):
                known[layer.tops[0]] = layer.shape
                continue
            bottoms = [known[bottom] for bottom in layer.bottoms]
            self.add_module(module_name(layer.name), LayerModule(layer, layer.blob_shapes(*bottoms)))
            known.update(zip(layer.tops, layer.top_shapes(*bottoms), strict=True))
        self._plans: dict[tuple[str, ...], list[tuple[Layer, bool, tuple[str, ...]]]] = {}
        self._plan(spec.outputs)

    def forward(self, *data: Tensor, **inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """The scores: one tensor, or a dict by top name where the net has several.

        data: N x C x H x W float32, in the order of `spec.inputs` or by keyword.
        In inference no activation outlives its last use.
        """
        if data:
            inputs = dict(zip(self.spec.inputs, data, strict=True)) | inputs
        tops = self.run(self.spec.outputs, inputs)
        return tops if len(tops) > 1 else tops[self.spec.outputs[0]]

    def blobs(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Every top by its Caffe name (an in-place layer's top holds its result, as in Caffe).

        Tops that need an input which was not given (a label, and so the loss) are left out.
        """
        reachable = set(inputs)
        for layer in self.spec.layers:
            if layer.bottoms and reachable.issuperset(layer.bottoms):
                reachable.update(layer.tops)
        tops = dict.fromkeys(top for layer in self.spec.layers for top in layer.tops if top in reachable)
        return self.run(tuple(tops), inputs)

    def total_loss(self, **inputs: Tensor) -> Tensor:
        """The sum of the net's weighted losses, a scalar; inputs must hold the labels too."""
        losses = self.run(self.spec.losses, inputs)
        weights = {x.tops[0]: x.loss_weight for x in self.spec.layers if isinstance(x, SoftmaxWithLoss)}
        return torch.stack([weights[top] * loss for top, loss in losses.items()]).sum()

    def run(self, tops: tuple[str, ...], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """`tops` by name. Only the layers they need run, and each other top is dropped after its last use.

        Raises ValueError for a top that the net does not have, and for an input that is missing, unknown, or of
        the wrong number of channels.
        """
        self._check(inputs)
        live = dict(inputs)
        for layer, copied, dead in self._plan(tops):
            if isinstance(layer, Input):
                if layer.tops[0] not in live:
                    raise ValueError(f"{self.spec.name} needs the input {layer.tops[0]!r}")
            else:
                module = self.get_submodule(module_name(layer.name))
                if copied:
                    live[layer.tops[0]] = live[layer.tops[0]].clone()
                made = module(*[live[bottom] for bottom in layer.bottoms])
                live.update(zip(layer.tops, made if isinstance(made, tuple) else (made,), strict=True))
            for top in dead:
                del live[top]
        return {top: live[top] for top in tops}

    def summary(self, size: Pair | None = None) -> Summary:
        """Shapes, costs and places of all tops for one image of `size` (height, width); it prints as a table."""
        return summarise(self.spec, size)

    def layer(self, name: str) -> LayerModule:
        """The module of the layer that Caffe calls `name`. Raises AttributeError where there is none."""
        module = self.get_submodule(module_name(name))
        assert isinstance(module, LayerModule)
        return module

    def multipliers(self) -> dict[str, Param]:
        """Rate and decay multipliers of every parameter, by its key in the state dict."""
        found = {}
        for prefix, module in self.named_children():
            assert isinstance(module, LayerModule)
            for index, name in enumerate(module._parameters):
                found[f"{prefix}.{name}"] = module.layer.param(index)
        return found

    def _plan(self, tops: tuple[str, ...]) -> list[tuple[Layer, bool, tuple[str, ...]]]:
        """The layers to run for `tops`, in order. Beside each: whether it would write over memory that another
        still needs, so that its bottom must be copied first; and the tops that nobody reads after it.
        """
        if tops not in self._plans:
            if unknown := set(tops).difference(*(layer.tops for layer in self.spec.layers)):
                raise ValueError(f"{self.spec.name} computes no top {min(unknown)!r}")
            layers = self.spec.needed(tops)
            last = {name: i for i, layer in enumerate(layers) for name in (*layer.bottoms, *layer.tops)}
            dead: dict[int, list[str]] = defaultdict(list)
            for name, use in last.items():
                if name not in tops:
                    dead[use].append(name)
            made: dict[str, Layer] = {}
            makers = []
            for layer in layers:
                makers.append([made[bottom] for bottom in layer.bottoms])
                made.update(dict.fromkeys(layer.tops, layer))
            reads = Counter(maker.name for bottoms in makers for maker in bottoms)
            self._plans[tops] = [
                (
                    layer,
                    layer.in_place and not (isinstance(maker[0], OWN_OUTPUT) and reads[maker[0].name] == 1),
                    tuple(dead[i]),
                )
                for i, (layer, maker) in enumerate(zip(layers, makers, strict=True))
            ]
        return self._plans[tops]

    def _check(self, inputs: dict[str, Tensor]) -> None:
        declared = {x.tops[0]: x.shape for x in self.spec.layers if isinstance(x, Input)}
        for name, value in inputs.items():
            if name not in declared:
                raise ValueError(f"{self.spec.name} has no input {name!r}; it has {', '.join(declared)}")
            if name in self.spec.inputs and (value.ndim != 4 or value.shape[1] != declared[name][1]):
                shape = tuple(value.shape)
                raise ValueError(f"input {name!r} is {shape}, not N x {declared[name][1]} x H x W")


# Attributes of nn.Module that a child may not be named after (`type`, `train`, `float` ...).
_RESERVED = frozenset([*dir(nn.Module()), *dir(Net), "spec", "_plans"])


def module_name(layer: str) -> str:
    """The child module's name of a Caffe layer: itself, but percent-encoded where torch refuses it.

    "." and "%" are always encoded, and the first letter of a name that nn.Module uses itself:
    conv1.1 -> conv1%2E1, type -> %74ype. `layer_name` reverses it.
    """
    encoded = layer.replace("%", "%25").replace(".", "%2E")
    if encoded in _RESERVED:
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    return encoded


def layer_name(module: str) -> str:
    """The Caffe layer of a child module's name."""
    return unquote(module)
