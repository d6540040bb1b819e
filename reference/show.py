"""A net as a table: layers, shapes, parameters, multiply-adds, stride, receptive field, offset and crop of every top.

Offset: where the first pixel of a top is centred, in image pixels. --draw shows what padding and crops are for.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcn import cli
from fcn.cli import BadInput
from fcn.files import write_json
from reference import NETS, checkpoint
from reference.caffe import load_prototxt
from reference.layers import Pair
from reference.net import NetSpec
from reference.recipes import RECIPES
from reference.runs import net_of
from reference.summary import SIZE, summarise

PICTURES = (".png", ".svg", ".pdf")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    args = cli.parser("show.py", __doc__ or "", "python reference/show.py voc-fcn32s --size 224x224 --draw fcn32s.png")
    args.add_argument(
        "net",
        metavar="NET",
        help=f"a file (.prototxt, or a checkpoint's .safetensors), a recipe, or one of {', '.join(NETS)}",
    )
    args.add_argument("--size", metavar="HxW", help="of the image; not given: 375x500, or what a classifier needs")
    args.add_argument("--classes", type=int, help="of a net or recipe; not given: its own")
    args.add_argument("--width", type=float, help="factor of all channels of a net or recipe; not given: its own")
    args.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    args.add_argument("--draw", type=Path, metavar="FILE", help=f"draw the net over the image ({' '.join(PICTURES)})")
    return args.parse_args(argv)


@cli.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.draw and args.draw.suffix not in PICTURES:
        raise BadInput(f"{args.draw}: give a name that ends in {' or '.join(PICTURES)}")
    size = parse_size(args.size)
    spec = find(args.net, {key: getattr(args, key) for key in ("classes", "width") if getattr(args, key) is not None})
    try:
        summary = summarise(spec, size)
    except ValueError as problem:
        raise BadInput(f"{args.net}: {problem}; choose another --size") from problem
    print(summary)
    if args.json:
        write_json(args.json, summary.to_json())
    if args.draw:
        picture(spec, (size or SIZE)[1], args.draw)
        print(f"\n{args.draw}")


def find(net: str, options: dict[str, Any]) -> NetSpec:
    """The graph behind a file, a recipe's name or a net's. Raises BadInput where there is none.

    options: classes and width, for names only: a file says all that there is to say.
    """
    if not 1 <= options.get("classes", 1) <= 10_000 or not 0 < options.get("width", 1) <= 4:
        raise BadInput("give --classes from 1 to 10000 and --width above 0, 4 at most")
    if net in NETS:
        return NETS[net](**options)
    recipe, path = RECIPES.get(net), Path(net)
    if options and (path.suffix or (recipe and recipe.net not in NETS)):
        raise BadInput(f"{net}: a file says how wide its net is; leave out --{min(options)}")
    if recipe:
        return net_of(replace(recipe, options={**recipe.options, **options})).spec
    if path.suffix == ".prototxt":
        return load_prototxt(path).spec
    if path.suffix == ".safetensors":
        return checkpoint.load(path).net.spec
    names = ", ".join(dict.fromkeys([*NETS, *RECIPES]))
    raise BadInput(f"no net {net!r}; give a .prototxt, a .safetensors, or one of {names}")


def parse_size(text: str | None) -> Pair | None:
    """`375x500` as (375, 500). Raises BadInput for anything else, and for sides of none or over 10,000 pixels."""
    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    height, width = (int(side) for side in sides.groups()) if sides else (0, 0)
    if not 1 <= min(height, width) <= max(height, width) <= 10_000:
        raise BadInput(f"--size {text}: give height x width, as 375x500, 10000 at most")
    return height, width


def picture(spec: NetSpec, width: int, path: Path) -> None:
    """Draw the net over an image of `width` pixels. Raises BadInput for a net that has nothing to draw."""
    from reference import drawing  # matplotlib takes its time, and only this needs it

    try:
        drawing.save(path, spec, width)
    except ValueError as problem:
        raise BadInput(f"{spec.name}: {problem}") from problem


if __name__ == "__main__":
    sys.exit(main())
