"""Requests of trainers that do not come back wait for an engine; those of the others do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fivescore.http import holding
from tests.integration.protocols.protocols import (
    BY_NAME,
    PAIRS,
    PROTOCOLS,
    answered,
    assert_refused,
    post,
)
from tests.integration.service import Service, assert_problem, serving, strict

HELD = ("openrlhf", "nemo-gym", "llama-factory")
OPENRLHF = BY_NAME["openrlhf"]


async def held(service: Service) -> float:
    return await service.metric("fivescore_held_requests")


async def until_held(service: Service, number: int) -> None:
    async with asyncio.timeout(60):
        while await held(service) != number:  # noqa: ASYNC110  # it is seen from outside
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("name", HELD)
async def test_a_request_that_comes_during_the_load_is_answered_after_it(name: str) -> None:
    async with serving(options={"load_seconds": 0.5}, settle=False) as service:
        asked = asyncio.create_task(post(service, BY_NAME[name]))
        await until_held(service, 1)
        assert_problem(await service.score(PAIRS[0]), 503, "loading")
        (reward,) = BY_NAME[name].rewards(answered(await asked))
        assert reward == pytest.approx(strict(await service.score(PAIRS[0]))["reward"])
        assert await held(service) == 0


async def test_the_others_are_refused_while_there_is_no_model() -> None:
    async with serving(options={"load_seconds": 3600}, settle=False) as service:
        for protocol in PROTOCOLS:
            if protocol.name not in HELD and protocol.path != "/score":
                assert_refused(await post(service, protocol), 503, "loading")


async def test_a_request_whose_engine_dies_is_answered_by_the_next_one() -> None:
    async with serving(options={"die_after": 2}) as service:
        asked = OPENRLHF.body(PAIRS)  # its second pair ends the engine; the next engine counts anew
        pairs = strict(await service.score({"pairs": [PAIRS[0]]}))["scores"]
        response = await post(service, OPENRLHF, {**asked, "query": asked["query"][:1]})
        assert OPENRLHF.rewards(answered(response)) == [pytest.approx(pairs[0]["reward"])]
        assert await service.metric("fivescore_engine_restarts_total") == 1


@pytest.mark.parametrize(
    ("settings", "limits"),
    [({"hold_seconds": 0}, {}), ({}, {"MOST_HELD": 0}), ({}, {"MOST_HELD_BYTES": 20})],
    ids=["no time", "too many", "too large"],
)
async def test_what_may_not_wait_is_refused_as_elsewhere(
    settings: dict[str, Any], limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(holding, name, limit)
    async with serving(options={"load_seconds": 3600}, settle=False, **settings) as service:
        problem = assert_refused(await post(service, OPENRLHF), 503, "loading")
        assert "retry" in problem["detail"]


async def test_a_request_that_waits_is_told_when_no_engine_will_come() -> None:
    async with serving(
        options={"load_seconds": 0.5, "load_error": "out of memory"}, settle=False
    ) as service:
        asked = asyncio.create_task(post(service, OPENRLHF))
        await until_held(service, 1)
        assert_refused(await asked, 503, "engine_dead")


async def test_a_request_that_waits_is_told_of_the_end_of_the_service() -> None:
    async with serving(options={"load_seconds": 3600}, settle=False) as service:
        asked = asyncio.create_task(post(service, OPENRLHF))
        await until_held(service, 1)
        service.scorer.service.drain()
        assert_refused(await asked, 503, "draining")
