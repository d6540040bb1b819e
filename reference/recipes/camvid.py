"""CamVid, which the paper did not use: road scenes of 480x360, 367 to train on, staged on CPUs.

camvid-fcn32s, -16s, -8s           narrow VGG-16, from the committed classifier of `shapes`, for want of ImageNet
                                   weights at this width: expect little
camvid-squeezenet-16s, -8s         SqueezeNet v1.0 (camvid-squeezenet.prototxt), from its ImageNet weights
camvid-squeezenet-random-16s, -8s  the control: the same from random weights
camvid-vgg-fcn32s, -16s, -8s       VGG-16 whose conv1 to conv3 are full width and frozen, to start from ImageNet's,
                                   and whose further layers are narrow and start from random weights
"""

from __future__ import annotations

from typing import Any

from reference.recipes.recipe import Recipe, Solver
from reference.recipes.shapes import narrow_stages

SOURCE = "not in the paper"
SQUEEZENET = "SqueezeNet v1.0 weights (--weights squeezenet_v1.0.caffemodel)"
VGG_CONV3 = "VGG-16 weights of conv1_1 to conv3_3 (--weights FILE.caffemodel)"


def _stages(
    names: list[str], nets: list[tuple[str, dict[str, Any]]], start: str, solver: Solver, iterations: int, cost: str
) -> tuple[Recipe, ...]:
    """One recipe after another, each from the one before, the first from `start`."""
    return tuple(
        Recipe(
            name=name,
            net=net,
            options=options,
            data="camvid",
            train_split="train",
            val_split="val",
            solver=solver,
            iterations=iterations,
            evaluate_every=iterations // 4,
            start=names[i - 1] if i else start,
            source=SOURCE,
            cost=cost,
        )
        for i, (name, (net, options)) in enumerate(zip(names, nets, strict=True))
    )


def _squeezenet(name: str, start: str) -> tuple[Recipe, ...]:
    strides = ("16s", "8s")
    return _stages(
        [f"{name}-{stride}" for stride in strides],
        [("camvid-squeezenet.prototxt", {"stages": (stride,)}) for stride in strides],
        start,
        Solver(1e-9, clip_gradients=1e5),
        1000,
        "ten minutes on 2 CPU cores",
    )


def _vgg() -> tuple[Recipe, ...]:
    strides = ("32s", "16s", "8s")
    options: dict[str, Any] = {
        "classes": 11,
        "width": (1, 1, 1, 1 / 4, 1 / 4),
        "fc_width": 1 / 16,
        "dropout": 0.0,
        "from_scratch": True,
        "frozen": ("conv1_", "conv2_", "conv3_"),
    }
    return _stages(
        [f"camvid-vgg-fcn{stride}" for stride in strides],
        [(f"voc-fcn{stride}", options) for stride in strides],
        VGG_CONV3,
        Solver(1e-10, clip_gradients=1e6),
        300,
        "a quarter of an hour on 2 CPU cores",
    )


RECIPES = (
    *narrow_stages("camvid", 11, source=SOURCE, cost="two minutes on 2 CPU cores"),
    *_squeezenet("camvid-squeezenet", SQUEEZENET),
    *_squeezenet("camvid-squeezenet-random", ""),
    *_vgg(),
)
