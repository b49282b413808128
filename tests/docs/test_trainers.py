"""The tables of trainers are what the committed run of ``make trainers`` found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers import table

FOUND = table.results()
DRIVERS = sorted(path.stem for path in Path(table.__file__).parent.glob("drivers/*.py"))
RAN = sorted(key for key, facts in FOUND.items() if "not_run" not in facts)


def test_readme_shows_the_run() -> None:
    text = table.README.read_text()
    assert text == table.with_column(text, FOUND)
    rows = {line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()}
    assert {facts["row"] for facts in FOUND.values()} <= rows


def test_the_details_show_the_run() -> None:
    text = table.DETAILS.read_text()
    assert table.MARKED.findall(text) == [table.details(FOUND)]


def test_every_driver_has_its_result_and_nothing_else_has() -> None:
    assert sorted(FOUND) == DRIVERS


@pytest.mark.parametrize("key", RAN)
def test_what_the_table_says_of_a_trainer_is_good(key: str) -> None:
    facts = FOUND[key]
    assert facts["samples"] >= 128
    assert facts["largest_difference"] <= 1e-4
    assert facts["loading"]
    assert facts["failing"]
    assert facts["restart"]["lost"] == 0 or facts["restart"]["sees"]
