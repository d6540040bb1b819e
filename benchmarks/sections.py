"""The sections of the report: each takes what was measured and gives markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks import charts, page, study
from benchmarks.proof import Claim
from reference.engine import METRICS

HEADS = ("pixel acc.", "mean acc.", "mean IU", "f.w. IU")
NEVER_RUN = (
    "TensorRT: no engine has been built, run or timed. TensorRT-RTX: the suite builds engines, none was ever run.",
    "Full-size FCNs on PASCAL VOC: never trained here. Recipes, rates and iterations are the authors' (the paper: days "
    "for each stage on one GPU); figures of the paper in this project are quotations with their source.",
)


@dataclass(frozen=True)
class Stage:
    """One finished run of train.py."""

    result: Mapping[str, Any]
    log: Sequence[Mapping[str, float]]
    scores: Sequence[Mapping[str, float]]
    weights_sha256: str


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def summary(stages: Mapping[str, Stage], accuracy: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """What catches the eye."""
    ious = [percent(stage.result["metrics"]["mean_iu"], 1) for stage in stages.values()]
    at = latency["sizes"][0]
    fastest = min((row for row in at["rows"] if row["begins_with"] == "tensor"), key=lambda row: row["median_ms"])
    return page.tiles(
        [
            (" → ".join(ious), f"mean IU in percent, FCN-{' → '.join(stages)}, this run"),
            (
                f"{accuracy['differ']:,} of {accuracy['pixels'] / 1e6:.1f} M",
                "pixels get another label from the deployed file than from PyTorch",
            ),
            (f"{fastest['median_ms']:.4g} ms", f"{fastest['name']}, the fastest at {at['height']}x{at['width']}"),
        ]
    )


def results(stages: Mapping[str, Stage], committed: Mapping[str, Any] | None) -> str:
    """This run beside the committed study."""
    return page.section(
        "What the skips bring",
        page.paragraph(
            "Each stage starts from the weights of the one before and adds a skip: FCN-16s reads pool4 too, FCN-8s "
            "pool3. All figures in percent."
        ),
        _this_run(stages),
        _study(committed),
    )


def _this_run(stages: Mapping[str, Stage]) -> str:
    first = next(iter(stages.values())).result
    body = []
    for stride, stage in stages.items():
        found = stage.result
        figures = [percent(found["metrics"][key]) for key in (*METRICS, "live_fc7")]
        body.append([f"FCN-{stride}", *figures, f"{found['iterations']:,}", f"{found['seconds']:,.0f}"])
    ious = [stage.result["metrics"]["mean_iu"] for stage in stages.values()]
    holds = all(a < b for a, b in pairwise(ious))
    order = " < ".join(stages)
    said = f"The paper's order of mean IU, {order}, {'holds' if holds else 'does not hold'} in this run."
    return "".join(
        [
            page.heading(f"This run: {first['val']}, seed {first['seed']}"),
            page.table(("", *HEADS, "live fc7", "iterations", "seconds"), body),
            page.paragraph(said, "good" if holds else "bad"),
            page.paragraph("One seed proves little: the study below has several, and a control.", "soft"),
        ]
    )


def _study(committed: Mapping[str, Any] | None) -> str:
    if committed is None:
        return page.heading("The committed study") + page.paragraph(
            "There is none yet: python benchmarks/study.py makes benchmarks/results/shapes-study.json.", "bad"
        )
    names = {f"shapes-fcn{stride}": f"FCN-{stride}" for stride in charts.COLOURS}
    names[study.CONTROL] = "control"
    body: list[list[str | tuple[str, str]]] = []
    for net, name in names.items():
        val, test = (committed["summary"][split][net] for split in study.SPLITS)
        body.append([name, *(_spread(val[key]) for key in (*METRICS, *committed["thin"])), _spread(test["mean_iu"])])
    seeds = ", ".join(str(seed) for seed in committed["seeds"])
    verdicts = []
    for split in study.SPLITS:
        order, control = study.verdict(dict(committed), split)
        held = all(committed["order_held"][split].values())
        verdicts += [page.paragraph(order, "good" if held else "bad"), page.paragraph(control)]
    return "".join(
        [
            page.heading(f"Committed result, not of this run: shapes val, seeds {seeds}"),
            page.table(("mean, min to max", *HEADS, *(f"{n} IU" for n in committed["thin"]), "mean IU, test"), body),
            *verdicts,
            page.paragraph(
                f"{committed['iterations']:,} iterations a stage; control: FCN-32s for "
                f"{len(study.STAGES) * committed['iterations']:,}. The test split was never looked at while rates were "
                f"chosen. {committed['date']}, {_machine(committed)}.",
                "soft",
            ),
        ]
    )


def _spread(value: Mapping[str, float]) -> tuple[str, str]:
    return percent(value["mean"], 1), f"{percent(value['min'], 1)} to {percent(value['max'], 1)}"


def learning(stages: Mapping[str, Stage]) -> str:
    """Loss, mean IU and live fc7 units over all stages."""
    logs = {stride: stage.log for stride, stage in stages.items()}
    scores = {stride: stage.scores for stride, stage in stages.items()}
    drawn = (
        charts.curves(logs, "loss_per_pixel", "loss per labelled pixel (training)", mean_of=5),
        charts.curves(_in_percent(scores, "mean_iu"), "mean_iu", "mean IU, percent (validation)"),
        charts.curves(_in_percent(scores, "live_fc7"), "live_fc7", "live fc7 channels, percent"),
    )
    return page.section(
        "How it learned",
        page.paragraph(
            "All stages on one axis. Too high a rate kills fc7's ReLUs, and the net then looks like one that has only "
            "learned the background: the share of channels that fire anywhere on the validation images tells the two "
            "apart."
        ),
        page.beside(*(page.chart(charts.svg(figure, f"curve{i}")) for i, figure in enumerate(drawn))),
    )


def _in_percent(tables: Mapping[str, Sequence[Mapping[str, float]]], key: str) -> dict[str, list[dict[str, float]]]:
    return {
        stride: [{"iteration": row["iteration"], key: 100 * row[key]} for row in rows]
        for stride, rows in tables.items()
    }


def agreement(accuracy: Mapping[str, Any]) -> str:
    """PyTorch against the deployed file."""
    verified, differ, pixels = accuracy["verification"], accuracy["differ"], accuracy["pixels"]
    sizes = ", ".join(f"{f'{n} of ' if n > 1 else ''}{h}x{w}" for n, h, w in verified["sizes"])
    scores = "" if verified["worst"] is None else f"scores within {verified['worst']:.1e} of the greatest, "
    return page.section(
        "The deployed file computes the same",
        page.table(
            (f"{accuracy['data']}, {accuracy['images']} images", *HEADS),
            [
                ["PyTorch", *(percent(accuracy["pytorch"][key], 4) for key in METRICS)],
                ["deployed file", *(percent(accuracy["onnx"][key], 4) for key in METRICS)],
            ],
        ),
        page.paragraph(
            f"Labels are equal on {accuracy['equal_labels']:.5%} of all pixels: {differ:,} of {pixels:,} differ "
            f"({accuracy['runtime']})."
        ),
        page.paragraph(
            f"The export's own check, on noise at {sizes}: {scores}labels equal on {verified['agreement']:.4%} "
            f"({verified['runtime']})."
        ),
    )


def proof(claims: Sequence[Claim]) -> str:
    """Claim, evidence, command."""
    rows = [[page.cell(of.claim), page.cell(of.evidence), page.cell(of.command, code=True)] for of in claims]
    return page.section(
        "What stands behind it",
        page.paragraph("Committed results and tests, not of this run."),
        page.text_table(("claim", "evidence", "command"), rows),
    )


def speed(latency: Mapping[str, Any], weights_sha256: str) -> str:
    """Latency tables and plot."""
    same = latency["weights_sha256"] == weights_sha256
    parts = [
        page.paragraph(
            f"{latency['net']} ({'of this run' if same else latency['source']}; {latency['megabytes']:g} MB), "
            f"threads {latency['threads']} for every library, {latency['device']}: "
            f"{_machine(latency)}. From float32 input in memory to {latency['io']} in memory; a Segmenter goes "
            "from uint8 picture to label map. All take turns in one process, after giving the same labels."
        ),
        page.chart(charts.svg(charts.latency(latency), "latency")),
    ]
    for at in latency["sizes"]:
        rows = [
            [
                row["name"],
                *(f"{row[key]:.2f}" for key in ("median_ms", "p90_ms", "p99_ms", "images_per_s")),
                str(row["runs"]),
                f"{row['equal_labels']:.3%}",
                row["provider"],
            ]
            for row in at["rows"]
        ]
        head = ("median ms", "p90", "p99", "images/s", "runs", "equal labels", "what really ran")
        parts.append(page.table((f"{at['batch']} x {at['height']}x{at['width']}", *head), rows))
        settings = "; ".join(f"{row['name']}: {row['settings']}" for row in at["rows"])
        parts.append(page.paragraph(f"Settings: {settings}.", "soft"))
        parts += [page.paragraph(f"{name} is absent: {why}", "soft") for name, why in at["absent"].items()]
    return page.section("How fast it runs", *parts)


def origin(stages: Mapping[str, Stage], records: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Commands, machines, dates, versions, hashes, and what has never been run. records: by what they are of."""
    made = {f"FCN-{stride}": stage.result for stride, stage in stages.items()}
    made |= {name: record for name, record in records.items() if record}
    places: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, of in made.items():
        versions = ", ".join(f"{package} {version}" for package, version in of["versions"].items())
        commands = places.setdefault((f"{of['date']}, {_machine(of)}", versions), {})
        commands.setdefault(of["command"], []).append(name)
    parts = []
    for (place, versions), commands in places.items():
        rows = [[page.cell(", ".join(names)), page.cell(command, code=True)] for command, names in commands.items()]
        parts += [page.heading(place), page.paragraph(versions, "soft"), page.text_table(("what", "command"), rows)]
    weights = [
        [page.cell(f"FCN-{stride}"), page.cell(stage.weights_sha256, code=True)] for stride, stage in stages.items()
    ]
    gpu = any(record["machine"]["gpu"] for record in made.values())
    return page.section(
        "Where this comes from",
        *parts,
        page.heading("Weights of this run"),
        page.text_table(("net", "SHA-256, as in the ONNX file's metadata"), weights),
        page.heading("Never run"),
        *(page.paragraph(text) for text in (*NEVER_RUN, *(() if gpu else ("Nothing on this page ran on a GPU.",)))),
    )


def _machine(of: Mapping[str, Any]) -> str:
    machine = of["machine"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    return f"{machine['processor']}, {cores}, {machine['memory_gib']:g} GiB{gpu}, {machine['system']}"
