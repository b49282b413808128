"""Replicas: addresses and keys, whose prompts are whose, and what happens when one goes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from fivescore.client import AsyncRewardClient, RewardClient, Unreachable
from fivescore.client.replicas import Replicas, addresses
from fivescore.errors import ConfigurationError, FivescoreError
from tests.unit.client.fakes import Answer, Fleet, Hurry, Request, pairs, problem, scored

RANKED = ["acb", "cba", "bac", "bac", "cba", "acb", "bac", "abc"]
ABC = ("http://a", "http://b", "http://c")
REFUSED = httpx.ConnectError("Connection refused")


def replicas(*urls: str) -> Replicas:
    return Replicas(addresses(urls, None))


def asking(fleet: Fleet, clock: Hurry, *urls: str, **options: Any) -> AsyncRewardClient:
    return AsyncRewardClient(urls, transport=fleet, clock=clock, **options)


def hosts(fleet: Fleet) -> dict[str, set[str]]:
    """The hosts that every prompt was sent to."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for request in fleet.requests:
        for pair in request.pairs:
            found[pair["prompt"]].add(request.host)
    return found


def test_the_ranking_of_a_prompt_is_the_same_in_every_process() -> None:
    ranked = ["".join(r.url[-1] for r in replicas(*ABC).ranked(f"Q{n}")) for n in range(8)]
    assert ranked == RANKED
    again = ["".join(r.url[-1] for r in replicas(*ABC[::-1]).ranked(f"Q{n}")) for n in range(8)]
    assert again == RANKED


def test_prompts_are_spread_and_only_those_of_a_replica_that_goes_move() -> None:
    prompts = [f"prompt {n}" for n in range(3000)]
    before = {prompt: replicas(*ABC).ranked(prompt)[0].url for prompt in prompts}
    after = {prompt: replicas(*ABC[:2]).ranked(prompt)[0].url for prompt in prompts}
    assert all(800 < list(before.values()).count(url) < 1200 for url in ABC)
    moved = {prompt for prompt in prompts if before[prompt] != after[prompt]}
    assert moved == {prompt for prompt in prompts if before[prompt] == "http://c"}


async def test_all_responses_to_a_prompt_go_to_its_replica() -> None:
    fleet = Fleet()
    client = asking(fleet, Hurry(), *ABC, batch_size=2)
    await client.score(pairs(60, prompts=20))
    await client.score(pairs(60, prompts=20)[::-1])
    found = hosts(fleet)
    assert all(len(its_hosts) == 1 for its_hosts in found.values())
    assert set().union(*found.values()) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "fault",
    [REFUSED, httpx.Response(502), problem(503, "loading", "9"), problem(429, "overloaded")],
)
async def test_pairs_of_a_replica_that_fails_move_at_once(fault: Answer) -> None:
    clock, fleet = Hurry(), Fleet(a=[fault] * 100)
    found = await asking(fleet, clock, *ABC[:2]).score(pairs(50, prompts=25))
    assert [score.reward for score in found] == list(range(50))
    assert clock.slept == []


async def test_a_replica_that_fails_is_left_alone_until_its_retry_after_and_returned_to() -> None:
    clock, fleet = Hurry(), Fleet(a=[problem(503, "loading", "30")])
    client = asking(fleet, clock, *ABC[:2], batch_size=1, concurrency=1)
    await client.score(pairs(25, prompts=25))
    assert [request.host for request in fleet.requests].count("a") == 1
    clock.seconds += 29
    await client.score(pairs(25, prompts=25))
    assert [request.host for request in fleet.requests].count("a") == 1
    clock.seconds += 4
    fleet.requests.clear()
    await client.score(pairs(25, prompts=25))
    assert hosts(fleet) == {
        f"Q{n}": {replicas(*ABC[:2]).ranked(f"Q{n}")[0].url[-1]} for n in range(25)
    }


async def test_a_batch_that_moves_goes_to_each_prompts_next_choice() -> None:
    clock, fleet = Hurry(), Fleet(a=[REFUSED] * 100)
    await asking(fleet, clock, *ABC).score(pairs(50, prompts=50))
    for prompt, its_hosts in hosts(fleet).items():
        ranked = [replica.url[-1] for replica in replicas(*ABC).ranked(prompt)]
        assert its_hosts - {"a"} == {next(host for host in ranked if host != "a")}


async def test_with_all_replicas_away_the_first_to_come_back_is_waited_for() -> None:
    clock = Hurry()
    fleet = Fleet(a=[problem(503, "loading", "60")], b=[problem(503, "loading", "20")])
    await asking(fleet, clock, *ABC[:2]).score(pairs(9, prompts=9))
    assert len(clock.slept) >= 1
    assert 20 <= max(clock.slept) <= 22
    assert [request.host for request in fleet.requests][-1] == "b"


