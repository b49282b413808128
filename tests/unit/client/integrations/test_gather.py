"""Samples that come one by one share requests, and no caller waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from fivescore.client import RewardClient
from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS
from fivescore.client.integrations.gather import Gatherer
from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.types import Score
from tests.unit.client.fakes import Fleet, Hurry, Request, pairs, problem, scored
from tests.unit.engines import until


@contextmanager
def gathering(fleet: Fleet) -> Iterator[Gatherer]:
    with RewardClient("http://rm", transport=fleet, clock=Hurry()) as client:
        yield Gatherer(client)


async def gathered(gatherer: Gatherer, *numbers: int) -> list[float]:
    scores = await asyncio.gather(*(gatherer.score(pairs(500)[number]) for number in numbers))
    return [score.reward for score in scores]


async def test_samples_that_arrive_together_share_a_request() -> None:
    fleet = Fleet()
    with gathering(fleet) as gatherer:
        assert await gathered(gatherer, *range(30)) == list(range(30))
    assert [len(request.pairs) for request in fleet.requests] == [30]


async def busy(gatherer: Gatherer) -> list[asyncio.Task[Score]]:
    """As many requests of one sample each as there may be at a time."""
    tasks = []
    for number in range(FEW_REQUESTS):
        tasks.append(asyncio.create_task(gatherer.score(pairs(500)[number])))
        await asyncio.sleep(0.001)
    return tasks


def held(until: threading.Event) -> Callable[[Request], Any]:
    async def answer(request: Request) -> httpx.Response:
        await asyncio.to_thread(until.wait)
        return scored(request)

    return answer


async def test_samples_that_arrive_while_requests_are_under_way_wait_for_the_next_one() -> None:
    open_again = threading.Event()
    fleet = Fleet(*[held(open_again)] * FEW_REQUESTS)
    with gathering(fleet) as gatherer:
        tasks = await busy(gatherer)
        for number in range(FEW_REQUESTS, FEW_REQUESTS + 20):
            tasks.append(asyncio.create_task(gatherer.score(pairs(500)[number])))
            await asyncio.sleep(0.001)
        open_again.set()
        scores = await asyncio.gather(*tasks)
    assert [score.reward for score in scores] == list(range(FEW_REQUESTS + 20))
    assert [len(request.pairs) for request in fleet.requests] == [1] * FEW_REQUESTS + [20]
    assert fleet.most_inflight == FEW_REQUESTS


async def test_a_sample_that_is_given_up_is_not_sent_and_hinders_no_other() -> None:
    open_again = threading.Event()
    fleet = Fleet(*[held(open_again)] * FEW_REQUESTS)
    with gathering(fleet) as gatherer:
        tasks = await busy(gatherer)
        gone = asyncio.create_task(gatherer.score(pairs(500)[77]))
        waiting = asyncio.create_task(gathered(gatherer, 10, 11))
        await asyncio.sleep(0.001)
        gone.cancel()
        tasks[0].cancel()  # this one is sent already
        await asyncio.sleep(0.001)
        open_again.set()
        assert await waiting == [10, 11]
        assert await gathered(gatherer, 12) == [12]
        await asyncio.gather(*tasks[1:])
    assert ["77"] not in [request.responses for request in fleet.requests]
    assert sum(len(request.pairs) for request in fleet.requests) == FEW_REQUESTS + 3


async def test_a_request_that_nobody_waits_for_any_more_is_given_up() -> None:
    async def never(request: Request) -> httpx.Response:
        await asyncio.Event().wait()
        return scored(request)

    fleet = Fleet(*[never] * FEW_REQUESTS)
    with gathering(fleet) as gatherer:
        tasks = await busy(gatherer)
        both = [asyncio.create_task(gatherer.score(pairs(500)[number])) for number in (10, 11)]
        await until(lambda: fleet.inflight == FEW_REQUESTS)
        tasks[0].cancel()
        assert [score.reward for score in await asyncio.gather(*both)] == [10, 11]
        for task in tasks:
            task.cancel()
        await until(lambda: fleet.inflight == 0)


async def test_a_sample_that_fails_fails_alone_and_a_request_that_fails_fails_its_samples() -> None:
    fleet = Fleet()
    with gathering(fleet) as gatherer:
        bad = gatherer.score({"prompt": "Q"})
        results = await asyncio.gather(
            bad, gathered(gatherer, *range(BATCH_SIZE + 3)), return_exceptions=True
        )
        assert isinstance(results[0], InvalidPair)
        assert results[1] == list(range(BATCH_SIZE + 3))
        fleet.faults["rm"].append(problem(422, "invalid_request"))
        with pytest.raises(InvalidRequest):
            await gathered(gatherer, 1, 2)
        assert await gathered(gatherer, 1, 2) == [1, 2]


class CannotSubmit(RewardClient):
    """Fails to submit as often as ``failures`` says, as when no thread can be started."""

    failures = 0

    def submit(self, *arguments: Any, **options: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        return super().submit(*arguments, **options)


@pytest.mark.parametrize("callers", [2, FEW_REQUESTS * BATCH_SIZE])
async def test_a_request_that_cannot_be_submitted_fails_each_of_its_callers(callers: int) -> None:
    with CannotSubmit("http://rm", transport=Fleet(), clock=Hurry()) as client:
        gatherer = Gatherer(client)
        for _ in range(FEW_REQUESTS + 1):  # a request that failed holds no place
            client.failures = -(-callers // BATCH_SIZE)
            asked = [gatherer.score(pairs(500)[number]) for number in range(callers)]
            failed = await asyncio.gather(*asked, return_exceptions=True)
            assert [str(error) for error in failed] == ["can't start new thread"] * callers
        assert await gathered(gatherer, 1, 2) == [1, 2]


async def test_a_request_that_cannot_be_submitted_after_another_strands_nobody() -> None:
    open_again = threading.Event()
    fleet = Fleet(*[held(open_again)] * FEW_REQUESTS)
    with CannotSubmit("http://rm", transport=fleet, clock=Hurry()) as client:
        gatherer = Gatherer(client)
        tasks = await busy(gatherer)
        waiting = asyncio.create_task(gathered(gatherer, 10, 11))
        await asyncio.sleep(0.001)
        client.failures = 1
        open_again.set()
        with pytest.raises(RuntimeError, match="new thread"):
            await waiting
        await asyncio.gather(*tasks)
