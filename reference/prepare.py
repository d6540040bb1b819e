"""The data sets and weights of the paper: fetched from where they are published, and checked file by file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fcn import cli
from fcn.cli import BadInput
from reference.data import places
from reference.data.check import COUNTS, UNMET, check
from reference.data.sources import SOURCES, fetch, table

EXAMPLE = """python reference/prepare.py fetch voc --dir data
  python reference/prepare.py check voc data"""


@cli.command
def main(argv: Sequence[str] | None = None) -> None:
    args = cli.parser("prepare.py", __doc__ or "", EXAMPLE)
    commands = args.add_subparsers(dest="command", required=True, metavar="fetch|check")
    fetching = commands.add_parser(
        "fetch",
        help="download a data set or weights; a download that was cut goes on",
        epilog=f"what there is:\n{table()}",
        formatter_class=cli.HelpFormatter,
    )
    fetching.add_argument("name", metavar="NAME", choices=SOURCES, help=f"one of {', '.join(SOURCES)}")
    fetching.add_argument("--dir", type=Path, default=Path("data"), help="folder of the data sets; weights/ is in it")
    checking = commands.add_parser("check", help="open every file of a data set", formatter_class=cli.HelpFormatter)
    checking.add_argument("name", metavar="NAME", choices=COUNTS, help=f"one of {', '.join(COUNTS)}")
    checking.add_argument("dir", type=Path, metavar="DIR", help="its folder, or the one that holds the data sets")
    options = args.parse_args(argv)
    if options.command == "check":
        check_files(options.name, options.dir)
    else:
        fetch_files(options.name, options.dir)


def fetch_files(name: str, root: Path) -> None:
    """Fetch the data set or the weights `name` (of SOURCES) into `root`, file by file."""
    for source in SOURCES[name]:
        print(fetch(source, root), flush=True)
    if name in COUNTS:
        print(f"next: python reference/prepare.py check {name} {root}")


def check_files(name: str, root: Path) -> None:
    """Print what every split is like. Raises BadInput, after all problems, where there are any."""
    folder, second = places.find(name, root, "val")
    if name == "voc":
        with suppress(BadInput):  # seg11valid can be derived from it
            second = places.place("sbd", root)
    assert folder
    print(f"{name} in {folder}" + (f", and {second}" if second else ""))
    if name in UNMET:
        print("(read as documented and as the authors' data layer does: this reader has never met the original files)")
    images, problems, warnings = 0, 0, 0
    for found in check(name, folder, second):
        count = f"{found.images:>6} images  {found.edition}" if found.images else ""
        print(f"  {found.split:<12} {count}".rstrip())
        for kind, lines in (("problem", found.problems), ("warning", found.warnings)):
            for line in lines:
                print(f"    {kind}: {BadInput(line)}")
        images += found.images
        problems += len(found.problems)
        warnings += len(found.warnings)
    said = f"{images} images, {problems} problems, {warnings} warnings"
    if problems or not images:
        raise BadInput(f"{folder}: {said}; mend what is listed, or fetch {name} again")
    print(said)


if __name__ == "__main__":
    sys.exit(main())
