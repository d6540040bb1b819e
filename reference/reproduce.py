"""The paper's tables, from data and pretrained weights to a report: what is missing is trained, stage by stage.

A run that was cut off goes on when the same command is given again; what is finished is not repeated. The report lies
at OUT/GROUP.html, its figures at OUT/GROUP.json, each net in a folder of its name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from fcn.cli import BadInput, command, parser
from fcn.files import existing, sha256, write_json
from fcn.record import ROOT, record
from reference import checkpoint, cost, train
from reference.assess import assess, kept
from reference.data import places
from reference.data.sources import DATA, PRETRAINED, RELEASED, SOURCES, Source, matches
from reference.engine import WORKERS, describe, with_iterations
from reference.groups import GROUPS, Group, chain, data_of, pretrained_of
from reference.prepare import check_files
from reference.progress import finished
from reference.recipes import Recipe, narrow
from reference.runs import WEIGHTS, net_of, open_data, pick_device, start_from

OUT = Path("out/reproduce")
CHECKED = "checked.json"
EXAMPLE = """python reference/reproduce.py voc --dry-run
  python reference/reproduce.py voc --data data
  python reference/reproduce.py voc --data data --released data/weights"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.iterations is not None and options.iterations < 1:
        raise BadInput(f"--iterations {options.iterations}: at least 1")
    if options.released and (options.narrow or options.iterations):
        raise BadInput(f"--released {options.released}: trains nothing; leave --narrow and --iterations out")
    group = GROUPS[options.group]
    recipes = group.chosen(options.only)
    if options.narrow:
        recipes = [recipe for recipe in recipes if is_vgg16(recipe)]
    if options.dry_run:
        print(plan(group, recipes, options))
        return 0
    if not recipes:
        raise BadInput(f"{group.name}: no net of VGG-16 among them; leave --narrow out")
    hint = f"give the folder that holds the data sets with --data; {group.name} --dry-run says what to get"
    if options.data is None:
        raise BadInput(hint)
    existing(options.data, "folder", hint)
    device = pick_device(options.device)
    name, folders = group.name, {recipe.name: options.out / recipe.name for recipe in recipes}
    if options.released:
        name, recipes = f"released-{group.name}", released_of(recipes, options.released)
        check_data(data_of(recipes, training=False), options)
        folders = {recipe.name: adopt_released(recipe, options) for recipe in recipes}
    else:
        starts = {recipe.name: weights_for(recipe, options) for recipe in recipes}  # all of them, before hours pass
        check_data(data_of(recipes), options)
        for recipe in recipes:
            if failed := train.main(words(recipe, starts[recipe.name], options)):
                return failed
    rows = [
        assess(recipe, folders[recipe.name], options.data, group.split or recipe.val_split, device)
        for recipe in recipes
    ]
    figures = record(
        group=group.name,
        title=group.title,
        released=bool(options.released),
        narrow=options.narrow,
        shortened=options.iterations,
        seed=options.seed,
        checked=kept(options.out / CHECKED),
        rows=rows,
    )
    path = options.out / f"{name}.json"
    write_json(path, figures)
    print(table(rows))
    # The report stands on benchmarks/, which this package must not import: it is asked for as a user would.
    report = [sys.executable, ROOT / "benchmarks" / "reproduction.py", path, "--data", options.data]
    return subprocess.run([*map(str, report), "--device", options.device], check=False).returncode


def parse(argv: Sequence[str] | None) -> Namespace:
    args = parser("reproduce.py", __doc__ or "", EXAMPLE)
    args.add_argument("group", choices=GROUPS, metavar="GROUP", help=f"one of {', '.join(GROUPS)}")
    args.add_argument("--dry-run", action="store_true", help="say what to get, where to put it, and what it will cost")
    args.add_argument("--data", type=Path, help="folder of the data sets, as `fcn data fetch` fills it")
    args.add_argument("--weights", type=Path, help="folder of the pretrained weights; not given: weights/ in --data")
    args.add_argument("--released", type=Path, metavar="DIR", help="score the authors' caffemodels in DIR instead")
    args.add_argument("--only", nargs="+", default=[], metavar="RECIPE", help="these rows of the table")
    args.add_argument("--iterations", type=int, help="of each stage, instead of the paper's: the report says so")
    args.add_argument("--narrow", action="store_true", help="narrow copies of VGG-16's nets: to try data and machine")
    args.add_argument("--seed", type=int, default=1337, help="order of the images (the authors') and dropout")
    args.add_argument("--out", type=Path, default=OUT, help="runs and report")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    args.add_argument("--workers", type=int, default=WORKERS, help="processes that load ahead")
    return args.parse_args(argv)