@pytest.mark.parametrize("seconds", [0, 100])
async def test_with_a_deadline_of_0_every_replica_is_asked_once(seconds: int) -> None:
    clock = Hurry()

    def away(request: Request) -> httpx.Response:
        clock.seconds += seconds  # 100 are more than the first one's cool-down
        return problem(503, "loading", "1")

    fleet = Fleet(a=[away] * 9, b=[away] * 9)
    client = asking(fleet, clock, *ABC[:2], deadline_seconds=0)
    assert await client.score(pairs(1), errors="none") == [None]
    assert sorted(request.host for request in fleet.requests) == ["a", "b"]
    assert clock.slept == []


async def test_requests_that_fail_together_count_as_one_failure() -> None:
    clock, fleet = Hurry(), Fleet(*[REFUSED] * 8)
    await asking(fleet, clock, "http://rm", batch_size=1, concurrency=8).score(pairs(8))
    assert max(clock.slept) <= 0.5


async def test_an_answer_to_an_earlier_request_does_not_end_a_cool_down() -> None:
    refused, asleep, go_on = asyncio.Event(), asyncio.Semaphore(0), asyncio.Event()

    class Held(Hurry):
        async def sleep(self, seconds: float) -> None:
            asleep.release()
            await go_on.wait()
            await super().sleep(seconds)

    async def answer_late(request: Request) -> httpx.Response:
        await refused.wait()
        return scored(request)

    def refuse(request: Request) -> httpx.Response:
        clock.seconds += 1
        return problem(429, "overloaded", "50")

    clock, fleet = Held(), Fleet(answer_late, refuse)
    client = asking(fleet, clock, "http://rm", batch_size=1, concurrency=2)
    asked = asyncio.create_task(client.score(pairs(3, prompts=3)))
    await asleep.acquire()  # the refused pair waits
    refused.set()
    await asleep.acquire()  # and so does the one after the late answer
    assert len(fleet.requests) == 2
    go_on.set()
    assert [score.reward for score in await asked] == [0, 1, 2]


# Addresses and keys


def sent_keys(fleet: Fleet) -> set[str | None]:
    return {request.headers.get("Authorization") for request in fleet.requests}


async def test_the_key_is_sent_and_never_shown() -> None:
    fleet = Fleet(REFUSED, problem(401, "unauthorized"))
    client = asking(fleet, Hurry(), "http://rm", api_key="s3cret")
    with pytest.raises(FivescoreError) as caught:
        await client.score(pairs(1))
    assert sent_keys(fleet) == {"Bearer s3cret"}
    assert "s3cret" not in repr(client) + str(caught.value) + repr(client._addresses)


async def test_a_key_may_be_in_the_url_and_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    clock, fleet = Hurry(), Fleet(REFUSED)
    client = asking(fleet, clock, "http://u:s3cret@rm")
    await client.score(pairs(1))
    assert sent_keys(fleet) == {"Bearer s3cret"}
    fleet.faults["rm"].append(REFUSED)
    client = asking(fleet, clock, "http://u:s3cret@rm", deadline_seconds=0)
    with pytest.raises(Unreachable) as caught:
        await client.score(pairs(1))
    assert "s3cret" not in caplog.text + str(caught.value) + repr(client)


async def test_addresses_and_the_first_key_may_come_from_the_environment(
    environment: MutableMapping[str, str],
) -> None:
    environment.update(FIVESCORE_URL="http://a/, http://k@b:1/rm", FIVESCORE_API_KEY="one,two")
    assert [(one.url, one.key) for one in addresses(None, None)] == [
        ("http://a", "one"),
        ("http://b:1/rm", "k"),
    ]
    environment["FIVESCORE_URL"] = ""
    assert [one.url for one in addresses(None, "three")] == ["http://127.0.0.1:8000"]
    assert addresses(None, "three")[0].key == "three"


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9", "localhost:9", "ftp://127.0.0.1:9", "http://", "http://host:port",
     "http://h/?x=1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncRewardClient(url)
    assert url.partition("?")[0] in caught.value.detail


@pytest.mark.parametrize("url", ["http://u:s3cret@h:port", "ftp://s3cret@h", "http://h/?k=s3cret"])
def test_a_refused_address_does_not_show_its_key(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RewardClient(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("urls", ["", " , ", []])
def test_no_address_is_refused(urls: Any) -> None:
    with pytest.raises(ConfigurationError, match="urls has no address"):
        AsyncRewardClient(urls)


@pytest.mark.parametrize("key", ["s3 cret", "s3cret\n", "sécret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="API key") as caught:
        AsyncRewardClient("http://rm", api_key=key)
    assert key not in str(caught.value)
