"""docs/deploy.md names commands, options, files and steps that exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest

from export.graph import IO
from export.triton import MOST_IMAGES
from fcn.__main__ import COMMANDS
from fcn.record import ROOT
from runtime import profiles

PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"--[A-Za-z][\w-]*")
FOREIGN = {"--model-repository", "--exit-on-error", "--stronglyTyped", "--fp16"}  # Triton's and trtexec's


@cache
def options(module: str) -> frozenset[str]:
    """The long options that a command's --help lists."""
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    return frozenset(OPTION.findall(said.getvalue()))


def typed() -> Iterator[tuple[str, set[str]]]:
    """Every command of ours in the page's blocks: the module that runs it, and the options given."""
    for line in "".join(BLOCK.findall(PAGE)).replace("\\\n", " ").splitlines():
        if line.startswith(("python ", "fcn ")):
            first, second, *words = shlex.split(line, comments=True)
            module = COMMANDS[second][0] if first == "fcn" else second.removesuffix(".py").replace("/", ".")
            yield module, {word for word in words if OPTION.fullmatch(word)}


def test_every_command_has_the_options_that_the_page_gives_it():
    for module, given in typed():
        assert given <= options(module), f"{module}: {given - options(module)}"
    assert {module for module, _ in typed()} >= {"export.to_onnx", "runtime.build", "runtime.segment"}


def test_options_in_the_text_are_some_commands():
    known = FOREIGN.union(*(options(module) for module, _ in typed()))
    for option in re.findall(r"`(--[A-Za-z][\w-]*)[^`]*`", BLOCK.sub("", PAGE)):
        assert option in known, option


def test_files_steps_and_commands_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
    for path in re.findall(r"(?:python |`)((?:benchmarks|export|reference|runtime|tests)/[\w/]+\.\w+)", PAGE):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`fcn (\w+)", PAGE):
        assert name in COMMANDS, name
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for step in re.findall(r"make ([\w-]+)", PAGE):
        assert step in targets, step
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in anchors, anchor


def test_pages_that_messages_send_to_exist():
    for folder in ("fcn", "reference", "export", "runtime", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"docs/[\w-]+\.md", file.read_text()):
                assert (ROOT / page).exists(), f"{file}: {page}"


def test_the_table_of_float16_is_the_committed_result():
    result = json.loads((ROOT / "benchmarks" / "results" / "half.json").read_text())
    assert "Of {} photographs of VOC and {} of CamVid".format(*result["images"].values()) in " ".join(PAGE.split())
    for net in result["nets"]:
        name, top = max(net["tops"].items(), key=lambda item: item[1]["greatest"])
        stored = max(each["stored"] for each in net["tops"].values())
        shares = " | ".join(f"{100 * each['labels_equal']:.3f}" for each in net["agreement"].values())
        assert f"| {net['recipe']} | {top['greatest']:,.0f} ({name}) | {stored:,.0f} | {shares} |" in PAGE
        assert not net["not_finite_unscaled"]


def test_what_no_parser_sees():
    """Values in tables and examples."""
    assert re.findall(r"^\| `(\w+)`(?: \(default\))? \| (?:N|the)", PAGE, re.MULTILINE) == list(IO)
    assert f"max_batch_size: {MOST_IMAGES}" in PAGE
    pixels = profiles.default((-1, -1, -1, 3))
    least, tuned, greatest = map(profiles.text, (pixels.min, pixels.opt, pixels.max))
    assert f"--minShapes {least} --optShapes {tuned} --maxShapes {greatest}" in PAGE
    assert f"--minShapes=image:{least} --optShapes=image:{tuned} --maxShapes=image:{greatest}" in PAGE
