"""The report of reference/reproduce.py: the paper's table beside ours, curves, IU by class, pictures, and where all
comes from. reproduce.py runs this when it is done; given the same JSON file again it writes the same page.

Of the authors' released weights also what the deployed files make of them: each net with one image and one label is
exported to ONNX and run by ONNX Runtime, and by TensorRT where an engine lies beside it (model.engine, of
runtime/build.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import charts, page
from benchmarks.sections import HEADS, percent
from fcn.cli import BadInput, command, parser
from fcn.files import atomic, existing, read_json, sha256, write_json
from reference import checkpoint
from reference.assess import kept
from reference.data import INPUT
from reference.data.check import COUNTS
from reference.engine import METRICS
from reference.progress import LOG, SCORES, read_table
from reference.recipes import find
from reference.runs import WEIGHTS, open_data

BACKENDS = "backends.json"
NOTHING = {"figures": {}, "difference": {}, "source": "nothing published", "certain": True}
MAKER = "python reference/reproduce.py GROUP makes it"
Row = Mapping[str, Any]


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser("reproduction.py", __doc__ or "", "python benchmarks/reproduction.py out/reproduce/voc.json")
    args.add_argument("results", type=Path, help="GROUP.json of reference/reproduce.py")
    args.add_argument("--data", type=Path, help="folder of the data sets, for the deployed files of released weights")
    args.add_argument("--device", default="auto", help="PyTorch's device: auto, cpu, cuda ...")
    options = args.parse_args(argv)
    results = read_json(options.results, MAKER)
    try:
        rows = results["rows"]
        backends = [line for row in rows for line in deployed(row, options)] if results["released"] else []
        text = page.document(
            results["title"],
            page.header(results["title"], lead(results)),
            warnings(results),
            page.section("The paper's table beside ours", beside(results), *notes(rows)),
            through_backends(backends),
            curves(rows),
            by_class(rows),
            pictures(rows),
            origin(results),
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"{options.results}: lacks {error}: of another version? {MAKER}") from error
    path = options.results.with_suffix(".html")
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(path)


def lead(results: Mapping[str, Any]) -> str:
    how = "The authors' released weights, scored here" if results["released"] else "Trained and scored here"
    return f"{how}, {results['date']}, by the authors' protocol. All figures in percent."


def warnings(results: Mapping[str, Any]) -> str:
    """Whatever makes these figures none to be compared with the paper's, said first."""
    said = []
    if results["shortened"]:
        said.append(f"SHORTENED: every stage was cut to {results['shortened']} iterations.")
    if results["narrow"]:
        said.append("NARROW: copies of the nets an eighth as wide, started from the project's own small classifier.")
    for name, split, images in sorted({(*row["data"].split(), row["images"]) for row in results["rows"]}):
        counts = COUNTS.get(name.partition("-")[0], {}).get(split, {})
        if counts and images not in counts.values():
            whole = ", ".join(f"{count} in {edition}" for edition, count in counts.items())
            said.append(f"PART OF THE SPLIT: {images} images of {name} {split}; there are {whole}.")
    if said:
        said.append("This page shows that everything runs. Its figures are not the paper's nets'.")
    return "".join(page.paragraph(text, "bad") for text in said)


def beside(results: Mapping[str, Any]) -> str:
    """A line for each net and source: ours, and below it what was published and the difference."""
    rows = results["rows"]
    digits = 4 if results["released"] else 2  # the re-evaluation of the authors' weights has four
    keys = (*METRICS, *(["geometric"] if any("geometric" in row["ours"] for row in rows) else []))
    body: list[list[str | tuple[str, str]]] = []
    for row in rows:
        for of in row["published"] or [NOTHING]:
            source = of["source"] if of["certain"] else f"{of['source']}: unconfirmed"
            cells = [cell(row["ours"].get(key), of["figures"].get(key), digits) for key in keys]
            best = "" if row["best_mean_iu"] is None else f"{row['best_mean_iu']:.2f}"
            body.append([(row["recipe"], source), *cells, best])
    heads = (*HEADS, *(["geometric pixel acc."] if len(keys) > len(HEADS) else []))
    return page.table((rows[0]["data"], *heads, "best mean IU while training"), body)


def cell(ours: float | None, theirs: float | None, digits: int) -> str | tuple[str, str]:
    shown = "" if ours is None else f"{ours:.{digits}f}"
    return shown if ours is None or theirs is None else (shown, f"{theirs:.{digits}f}, {ours - theirs:+.{digits}f}")


def notes(rows: Sequence[Row]) -> list[str]:
    """What the small print is, the nets' sizes, and what is our reading or choice, once for all that it holds of."""
    body = []
    for row in rows:
        of = row["size"]
        sides = ("" if of[key] is None else f"{max(of[key]):g}" for key in ("total_stride", "receptive_field"))
        body.append([row["recipe"], f"{of['parameters'] / 1e6:.1f} M", *sides])
    told = [
        page.paragraph("Small print: what was published, and how much ours is above it.", "soft"),
        page.table(("", "parameters without deconvolutions", "largest stride", "receptive field"), body),
    ]
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):
        names = ", ".join(row["recipe"] for row in rows if row["note"] == note)
        told.append(page.paragraph(f"{names}: {note}.", "soft"))
    return told


# --- the deployed files -------------------------------------------------------------------------------------------


