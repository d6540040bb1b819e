"""Segment one image with PyTorch (the authors' infer.py). For many images and for deployment: runtime/segment.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fcn.cli import BadInput, command, parser
from fcn.images import overlay, preprocess, read_image, write_image, write_label
from reference import checkpoint
from reference.runs import latest, pick_device


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("infer.py", __doc__ or "", "python reference/infer.py photo.jpg --out out/photo.png")
    args.add_argument("image", type=Path, help="any image that Pillow reads; it is not resized")
    args.add_argument("--weights", type=Path, help="a checkpoint; without one, the latest run's")
    args.add_argument("--out", type=Path, default=Path("out/label.png"), help="label map, a palette PNG")
    args.add_argument("--overlay", type=Path, help="write the image with its labels laid over it there too")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    options = args.parse_args(argv)

    path = options.weights or latest()
    if path is None:
        raise BadInput("out/runs: holds no finished run; give --weights, or train first")
    saved = checkpoint.load(path)
    device = pick_device(options.device)
    image = read_image(options.image)
    net = saved.net.eval().to(device)
    try:
        with torch.no_grad():
            score = net(torch.from_numpy(preprocess([image], saved.about.mean, saved.about.channel_order)).to(device))
        label = score[0].argmax(0).to(torch.uint8).cpu().numpy().reshape(image.shape[:2])
    except (ValueError, RuntimeError, KeyError) as error:  # a classifier, a net of several inputs or outputs
        what = f"{saved.net.spec.name} makes no label map of {options.image} ({error})"
        raise BadInput(f"{path}: {what}; give an FCN's weights") from error
    palette = np.array(saved.about.palette, np.uint8)
    write_label(options.out, label, palette)
    if options.overlay:
        write_image(options.overlay, overlay(image, label, palette))
    shares = [(np.mean(label == i), name) for i, name in enumerate(saved.about.classes)]
    print(
        f"{options.out}: " + ", ".join(f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True) if share)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