def is_vgg16(recipe: Recipe) -> bool:
    """Whether there is a narrow copy of its net."""
    with suppress(BadInput):
        return bool(narrow(recipe))
    print(f"{recipe.name}: left out, --narrow is for VGG-16", file=sys.stderr)
    return False


# --- before anything is trained -----------------------------------------------------------------------------------


def check_data(names: Sequence[str], options: Namespace) -> None:
    """Open every file of the data sets, once: OUT/checked.json remembers. Raises BadInput for what is wrong."""
    path = options.out / CHECKED
    checked = kept(path)
    for name in names:
        folder = str(places.place(name, options.data).resolve())
        if checked.get(name, {}).get("folder") != folder:
            check_files(name, options.data)
            checked[name] = {"folder": folder, "date": datetime.now(UTC).strftime("%Y-%m-%d")}
            write_json(path, checked)


def weights_for(recipe: Recipe, options: Namespace) -> Path | None:
    """The pretrained file that a recipe's first stages start from. Raises BadInput where it is missing."""
    name = pretrained_of(recipe)
    if not name or options.narrow or all(finished(options.out / stage.name) for stage in chain([recipe])):
        return None
    (source,) = PRETRAINED[name]
    folder = options.weights or options.data / "weights"
    path = existing(
        folder / PurePosixPath(source.to).name,
        hint=f"python reference/prepare.py fetch {name} --dir {options.data}, or leave {recipe.name} out with --only",
    )
    if source.checksum and not matches(path, source.checksum):
        print(f"warning: {path}: is not the file that {source.published} has ({source.checksum})", file=sys.stderr)
    return path


def words(recipe: Recipe, weights: Path | None, options: Namespace) -> list[str]:
    """What to tell train.py."""
    told = [recipe.name, "--staged", "--data", options.data, "--out", options.out, "--seed", options.seed]
    told += ["--device", options.device, "--workers", options.workers]
    told += ["--weights", weights] if weights else []
    told += ["--iterations", options.iterations] if options.iterations is not None else []
    return [str(word) for word in (*told, *(["--narrow"] if options.narrow else []))]


# --- the authors' weights ---------------------------------------------------------------------------------------


def released_of(recipes: Sequence[Recipe], folder: Path) -> list[Recipe]:
    """Those whose released weights lie in `folder`. Raises BadInput where it has none."""
    existing(folder, "folder", "give the folder that holds the authors' caffemodels")
    found = []
    for recipe in recipes:
        if recipe.name in RELEASED and released_file(recipe, folder).exists():
            found.append(recipe)
        else:
            print(f"{recipe.name}: none of the authors' weights in {folder}", file=sys.stderr)
    if not found:
        names = [released_file(recipe, folder).name for recipe in recipes if recipe.name in RELEASED]
        wanted = f"any of {', '.join(names)}; python reference/prepare.py fetch NET" if names else "any of these nets"
        raise BadInput(f"{folder}: does not hold {wanted}")
    return found


def released_file(recipe: Recipe, folder: Path) -> Path:
    (source,) = RELEASED[recipe.name]
    return folder / PurePosixPath(source.to).name


def adopt_released(recipe: Recipe, options: Namespace) -> Path:
    """A folder with the authors' weights as a checkpoint. Raises BadInput where the file lacks any of the net's."""
    path = released_file(recipe, options.released)
    folder = options.out / "released" / recipe.name
    provenance = {"released": path.name, "sha256": sha256(existing(path))}
    if (folder / WEIGHTS).exists() and checkpoint.load(folder / WEIGHTS).about.provenance == provenance:
        return folder
    net = net_of(recipe)
    report, _ = start_from(net, path, recipe.name)
    if lacking := [key for key in report.missing if not key.startswith("upscore")]:
        raise BadInput(f"{path}: lacks {lacking[0]} of {recipe.name}; fetch it again")
    data = open_data(recipe.val_data or recipe.data, options.data, recipe.val_split)
    checkpoint.save(folder / WEIGHTS, net, describe(recipe, data, recipe.iterations, provenance))
    return folder


