"""Fixtures that every test folder uses."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn.files import write_json
from fcn.record import ROOT, record

Figures = dict[str, dict[str, float]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", metavar="FILE", help="write there what the tests against genuine Caffe measured")


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[Figures]:
    """What tests measure against genuine Caffe, by record and kind: the worst relative difference."""
    found: Figures = {}
    yield found
    if path := pytestconfig.getoption("--figures"):
        command = shlex.join(["python", "-m", "pytest", *pytestconfig.invocation_params.args])
        write_json(path, {**record(records=found), "command": command})


@pytest.fixture(scope="session")
def shared() -> Path:
    """The team's folder of real images and weights (FCN_SHARED, or `shared` beside the checkout)."""
    folder = Path(os.environ.get("FCN_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the team's data folder: set FCN_SHARED (its licences keep it out of the project)")
    return folder
