"""What a recipe costs before it was ever run: hours on the paper's GPU, and bytes on the disk.

Hours rest on one published measurement a trunk, the forward time of CVPR 2015's table 1, carried over to other nets and
sizes by their multiply-adds, with a backward pass taken as two forward ones. Nothing of it was run by us. It agrees
with the paper's "three days" for FCN-32s only because recipes/cvpr.py chose its iterations that way.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from reference import NETS
from reference.data.check import COUNTS
from reference.layers import Pair
from reference.recipes import Recipe
from reference.runs import net_of
from reference.summary import summarise

GPU = "Tesla K40c"
FORWARD_MS = {"voc-fcn32s": 210, "voc-fcn-alexnet": 50, "voc-fcn-googlenet": 59}  # one image of TIMED
TIMED = (500, 500)
FORWARDS = 3  # what a step costs: itself, and a backward pass of twice as much
# Height and width: VOC's are of many sizes, most like this; NYUDv2 as cut by Gupta et al.
SIZES: dict[str, Pair] = {
    **dict.fromkeys(("voc", "sbd", "pascalcontext"), (375, 500)),
    "nyud": (425, 560),
    "siftflow": (256, 256),
    "camvid": (360, 480),
}


def home(data: str) -> str:
    """The data set on the disk: nyud of nyud-color."""
    return data.partition("-")[0]


def hours(recipe: Recipe) -> float:
    """Of its iterations and evaluations, on GPU. Of a net that reference.build knows."""
    trunk = next((name for name in FORWARD_MS if name.rpartition("-")[2] in recipe.net), "voc-fcn32s")
    rate = FORWARD_MS[trunk] / _multiply_adds(trunk, TIMED)
    forward = rate * _multiply_adds(recipe.net, SIZES[home(recipe.data)])
    trained = recipe.iterations * recipe.solver.iter_size * recipe.batch * FORWARDS
    splits = COUNTS[home(recipe.val_data or recipe.data)]
    scored = recipe.iterations / recipe.evaluate_every * min(splits[recipe.val_split].values())
    return (trained + scored) * forward / 3.6e6


@cache
def _multiply_adds(net: str, size: Pair) -> int:
    return summarise(NETS[net](), size).multiply_adds


def weights_bytes(recipe: Recipe) -> int:
    """Of its weights, as float32."""
    if recipe.net in NETS:
        return 4 * summarise(NETS[recipe.net](**recipe.options)).parameters
    return 4 * net_of(recipe).summary().parameters


def disk_bytes(recipes: Iterable[Recipe]) -> int:
    """Of all weights, and of the largest net's snapshot: its history too, and a second one while it is written."""
    each = [weights_bytes(recipe) for recipe in recipes]
    return sum(each) + 4 * max(each)
