"""Fixtures that every test folder uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fcn.record import ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The team's folder of real images and weights (FCN_SHARED, or `shared` beside the checkout)."""
    folder = Path(os.environ.get("FCN_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the team's data folder: set FCN_SHARED (its licences keep it out of the project)")
    return folder
