"""Write torchvision's VGG-16 as a caffemodel: the same scores from BGR images of 0 to 255 minus a mean.

train.py takes torchvision's file as it is (--weights); this is for Caffe, and for reading the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fcn.cli import BadInput, command, parser
from reference import build
from reference.caffe import save_caffemodel
from reference.pretrained import GIVE, MEAN, read_torchvision
from reference.surgery import transplant
from reference.trunks import FC, VGG16_BLOCKS


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("convert.py", __doc__ or "", "python reference/convert.py vgg16-397923af.pth -o vgg16.caffemodel")
    args.add_argument("weights", type=Path, help="torchvision's state dict (.pth, .safetensors)")
    args.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.caffemodel")
    options = args.parse_args(argv)
    if options.out.suffix != ".caffemodel":
        raise BadInput(f"{options.out}: give a name that ends in .caffemodel")
    weights = read_torchvision(options.weights)
    try:
        net = build(
            "vgg16",
            classes=len(weights["fc8.bias"]),
            width=len(weights["conv1_1.bias"]) / VGG16_BLOCKS[0][1],
            fc_width=len(weights["fc6.bias"]) / FC,
        )
        transplant(net, weights)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{options.weights}: these are not VGG-16's shapes ({error}); {GIVE}") from error
    save_caffemodel(net, options.out)
    blue, green, red = (f"{value:g}" for value in MEAN)
    print(f"{options.out}: subtract the mean B {blue} G {green} R {red}, no other, from BGR images of 0 to 255")
    return 0


if __name__ == "__main__":
    sys.exit(main())
