"""Each kind of head, imported, served and compared with its published formula; and refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import environment
from tests.published.comparison import import_
from tests.published.pairs import PAIRS
from tests.published.refused import REFUSED
from tests.published.rows import SAMPLE

MOST_CHARACTERS = 400
"""The longest refusal."""


def test_pairs_differ() -> None:
    assert len(set(PAIRS)) == 40


@pytest.mark.timeout(900)
def test_each_kind_of_head_is_served_as_published() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.published", *SAMPLE],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| imported |") == len(SAMPLE)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_is_refused_by_name(name: str, tmp_path: Path) -> None:
    refused = REFUSED[name]
    code, told = import_(refused.make(tmp_path / "source"), tmp_path / "imported")
    assert code == 1
    assert [word for word in refused.words if word not in told] == [], told
    assert len(told) <= MOST_CHARACTERS
    assert told.count("\n") == 1, told
    assert not (tmp_path / "imported").exists()
