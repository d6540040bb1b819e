"""How a command of this project starts, fails and ends.

Every command is a function `main(argv) -> int` wrapped by `command`: input that the user can mend is raised
as `BadInput` anywhere below and becomes one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence


class BadInput(Exception):
    """Input that the user can mend. The message is one line: it names the file (or option) and the fix."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and keeps the line breaks of the example that every command gives."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser with defaults and an example in its --help."""
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=f"example:\n  {example}", formatter_class=HelpFormatter
    )


def command(main: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Turn BadInput into one line and exit code 2, an interrupt into 130, and no return value into 0."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except BadInput as problem:
            print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run
