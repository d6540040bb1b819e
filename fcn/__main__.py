"""`fcn COMMAND ...`: every command of the project under one name. Each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": ("reference.train", "train a recipe, stage by stage"),
    "evaluate": ("reference.evaluate", "the paper's four metrics on a data set"),
    "reproduce": ("reference.reproduce", "a table of the paper, from data and pretrained weights to a report"),
    "score": ("reference.score", "the same four of label images, whoever made them"),
    "infer": ("reference.infer", "segment one image with PyTorch"),
    "data": ("reference.prepare", "fetch the data sets and weights, check every file"),
    "convert": ("reference.convert", "torchvision's VGG-16 as a caffemodel"),
    "show": ("reference.show", "a net as a table, and a drawing of its padding and crops"),
    "export": ("export.to_onnx", "write a net as ONNX and verify it"),
    "build": ("runtime.build", "an ONNX file as a TensorRT engine for this GPU"),
    "segment": ("runtime.segment", "label maps of images and folders, without torch"),
    "prove": ("benchmarks.prove", "prove that a model file computes what Caffe computes, here"),
    "latency": ("benchmarks.latency", "time every way to run the net"),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: fcn COMMAND ...   (fcn COMMAND --help tells more)\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:<10} {purpose}")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    try:
        command = importlib.import_module(module)
    except ModuleNotFoundError as error:
        print(f"error: fcn {name} needs {error.name}: pip install -r requirements.txt", file=sys.stderr)
        return 2
    return command.main(rest)


if __name__ == "__main__":
    sys.exit(main())
