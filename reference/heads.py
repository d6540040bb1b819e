"""The authors' nets on their trunks (CVPR 2015, figure 3; the net.py of each of their model folders).

Strides and offsets of the skips, the same for one task or two, whatever VGG-16 sees:

    stride  deconvolutions (kernel/stride)          crops (derived, see reference.coordinates)
    32      upscore 64/32                           score 19
    16      upscore2 4/2, upscore16 32/16           score_pool4c 5, score 27
    8       upscore2 4/2, upscore_pool4 4/2,        score_pool4c 5, score_pool3c 9, score 31
            upscore8 16/8

Options of every net: classes, and its trunk's (see `reference.trunks`). Of nets that fuse strides also learned: the
deconvolutions inside the net learn, as in the CVPR version, and the last stays bilinear; fixed: nothing but the scores
learns (CVPR's FCN-32s-fixed). Of nets with one label: normalization, of the loss. Of SIFT Flow's: geometric, how many
geometric classes there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from reference.builder import FROZEN, Builder
from reference.net import NetSpec
from reference.trunks import Trunk, alexnet, googlenet, vgg16


def fcn(
    name: str,
    stride: int,
    classes: int,
    *,
    learned: bool = False,
    fixed: bool = False,
    factors: tuple[float, float] = (1, 1),
    normalization: str = "batch_size",
    **options: Any,
) -> NetSpec:
    """FCN-32s, -16s or -8s: scores of fc7, then of pool4, then of pool3, each added to what is coarser.

    factors: frozen, of pool4 and pool3 before they are scored.
    """
    n = Builder(name)
    data, label = n.input("data", 3), n.input("label", 1)
    trunk = vgg16(n, data, **options)
    if fixed:
        n.layers = [replace(layer, params=FROZEN * len(layer.params)) for layer in n.layers]
    n.loss("loss", _scores(n, trunk, data, stride, classes, learned, factors=factors), label, normalization)
    return n.spec()


def two_tasks(
    name: str, stride: int, classes: int, geometric: int = 3, *, learned: bool = False, **options: Any
) -> NetSpec:
    """SIFT Flow: semantic and geometric classes (section 5.2) from one trunk, a head and a loss each."""
    n = Builder(name)
    data, sem, geo = n.input("data", 3), n.input("sem", 1), n.input("geo", 1)
    trunk = vgg16(n, data, **options)
    n.loss("loss", _scores(n, trunk, data, stride, classes, learned, task="_sem"), sem)
    n.loss("loss_geo", _scores(n, trunk, data, stride, geometric, learned, task="_geo"), geo)
    return n.spec()


def early_fusion(name: str, classes: int, **options: Any) -> NetSpec:
    """NYUDv2's RGBD: depth as a fourth channel; `surgery.widen` makes the weights of conv1_1_bgrd."""
    n = Builder(name)
    color, depth, label = n.input("color", 3), n.input("depth", 1), n.input("label", 1)
    data = n.concat("data", color, depth)
    trunk = vgg16(n, data, first="conv1_1_bgrd", **options)
    n.loss("loss", _scores(n, trunk, data, 32, classes), label)
    return n.spec()


def late_fusion(name: str, classes: int, **options: Any) -> NetSpec:
    """NYUDv2's RGB-HHA: FCN-32s for each up to score_fr, whose mean is upsampled."""
    n = Builder(name)
    color, hha, label = n.input("color", 3), n.input("hha", 3), n.input("label", 1)
    scores = []
    for image in (color, hha):
        trunk = vgg16(n, image, suffix=image, **options)
        scores.append(n.conv(f"score_fr{image}", trunk.fc7, classes, 1))
    fused = n.fuse("score_fused", *scores, coeff=(0.5, 0.5))
    upscore = n.upscore("upscore", fused, classes, kernel=64, stride=32)
    n.loss("loss", n.crop("score", upscore, like=color), label)
    return n.spec()