def deployed(row: Row, options: Any) -> list[dict[str, Any]]:
    """The row's four metrics by every backend, measured unless they were already."""
    # Imported where used: most reports are of nets that were trained here, and ONNX takes seconds.
    from benchmarks.accuracy import compare
    from export.to_onnx import export_onnx, weights_sha256
    from runtime.segmenter import Segmenter

    folder = Path(row["folder"])
    saved = checkpoint.load(folder / WEIGHTS)
    if saved.net.spec.inputs != (INPUT,) or len(saved.net.spec.outputs) > 1:
        return []  # a Segmenter makes one label map of one picture
    models = [folder / name for name in ("model.onnx", "model.engine")]
    if not models[0].exists():
        print(f"{export_onnx(saved.net, models[0], saved.about)}", flush=True)
    recipe = find(row["recipe"])
    data = open_data(recipe.val_data or recipe.data, options.data, recipe.val_split)
    known = kept(folder / BACKENDS)
    ours = weights_sha256(saved.net)
    found = []
    for model in (path for path in models if path.exists()):
        told = {"sha256": sha256(model), "data": f"{data.name} {recipe.val_split}", "images": len(data)}
        if {key: known.get(model.name, {}).get(key) for key in told} != told:
            with Segmenter.open(model) as segmenter:
                if segmenter.metadata.weights_sha256 != ours:
                    raise BadInput(f"{model}: holds other weights than {folder / WEIGHTS}; delete it")
                known[model.name] = told | {"backend": segmenter.backend, "weights_sha256": ours}
                known[model.name] |= compare(saved, segmenter, data, options.device)
            write_json(folder / BACKENDS, known)
        found.append({"recipe": row["recipe"], **known[model.name]})
    return found


def through_backends(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean IU by net and backend in one table, with how many labels differ from PyTorch's."""
    if not lines:
        return ""
    body: list[list[str]] = []
    for line in lines:
        if not body or body[-1][0] != line["recipe"]:
            body.append([line["recipe"], "PyTorch", *(percent(line["pytorch"][key], 4) for key in METRICS), ""])
        differ = f"{line['differ']:,} of {line['pixels']:,}"
        body.append([line["recipe"], line["backend"], *(percent(line["onnx"][key], 4) for key in METRICS), differ])
    return page.section(
        "Through every backend",
        page.table(("net", "backend", *HEADS, "labels unlike PyTorch's"), body),
        page.paragraph("Nets of several inputs or labels are scored by PyTorch only.", "soft"),
    )


# --- the rest -----------------------------------------------------------------------------------------------------


def curves(rows: Sequence[Row]) -> str:
    logs = {row["recipe"]: read_table(Path(row["folder"]) / LOG) for row in rows}
    scores = {row["recipe"]: read_table(Path(row["folder"]) / SCORES) for row in rows}
    if not any(logs.values()):
        return ""
    drawn = (
        charts.overlaid(logs, "loss_per_pixel", "loss per labelled pixel (training)"),
        charts.overlaid(scores, "mean_iu", "mean IU, percent (scored while training)", scale=100),
    )
    return page.section(
        "How it learned", page.beside(*(page.chart(charts.svg(of, f"curve{i}")) for i, of in enumerate(drawn)))
    )


def by_class(rows: Sequence[Row]) -> str:
    """IU of every class by every net, for each task."""
    parts = []
    for task in rows[0]["tasks"]:
        ious = [row["tasks"][task]["iu"] for row in rows]
        if len(rows[0]["tasks"]) > 1:
            parts.append(page.heading(task))
        body = [[name, *("absent" if of[name] is None else percent(of[name]) for of in ious)] for name in ious[0]]
        parts.append(page.table(("IU", *(row["recipe"] for row in rows)), body))
    return page.section("By class", *parts)


def pictures(rows: Sequence[Row]) -> str:
    """Image, truth and what every net says."""
    shown = []
    for index in rows[0]["pictures"]:
        folders = [Path(row["folder"]) / "pictures" for row in rows]
        files = [folders[0] / f"{index}-{kind}.png" for kind in ("image", "truth")]
        for path in (*files, *(folder / f"{index}-ours.png" for folder in folders)):
            with Image.open(existing(path, hint=MAKER)) as image:
                width, height = image.size
            shown.append(page.image(path.read_bytes(), "png", f"{path.parent.parent.name} {path.stem}", width, height))
    names = next(iter(rows[0]["tasks"].values()))["iu"]
    colours = [(name, (r, g, b)) for name, (r, g, b) in zip(names, rows[0]["palette"], strict=True)]
    return page.section(
        "What it sees",
        page.paragraph("Images evenly spread over the split, in its order: nobody chose them."),
        page.shots(("image", "truth", *(row["recipe"] for row in rows)), shown),
        page.legend(colours),
    )


def origin(results: Mapping[str, Any]) -> str:
    """Machine, versions, seeds, starts and hashes."""
    rows = results["rows"]
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    body = []
    for row in rows:
        trained, provenance = row["trained"], row["provenance"]
        gpu = trained.get("machine", {}).get("gpu") or trained.get("machine", {}).get("processor", "")
        how = f"{trained['date']}, {trained['seconds']:,.0f} s, {gpu}" if trained else "not trained here"
        start = provenance.get("start") or f"{provenance.get('released')}, sha256 {provenance.get('sha256')}"
        told = (row["recipe"], f"{row['iteration']:,}", str(provenance.get("seed", "")), start, how)
        body.append([*map(page.cell, told), page.cell(row["weights_sha256"], code=True)])
    checked = "; ".join(f"{name} on {found['date']}" for name, found in results["checked"].items())
    return page.section(
        "Where this comes from",
        page.paragraph(results["command"]),
        page.paragraph(f"{results['date']}; {machine}", "soft"),
        page.paragraph(versions, "soft"),
        page.paragraph(f"Every file of the data was opened and checked: {checked}.", "soft"),
        page.text_table(
            ("net", "iterations", "seed", "started from", "trained", "SHA-256 of weights.safetensors"), body
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
