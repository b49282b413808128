"""The short form of the scenarios: nothing lost, nothing wrong, every bound kept.

Bounds are ratios to the same run's own numbers, never times. ``make faults`` also runs those that
measure under load, and those that CI has no time for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.__main__ import raise_file_limit
from tests.faults.bench import SHORT, Bench
from tests.faults.report import line
from tests.faults.scenarios import SCENARIOS, Scenario, finish


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Holds the server from scenario to scenario."""
    raise_file_limit()
    bench = Bench(SHORT, tmp_path_factory.mktemp("faults"))
    yield bench
    asyncio.run(bench.close())


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.in_ci and not scenario.measures],
    ids=lambda scenario: scenario.name,
)
def test_scenario(scenario: Scenario, bench: Bench) -> None:
    finished = asyncio.run(finish(scenario, bench))
    assert not finished.result.faults, line(finished)