def fcn_alexnet(name: str, classes: int, **options: Any) -> NetSpec:
    """FCN-AlexNet. The only net that the authors train with a normalized loss; crop offset 18."""
    return _single_stream(name, alexnet, "valid", classes, options)


def fcn_googlenet(name: str, classes: int, normalization: str = "batch_size", **options: Any) -> NetSpec:
    """FCN-GoogLeNet of table 1, which was never released. Crop offset 98: an even kernel's would be no whole number."""
    return _single_stream(name, googlenet, normalization, classes, options)


def _single_stream(
    name: str, trunk: Callable[..., str], normalization: str, classes: int, options: dict[str, Any]
) -> NetSpec:
    n = Builder(name)
    data, label = n.input("data", 3), n.input("label", 1)
    score_fr = n.conv("score_fr", trunk(n, data, **options), classes, 1)
    upscore = n.upscore("upscore", score_fr, classes, kernel=63, stride=32)
    n.loss("loss", n.crop("score", upscore, like=data), label, normalization)
    return n.spec()


def _scores(
    n: Builder,
    trunk: Trunk,
    image: str,
    stride: int,
    classes: int,
    learned: bool = False,
    *,
    task: str = "",
    factors: tuple[float, float] = (1, 1),
) -> str:
    """All from the trunk's tops to the scores of every pixel. task: the end of all names."""

    def skip(pool: str, bottom: str, coarser: str, factor: float) -> str:
        """Score a finer pooled map, cut it to the coarser scores, and add the two."""
        if factor != 1:
            bottom = n.scale(f"scale_{pool}", bottom, factor)
        score = n.conv(f"score_{pool}{task}", bottom, classes, 1)
        return n.fuse(f"fuse_{pool}{task}", coarser, n.crop(f"score_{pool}{task}c", score, like=coarser))

    def twice(name: str, bottom: str) -> str:
        return n.upscore(f"{name}{task}", bottom, classes, kernel=4, stride=2, learned=learned)

    top, last = n.conv(f"score_fr{task}", trunk.fc7, classes, 1), "upscore"
    if stride <= 16:
        top, last = skip("pool4", trunk.pool4, twice("upscore2", top), factors[0]), "upscore16"
    if stride == 8:
        top, last = skip("pool3", trunk.pool3, twice("upscore_pool4", top), factors[1]), "upscore8"
    top = n.upscore(f"{last}{task}", top, classes, kernel=2 * stride, stride=stride)
    return n.crop(f"score{task}", top, like=image)


def _staged(dataset: str, net: Callable[..., NetSpec], classes: int) -> dict[str, Callable[..., NetSpec]]:
    """A net of each stride."""
    names = {stride: f"{dataset}-fcn{stride}s" for stride in (32, 16, 8)}
    return {name: partial(net, name, stride, classes=classes) for stride, name in names.items()}


# By the names of the authors' folders.
NETS: dict[str, Callable[..., NetSpec]] = {
    **_staged("voc", fcn, 21),
    # Trained in one stage (PAMI 2016): without the factors the skips' large activations would drown fc7's scores.
    "voc-fcn8s-atonce": partial(fcn, "voc-fcn8s-atonce", 8, classes=21, factors=(0.01, 0.0001)),
    "voc-fcn-alexnet": partial(fcn_alexnet, "voc-fcn-alexnet", classes=21),
    "voc-fcn-googlenet": partial(fcn_googlenet, "voc-fcn-googlenet", classes=21),
    "nyud-fcn32s-color": partial(fcn, "nyud-fcn32s-color", 32, classes=40),
    "nyud-fcn32s-hha": partial(fcn, "nyud-fcn32s-hha", 32, classes=40),
    "nyud-fcn32s-color-d": partial(early_fusion, "nyud-fcn32s-color-d", classes=40),
    "nyud-fcn32s-color-hha": partial(late_fusion, "nyud-fcn32s-color-hha", classes=40),
    **_staged("siftflow", two_tasks, 33),
    **_staged("pascalcontext", fcn, 60),
}
