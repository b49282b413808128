"""A lost engine is replaced, one that keeps dying is given up, poison is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fivescore.engine import supervisor
from fivescore.engine.base import Engine
from fivescore.engine.fake import FakeEngine
from fivescore.engine.supervisor import Limits, Supervisor
from fivescore.errors import ConfigurationError, EngineDead, EngineError, ModelChanged
from fivescore.settings import DEMO
from fivescore.types import ModelInfo, Output
from tests.unit.engines import until

POISON = 666
LIMITS = Limits(restarts=5, window_seconds=60, hang_seconds=60)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.02))


class Plant:
    """Makes engines, and keeps what a supervisor said about them."""

    def __init__(self, *options: dict[str, object]) -> None:
        self.options = list(options)
        self.engines: list[FakeEngine] = []
        self.changes: list[bool] = []
        self.failures: list[Exception] = []

    def make(self) -> FakeEngine:
        # The last options are those of every further engine.
        options = self.options[min(len(self.engines), len(self.options) - 1)]
        self.engines.append(FakeEngine(DEMO, options))
        return self.engines[-1]

    @asynccontextmanager
    async def supervised(self, limits: Limits = LIMITS, **looks: Any) -> AsyncIterator[Supervisor]:
        one = Supervisor(self.make, limits, self.changes.append, self.failures.append, **looks)
        await one.load()
        yield one
        await one.close()


async def retried(one: Supervisor, token_ids: list[int]) -> Output:
    """As a client does: again until it is answered."""
    while True:
        try:
            return await one.encode(token_ids, "r")
        except EngineDead:
            await asyncio.sleep(0.01)


async def test_work_in_a_dying_engine_is_to_be_retried_and_the_next_engine_answers() -> None:
    plant = Plant({"die-after": 3, "latency-seconds": 0.01}, {})
    async with plant.supervised() as one:
        answers = await asyncio.gather(
            *(one.encode([i], "r") for i in range(4)), return_exceptions=True
        )
        dead = [answer for answer in answers if isinstance(answer, EngineDead)]
        assert len(dead) == 2
        assert all(error.retry_after >= 1 for error in dead)
        assert plant.changes == [False]
        with pytest.raises(EngineDead):
            await one.encode([1], "r")
        assert (await retried(one, [0])).values == answers[0].values  # type: ignore[union-attr]
        assert plant.changes == [False, True]
        assert not plant.engines[0].alive


async def test_a_death_while_idle_is_noticed() -> None:
    plant = Plant({})
    async with plant.supervised() as one:
        plant.engines[0].kill()
        await until(lambda: plant.changes == [False, True])
        assert (await one.encode([1], "r")).values


async def test_a_hung_engine_is_killed_and_replaced() -> None:
    plant = Plant({"hang-after": 2}, {})
    async with plant.supervised(Limits(5, 60, 0.1)) as one:
        await one.encode([1], "r")
        with pytest.raises(EngineDead):
            await one.encode([2], "r")
        assert not plant.engines[0].alive
        assert (await retried(one, [2])).values


async def test_the_engine_after_a_hung_one_has_all_the_time_again() -> None:
    plant = Plant({"hang-after": 1}, {"latency-seconds": 0.15})
    async with plant.supervised(Limits(5, 60, 0.3)) as one:
        answers = await asyncio.gather(*(retried(one, [i]) for i in range(20)))
        assert len(answers) == 20
        assert plant.changes == [False, True]


async def test_a_hang_shows_although_every_client_gives_up_before() -> None:
    plant = Plant({"hang-after": 1}, {})
    async with plant.supervised(Limits(5, 60, 0.1)) as one:
        for _ in range(200):
            if plant.changes:
                break
            with pytest.raises((TimeoutError, EngineDead)):
                await asyncio.wait_for(one.encode([1], "r"), 0.02)
        assert plant.changes


async def test_one_hung_rank_is_a_hung_engine_although_another_answers() -> None:
    plant = Plant({"ranks": 2, "hang-rank": 1}, {"ranks": 2})
    async with plant.supervised(Limits(5, 60, 0.2)) as one:
        hung = asyncio.create_task(one.encode([1], "r", prefix=1))
        while not plant.changes:
            await one.encode([2], "r", prefix=2)
            await asyncio.sleep(0.01)
        with pytest.raises(EngineDead):
            await hung
        await until(lambda: plant.changes == [False, True])
        assert (await one.encode([1], "r", prefix=1)).values


async def test_an_idle_or_slow_engine_is_not_a_hung_one() -> None:
    plant = Plant({"latency-seconds": 0.05})
    async with plant.supervised(Limits(5, 60, 0.2)) as one:
        await asyncio.sleep(0.4)
        for i in range(8):
            await one.encode([i], "r")
        await asyncio.sleep(0.3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.encode([1], "r"), 0.01)
        await asyncio.sleep(0.3)
        await one.encode([1], "r")
        assert plant.changes == []


async def test_it_gives_up_after_the_limit_with_the_last_cause() -> None:
    plant = Plant({"die-after": 1}, {"load-error": "no memory"})
    async with plant.supervised(Limits(2, 60, 60)) as one:
        with pytest.raises(EngineDead):
            await one.encode([1], "r")
        await until(lambda: bool(plant.failures))
        assert len(plant.engines) == 3
        assert isinstance(plant.failures[0], ConfigurationError)
        assert plant.failures[0].detail == "no memory"
        with pytest.raises(EngineDead):
            await one.encode([1], "r")


async def test_the_pause_before_a_new_start_doubles_up_to_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def recorded(seconds: float, sleep: Any = asyncio.sleep) -> None:
        if seconds in (0.01, 0.02, 0.03):
            pauses.append(seconds)
        await sleep(0.001)

    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.03))
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.5)
    plant = Plant({}, {"load-error": "no memory"})
    async with plant.supervised(Limits(4, 60, 60)):
        monkeypatch.setattr(asyncio, "sleep", recorded)
        plant.engines[0].kill()
        await until(lambda: bool(plant.failures))
        monkeypatch.undo()
    assert pauses == [0.01, 0.02, 0.03, 0.03]


async def test_restarts_long_ago_do_not_count() -> None:
    plant = Plant({})
    async with plant.supervised(Limits(1, 0.05, 60)) as one:
        for turn in range(3):
            plant.engines[-1].kill()
            await until(lambda turn=turn: len(plant.changes) == 2 * turn + 2)  # type: ignore[misc]
            await asyncio.sleep(0.1)
        assert plant.failures == []
        assert (await one.encode([1], "r")).values


async def test_the_first_engine_that_cannot_load_is_the_callers_error() -> None:
    one = Supervisor(Plant({"load-error": "no"}).make, LIMITS, print, print)
    with pytest.raises(ConfigurationError, match="no"):
        await one.load()
    await one.close()


async def test_the_innocent_are_all_answered_and_the_poison_among_them_is_refused() -> None:
    plant = Plant({"poison": POISON, "latency-seconds": 0.005})
    async with plant.supervised(Limits(10, 60, 60)) as one:
        quiet = FakeEngine(DEMO, {})
        await quiet.load()
        sequences = [[i] for i in range(40)]
        poison = asyncio.create_task(retried(one, [POISON]))
        answers = await asyncio.gather(*(retried(one, ids) for ids in sequences))
        with pytest.raises(EngineError, match="refused"):
            await poison
        assert answers == [await quiet.encode(ids, "r") for ids in sequences]
        assert len(plant.engines) <= 5


async def test_the_innocent_of_many_deaths_are_not_refused() -> None:
    plant = Plant({"latency-seconds": 0.02})
    async with plant.supervised(Limits(20, 60, 60)) as one:
        work = asyncio.gather(*(retried(one, [i]) for i in range(30)))
        for turn in range(6):
            await asyncio.sleep(0.03)
            plant.engines[-1].kill()
            await until(lambda turn=turn: len(plant.changes) >= 2 * turn + 2)  # type: ignore[misc]
        assert len(await work) == 30


async def test_closing_ends_everything_while_it_is_being_replaced() -> None:
    plant = Plant({}, {"load-seconds": 30})
    async with plant.supervised() as one:
        plant.engines[0].kill()
        await until(lambda: len(plant.engines) == 2)
        async with asyncio.timeout(10):
            await one.close()
    assert not plant.engines[1].alive


async def test_every_engine_is_looked_at_before_it_is_made_and_before_it_is_used() -> None:
    plant = Plant({})
    seen: list[str] = []

    async def check(engine: Engine, info: ModelInfo) -> None:
        assert engine is plant.engines[-1]
        outputs = len((await engine.encode([1], "check")).values)
        seen.append(f"{len(plant.engines)} made, {outputs} of {info.outputs} outputs")
        with pytest.raises(EngineDead):
            await one.encode([1], "r")

    one = Supervisor(
        plant.make, LIMITS, plant.changes.append, print,
        before=lambda: seen.append(f"{len(plant.engines)} made"), check=check,
    )  # fmt: skip
    await one.load()
    plant.engines[0].kill()
    await until(lambda: plant.changes == [False, True])
    assert seen == ["0 made", "1 made, 5 of 5 outputs", "1 made", "2 made, 5 of 5 outputs"]
    assert (await one.encode([1], "r")).values
    await one.close()


class Look:
    """Passes what it is shown, a number of times, and then raises an error."""

    def __init__(self, error: Exception, passes: int = 1) -> None:
        self.calls, self.passes, self.error = 0, passes, error

    def before(self) -> None:
        self.calls += 1
        if self.calls > self.passes:
            raise self.error

    async def check(self, engine: Engine, info: ModelInfo) -> None:
        self.before()


@pytest.mark.parametrize(("hook", "made"), [("before", 1), ("check", 2)])
async def test_a_model_that_changed_is_given_up_at_the_first_attempt(hook: str, made: int) -> None:
    plant, changed = Plant({}), ModelChanged("config.json changed")
    async with plant.supervised(**{hook: getattr(Look(changed), hook)}):
        plant.engines[0].kill()
        await until(lambda: bool(plant.failures))
        await asyncio.sleep(0.1)
        assert plant.failures == [changed]
        assert plant.changes == [False]
        assert len(plant.engines) == made
        assert not any(engine.alive for engine in plant.engines)


@pytest.mark.parametrize("hook", ["before", "check"])
async def test_another_error_of_a_look_is_one_attempt_that_failed(hook: str) -> None:
    plant, look = Plant({}), Look(OSError("the disk is away"))
    async with plant.supervised(Limits(3, 60, 60), **{hook: getattr(look, hook)}):
        plant.engines[0].kill()
        await until(lambda: bool(plant.failures))
        assert look.calls == 4
        assert plant.failures == [look.error]


@pytest.mark.parametrize("hook", ["before", "check"])
async def test_a_first_engine_that_fails_a_look_is_closed_and_the_callers_error(hook: str) -> None:
    plant = Plant({})
    with pytest.raises(ModelChanged):
        async with plant.supervised(**{hook: getattr(Look(ModelChanged("x"), passes=0), hook)}):
            pass
    assert not any(engine.alive for engine in plant.engines)
    assert plant.failures == []


async def test_a_new_engine_that_hangs_while_it_is_checked_is_replaced() -> None:
    plant = Plant({}, {"hang-after": 1}, {})

    async def check(engine: Engine, info: ModelInfo) -> None:
        await engine.encode([1], "check")

    async with plant.supervised(Limits(5, 60, 0.1), check=check) as one:
        plant.engines[0].kill()
        await until(lambda: plant.changes == [False, True])
        assert len(plant.engines) == 3
        assert not plant.engines[1].alive
        assert (await one.encode([1], "r")).values
