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
    lost_rank,
    neighbours,
    network,
    other_weights,
    overload,
    soak,
    startup,
    surroundings,
    termination,
)
from tests.faults.bench import Bench
from tests.faults.result import NotRun, Result


@dataclass(frozen=True)
class Scenario:
    """``number`` is its place in the table; ``measures`` marks ratios of speed and memory under
    load, which take minutes and a machine where nothing else runs."""

    number: str
    name: str
    run: Callable[[Bench], Awaitable[Result]]
    measures: bool = False
    in_ci: bool = True
    """Whether ``make test`` has the time for it."""


@dataclass(frozen=True)
class Finished:
    """A scenario, what it found, and the seconds it took."""

    scenario: Scenario
    result: Result
    seconds: float


SCENARIOS = (
    Scenario("2", "killed-engine", lost_engine.killed),
    Scenario("2b", "killed-fork-server", lost_engine.orphaned),
    Scenario("2c", "killed-service", lost_engine.abandoned),
    Scenario("3", "hung-engine", lost_engine.hung),
    Scenario("5", "disconnects", connections.gone),
    Scenario("6", "slow-clients", connections.slow),
    Scenario("7", "bad-input", hostile.hostile),
    Scenario("10", "neighbours", neighbours.noisy, measures=True),
    Scenario("4a", "drain", termination.drained),
    Scenario("4b", "second-sigterm", termination.hastened),
    Scenario("2d", "other-weights", other_weights.replaced),
    Scenario("4c", "rolling-restart", termination.rolled),
    Scenario("2e", "killed-rank", lost_rank.killed, in_ci=False),
    Scenario("3b", "hung-rank", lost_rank.hung, in_ci=False),
    Scenario("1", "overload", overload.overload, measures=True),
    Scenario("8", "start-up", startup.started),
    Scenario("9", "soak", soak.soak, measures=True),
    Scenario("11a", "lossy-network", network.lossy, in_ci=False),
    Scenario("11b", "resets", network.reset, in_ci=False),
    Scenario("11c", "half-open", network.half_open, in_ci=False),
    Scenario("11d", "cut-off", network.cut_off, in_ci=False),
    Scenario("11e", "name-service", network.nameless, in_ci=False),
    Scenario("12", "clock-jumps", surroundings.clock_jumps, in_ci=False),
    Scenario("13", "full-shared-memory", surroundings.shared_memory_full, in_ci=False),
    Scenario("14", "memory-group", surroundings.memory_group, in_ci=False),
    Scenario("15", "full-disk", surroundings.disk_fills, in_ci=False),
    Scenario("16", "nameless-user", surroundings.nameless_user, in_ci=False),
    Scenario("17", "optimised", surroundings.optimised, in_ci=False),
)


async def finish(scenario: Scenario, bench: Bench) -> Finished:
    """Run one to its end; an exception is a fault of it like any other, and the next one gets a
    server of its own."""
    began = time.monotonic()
    try:
        result = await scenario.run(bench)
    except NotRun as reason:
        result = Result(scenario.name, not_run=str(reason))
    except Exception as error:
        result = Result(scenario.name, notes=[f"{type(error).__name__}: {error}"])
        with contextlib.suppress(Exception):
            await bench.close()
    return Finished(scenario, result, time.monotonic() - began)
