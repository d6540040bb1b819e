"""How a command of this project starts, fails and ends.

Every command is a function `main(argv) -> int` wrapped by `command`: input that the user can mend is raised
as `BadInput` anywhere below and becomes one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
from collections.abc import Callable, Sequence

LONGEST = 1000  # characters of a message
# Of torch, which has no MemoryError.
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")


class BadInput(Exception):
    """Input that the user can mend. The message is one line: it names the file (or option) and the fix.

    What a message quotes of a file may be anything: control characters, which a terminal would obey, are shown as
    escapes, and of more than LONGEST characters the middle is left out.
    """

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} ... {text[5 - LONGEST // 2 :]}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    """Turn BadInput into one line and exit code 2, an interrupt into 130, and no return value into 0.

    A name that no encoding knows (of a file, a class) is printed with escapes.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        with contextlib.suppress(AttributeError):  # standard output may have been replaced
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            return main(argv) or 0
        except BadInput as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 2
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not OUT_OF_MEMORY.search(str(error)):
                raise
            print("error: not enough memory; give a smaller image or net, or a machine with more", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run
