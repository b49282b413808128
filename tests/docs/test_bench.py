"""The tables of speed are what the committed run of ``make bench`` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.report import RESULT, marked, tables

RUN = json.loads((RESULT / "bench.json").read_text())


@pytest.mark.parametrize(("place", "name", "table"), tables())
def test_tables_are_generated(place: Path, name: str, table: str) -> None:
    assert marked(name).findall(place.read_text()) == [table]


def test_every_ratio_has_at_least_five_rounds_behind_it() -> None:
    for row in RUN["loads"]:
        for name, contender in row["contenders"].items():
            assert len(contender["rounds"]) >= 5, (row["load"], name)
            assert not contender["failed"], (row["load"], name)


def test_all_sides_scored_the_same_model() -> None:
    assert all(value < 2e-3 for name, value in RUN.items() if "differ" in name)
