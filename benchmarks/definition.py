"""What a net's definition has otherwise than the authors', layer by layer; widths and numbers of classes may differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from reference.layers import Dropout, Input, Layer
from reference.net import NetSpec

# What may differ, since it changes no layer's place or kind: channels, and what only training knows.
FREE = {"num_output", "params", "weight_filler", "bias_filler", "filler"}


def differences(ours: NetSpec, authors: NetSpec) -> list[str]:
    """One line a layer that the net has otherwise than the authors' net, in inference; [] where none does."""
    return list(_differences(_computing(ours), _computing(authors)))


def _computing(spec: NetSpec) -> dict[str, Layer]:
    return {layer.name: layer for layer in spec.deploy().layers if not isinstance(layer, Input | Dropout)}


def _differences(ours: dict[str, Layer], authors: dict[str, Layer]) -> Iterator[str]:
    for name, layer in authors.items():
        if name not in ours:
            yield f"{name}: missing; the authors' net has a {layer.type} there"
            continue
        mine = ours[name]
        if mine.type != layer.type:
            yield f"{name}: a {mine.type}; the authors' is a {layer.type}"
            continue
        for entry in fields(layer):
            found, wanted = getattr(mine, entry.name), getattr(layer, entry.name)
            if entry.name not in FREE and found != wanted:
                yield f"{name}: {entry.name} {_shown(found)}; the authors' has {_shown(wanted)}"
    for name in ours:
        if name not in authors:
            yield f"{name}: a {ours[name].type} that the authors' net does not have"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
