"""CamVid, which the paper did not use: road scenes of 480x360, 367 to train on, on a narrow VGG-16 for CPUs.

It starts from the committed classifier of `shapes`, for want of ImageNet weights at this width: expect little.
"""

from __future__ import annotations

from reference.recipes.shapes import narrow_stages

RECIPES = narrow_stages("camvid", 11, source="not in the paper", cost="two minutes on 2 CPU cores")
