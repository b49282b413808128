"""Programs that some tests need beside the packages; ``make tools`` installs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".tools" / "usr" / "bin"


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, and says so."""
    found = shutil.which(name) or shutil.which(name, path=str(FOLDER))
    if found is None:
        pytest.skip(f"NOT CHECKED: there is no {name} here; 'make tools' installs it")
    return found
