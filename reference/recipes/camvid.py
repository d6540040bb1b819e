"""CamVid, which the paper did not use: road scenes of 480x360, 367 to train on, staged on CPUs.

camvid-fcn32s, -16s, -8s           narrow VGG-16, from the committed classifier of `shapes`, for want of ImageNet
                                   weights at this width: expect little
camvid-squeezenet-16s, -8s         SqueezeNet v1.0 (camvid-squeezenet.prototxt), from its ImageNet weights
camvid-squeezenet-random-16s, -8s  the control: the same from random weights
camvid-vgg-32s, -16s, -8s          VGG-16 (camvid-vgg.prototxt): conv1 to conv3 of full width, frozen, from ImageNet
                                   weights; the further layers narrow, from random weights
camvid-vgg16-32s, -16s, -8s        the paper's nets, whole, for a GPU: images are nearly of VOC's size, so the rates are
                                   the authors' for VOC
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reference.recipes import voc
from reference.recipes.recipe import Recipe, Solver
from reference.recipes.shapes import narrow_stages

NOTE = "not in the paper"
# As in the recipes of `shapes`: momentum 0.99 would carry an outlier for a hundred iterations.
CLIP = 1e6
VGG_CONV3 = "VGG-16 weights of conv1_1 to conv3_3 (--weights FILE.caffemodel)"


def _stages(
    names: Sequence[str], net: str, start: str, solver: Solver, iterations: int, evaluations: int, cost: str
) -> tuple[Recipe, ...]:
    """One recipe after another, each from the one before, the first from `start`; a name ends in its stage.

    The rate falls tenfold from stage to stage: at that of the stage before, the zero weights of a new skip, which see
    large activations, tear the trained scores apart (the authors' falls a hundredfold).
    """
    return tuple(
        Recipe(
            name=name,
            net=net,
            options={"stages": (name.rsplit("-", 1)[1],)},
            data="camvid",
            train_split="train",
            val_split="val",
            solver=replace(solver, base_lr=solver.base_lr / 10**i),
            iterations=iterations,
            evaluate_every=iterations // evaluations,
            start=names[i - 1] if i else start,
            note=NOTE,
            cost=cost,
        )
        for i, name in enumerate(names)
    )


def _squeezenet(name: str, start: str, base_lr: float) -> tuple[Recipe, ...]:
    names = [f"{name}-{stage}" for stage in ("16s", "8s")]
    solver = Solver(base_lr, clip_gradients=CLIP)
    return _stages(names, "camvid-squeezenet.prototxt", start, solver, 600, 3, "five minutes on 2 CPU cores")


RECIPES = (
    *narrow_stages("camvid", 11, note=NOTE, cost="two minutes on 2 CPU cores"),
    # Each at the better of 1e-8 and 1e-9, by the training loss after 80 iterations.
    *_squeezenet("camvid-squeezenet", "squeezenet", 1e-9),
    *_squeezenet("camvid-squeezenet-random", "", 1e-8),
    *_stages(
        [f"camvid-vgg-{stage}" for stage in ("32s", "16s", "8s")],
        "camvid-vgg.prototxt",
        VGG_CONV3,
        Solver(3e-8, momentum=0.9, clip_gradients=1e5),
        100,
        1,  # of 101 images at full width, which take as long as fifty iterations
        "ten minutes on 2 CPU cores",
    ),
    *(
        replace(
            recipe,
            name=f"camvid-vgg16-{stage}",
            options={"classes": 11},
            data="camvid",
            val_data="",
            val_split="val",
            iterations=20_000,
            evaluate_every=2000,
            start=f"camvid-vgg16-{before}" if before else "vgg16",
            published=(),
            note=NOTE,
        )
        for recipe, stage, before in zip(voc.STAGED, ("32s", "16s", "8s"), ("", "32s", "16s"), strict=True)
    ),
)
