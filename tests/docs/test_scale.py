"""The tables of ``docs/scale.md`` are what the committed simulations say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loadtest.fleet import reality, report
from loadtest.fleet.__main__ import RESULT
from loadtest.report import marked

SCALE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
FLEET = json.loads((RESULT / "fleet.json").read_text())
REALITY = json.loads((RESULT / "reality.json").read_text())
TABLES = {**report.tables(FLEET), "reality": report.reality(REALITY)}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_generated(name: str) -> None:
    assert marked(name).findall(SCALE) == [TABLES[name].rstrip("\n") + "\n"]


def test_no_other_table_has_a_marker() -> None:
    assert set(re.findall(r"<!-- ([a-z]+) -->", SCALE)) == set(TABLES)


def test_the_simulator_is_within_its_bar_of_real_engines() -> None:
    assert REALITY["bar"] == reality.BAR
    assert all(abs(row["error"]) <= reality.BAR for row in REALITY["loads"])


def test_a_lost_engine_loses_no_sequence() -> None:
    assert all(row["unanswered"] == 0 for row in FLEET["lost"])