# --- what it will cost --------------------------------------------------------------------------------------------


def plan(group: Group, recipes: Sequence[Recipe], options: Namespace) -> str:
    """What to get, where to put it, and what it will cost, as text."""
    root = options.data or Path("data")
    lines = [f"{group.name}: {group.title}", "", f"data, below {root}:"]
    for name in data_of(recipes, training=not options.released):
        there = False
        with suppress(BadInput):
            there = places.place(name, root).exists()
        lines += got(name, DATA[name], root, there)
    wanted = {pretrained_of(recipe): options.weights or root / "weights" for recipe in recipes if not options.narrow}
    if options.released:
        wanted = {recipe.name: options.released for recipe in recipes if recipe.name in RELEASED}
    lines += ["", f"weights, in {options.released or options.weights or root / 'weights'}:"]
    for name, folder in wanted.items():
        if name:
            there = (folder / PurePosixPath(SOURCES[name][0].to).name).exists()
            lines += got(name, SOURCES[name], root, there)
    if lines[-1].startswith("weights"):
        lines.append("  none: what these nets start from is committed")
    if not options.released:
        stages = [with_iterations(stage, options.iterations) for stage in chain(recipes)]
        lines += costs([narrow(stage) for stage in stages] if options.narrow else stages, options)
    then = "then: the same command without --dry-run"
    return "\n".join([*lines, "", then if options.data else f"{then}, and with --data {root}"])


def costs(stages: Sequence[Recipe], options: Namespace) -> list[str]:
    """The stages, their hours, and the disk that they take."""
    lines = ["", f"training, into {options.out}:"]
    left = 0.0
    for stage in stages:
        time = stage.cost or "narrow: minutes to hours on a CPU"
        if finished(options.out / stage.name):
            time = "done"
        elif not (stage.cost or options.narrow):
            left += (of_stage := cost.hours(stage))
            time = f"{of_stage:6.1f} h"
        start = " and ".join(stage.starts.values()) or "random weights"
        size = f"{stage.iterations:,} x {stage.solver.iter_size * stage.batch}"
        lines.append(f"  {stage.name:<28} from {start:<38} {size:>12} images  {time}")
    if left:
        lines.append(
            f"  {left:.0f} hours ({left / 24:.1f} days) in all on a {cost.GPU}: an estimate, never run by us. It takes "
            "the forward times of CVPR 2015's table 1, three of them a step; any later GPU needs less."
        )
    place = next(place for place in (options.out, *options.out.absolute().parents) if place.exists())
    free = f"{shutil.disk_usage(place).free / 1e9:.1f} GB free"
    needed = "" if options.narrow else f"{cost.disk_bytes(stages) / 1e9:.1f} GB for weights and snapshots; "
    return [*lines, f"disk: {needed}the data's archives, and about as much again unpacked; {free}"]


def got(name: str, sources: Sequence[Source], root: Path, there: bool) -> list[str]:
    """A line for each file of a data set or of weights."""
    fetch = "there" if there else f"missing: python reference/prepare.py fetch {name} --dir {root}"
    lines = [f"  {name}: {fetch}"]
    for source in sources if not there else ():
        size = f"about {source.megabytes:,} MB" if source.megabytes else "size not published"
        sum_ = f", {source.checksum}" if source.checksum else ""
        lines.append(f"    {source.url} -> {root / source.to} ({size}{sum_})")
    return lines


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ours and what was published, in percent."""
    lines = []
    for row in rows:
        lines.append(f"{row['recipe']:<28} " + "  ".join(f"{key} {value:.2f}" for key, value in row["ours"].items()))
        for of in row["published"]:
            cells = (f"{key} {value:.2f} ({of['difference'][key]:+.2f})" for key, value in of["figures"].items())
            lines.append(f"  {of['source']}: {'  '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
