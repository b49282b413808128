"""All scenarios, in the order in which they run: those that share a server come first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults import (
    connections,
    hostile,
    lost_engine,
    neighbours,
    overload,
    soak,
    startup,
    termination,
)
from tests.faults.bench import Bench
from tests.faults.result import Result


@dataclass(frozen=True)
class Scenario:
    """``number`` is its place in the table; ``measures`` marks ratios of speed and memory under
    load, which take minutes and a machine where nothing else runs."""

    number: str
    name: str
    run: Callable[[Bench], Awaitable[Result]]
    measures: bool = False


@dataclass(frozen=True)
class Finished:
    """A scenario, what it found, and the seconds it took."""

    scenario: Scenario
    result: Result
    seconds: float


SCENARIOS = (
    Scenario("2", "killed-engine", lost_engine.killed),
    Scenario("3", "hung-engine", lost_engine.hung),
    Scenario("5", "disconnects", connections.gone),
    Scenario("6", "slow-clients", connections.slow),
    Scenario("7", "bad-input", hostile.hostile),
    Scenario("10", "neighbours", neighbours.noisy, measures=True),
    Scenario("4a", "drain", termination.drained),
    Scenario("4b", "second-sigterm", termination.hastened),
    Scenario("4c", "rolling-restart", termination.rolled),
    Scenario("1", "overload", overload.overload, measures=True),
    Scenario("8", "start-up", startup.started),
    Scenario("9", "soak", soak.soak, measures=True),
)


async def finish(scenario: Scenario, bench: Bench) -> Finished:
    """Run one to its end; an exception is a fault of it like any other, and the next one gets a
    server of its own."""
    began = time.monotonic()
    try:
        result = await scenario.run(bench)
    except Exception as error:
        result = Result(scenario.name, notes=[f"{type(error).__name__}: {error}"])
        with contextlib.suppress(Exception):
            await bench.close()
    return Finished(scenario, result, time.monotonic() - began)
