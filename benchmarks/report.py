"""Write the report that `make demo` ends with: one self-contained page of this run's results.

Its figures come from the files that the other commands wrote; here only the pictures are computed.
Beside it, grid.png: the pictures alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import page, pictures, sections
from benchmarks.proof import RESULTS, claims
from benchmarks.sections import Stage
from export.to_onnx import weights_sha256
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, existing, read_json
from reference import checkpoint
from reference.checkpoint import Checkpoint
from reference.data.figures import THIN
from reference.data.shapes import Shapes
from reference.progress import LOG, SCORES, read_table
from reference.runs import RUNS, WEIGHTS

STRIDES = ("32s", "16s", "8s")
EACH = 3  # pictures for every thin class
TITLE = "FCN: a classifier learns to label every pixel"
LEAD = (
    "A VGG-16 classifier made fully convolutional, trained in three stages by Caffe's own rules, exported to ONNX, run "
    "without PyTorch, checked and timed."
)
TRAIN = "python reference/train.py shapes-fcn8s --staged"


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser("report.py", __doc__ or "", "python benchmarks/report.py --runs out/runs --out out/report.html")
    args.add_argument("--runs", type=Path, default=RUNS, help="where train.py put shapes-fcn32s, -16s and -8s")
    args.add_argument("--accuracy", type=Path, default=Path("out/accuracy.json"), help="of benchmarks/accuracy.py")
    args.add_argument("--latency", type=Path, default=Path("out/latency/latency.json"), help="of benchmarks/latency.py")
    args.add_argument("--results", type=Path, default=RESULTS, help="committed results, shapes-study.json among them")
    args.add_argument("--out", type=Path, default=Path("out/report.html"), help="the page; grid.png goes beside it")
    options = args.parse_args(argv)

    checkpoints = {stride: load(options.runs, stride) for stride in STRIDES}
    stages = {stride: stage(options.runs, stride, saved) for stride, saved in checkpoints.items()}
    accuracy = measured(options.accuracy, "python benchmarks/accuracy.py")
    latency = measured(options.latency, "python benchmarks/latency.py")
    committed = options.results / "shapes-study.json"
    study = read_json(committed) if committed.exists() else None
    finest = stages[STRIDES[-1]].weights_sha256
    if accuracy.get("weights_sha256") != finest:
        raise BadInput(f"{options.accuracy}: of other weights than {options.runs}: python benchmarks/accuracy.py again")

    data = Shapes("val")
    print("choosing and labelling pictures ...", flush=True)
    grid = pictures.rows(data, pictures.choose(data, THIN, EACH), checkpoints)
    try:
        text = page.document(
            TITLE,
            page.header(TITLE, LEAD),
            sections.summary(stages, accuracy, latency),
            sections.results(stages, study),
            gallery(grid, data),
            sections.learning(stages),
            sections.agreement(accuracy),
            sections.proof(claims(options.results)),
            sections.speed(latency, finest),
            sections.origin(stages, {"accuracy": accuracy, "latency": latency, "committed study": study}),
        )
    except KeyError as error:
        raise BadInput(f"a measurement lacks {error}: it is of another version; repeat it, or run make demo") from error
    with atomic(options.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    picture = options.out.with_name("grid.png")
    with atomic(picture) as temporary:
        pictures.figure(grid, data).savefig(temporary, dpi=110)
    print(f"{options.out} ({options.out.stat().st_size / 1e6:.1f} MB), {picture}")


def load(runs: Path, stride: str) -> Checkpoint:
    """The weights of a stage. Raises BadInput, naming the command that makes them."""
    return checkpoint.load(existing(runs / f"shapes-fcn{stride}" / WEIGHTS, hint=f"{TRAIN} makes it"))


def stage(runs: Path, stride: str, saved: Checkpoint) -> Stage:
    """What a stage left beside its weights."""
    folder = runs / f"shapes-fcn{stride}"
    return Stage(
        result=measured(folder / "result.json", TRAIN),
        log=read_table(existing(folder / LOG, hint=f"{TRAIN} makes it")),
        scores=read_table(existing(folder / SCORES, hint=f"{TRAIN} makes it")),
        weights_sha256=weights_sha256(saved.net),
    )


def measured(path: Path, maker: str) -> dict[str, Any]:
    """A measurement. Raises BadInput, naming the command that makes it."""
    found = read_json(existing(path, hint=f"{maker} makes it"))
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not a measurement; {maker} makes it")
    return found


def gallery(grid: Sequence[pictures.Row], data: Shapes) -> str:
    """The pictures with their legend."""
    return page.section(
        "What it sees",
        page.paragraph(
            f"Validation images with most pixels of the thin classes {' and '.join(THIN)}, chosen by the truth alone: "
            "parts 3 to 6 pixels wide, which a stride of 32 cannot resolve."
        ),
        pictures.html(grid, data),
        page.legend(pictures.legend(data)),
    )


if __name__ == "__main__":
    sys.exit(main())
