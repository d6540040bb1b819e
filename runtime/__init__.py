"""Label maps from a deployed model file, without torch: `runtime.Segmenter.open("model.onnx")(image)`.

`Segmenter` is imported on first use, so that `export` can take `runtime.metadata` without numpy's or an
inference library's start-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    if name == "Segmenter":
        from runtime.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
