"""Trainers' clients against a server process: every pair is answered, and with its own reward."""

from __future__ import annotations

import asyncio
import base64
import socket
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI, UnprocessableEntityError

from fivescore.model.manifest import ATTRIBUTES
from tests.integration.protocols.clients import (
    CLIENTS,
    Client,
    OpenRlhf,
    Verl,
    all_rewards,
)
from tests.integration.protocols.protocols import (
    PAIRS,
    conversation,
    rendered,
    token_ids,
)
from tests.integration.service import Json, Service, serving
from tests.unit.engines import HeldEngine

AT_ONCE = 512


def distinct(count: int, seed: str) -> list[Json]:
    return [
        {"prompt": f"{seed}: question {n // 4}?", "response": f"Answer {n}."} for n in range(count)
    ]


async def rewards_of(url: str, pairs: list[Json]) -> list[float]:
    """What one batch of ``POST /score`` gives."""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        response = await http.post("/score", json={"pairs": pairs})
    return [entry["reward"] for entry in response.json()["scores"]]


def asked(pairs: list[Json]) -> list[tuple[str, str, str]]:
    return [(rendered(pair), pair["prompt"], pair["response"]) for pair in pairs]


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_trainer_that_asks_for_all_at_once_gets_every_reward(url: str, name: str) -> None:
    pairs = distinct(AT_ONCE, name)
    client: Client = CLIENTS[name](url)
    rewards = await all_rewards(client, asked(pairs))
    assert rewards == await rewards_of(url, pairs)
    assert len(set(rewards)) == AT_ONCE
    if isinstance(client, OpenRlhf | Verl):
        assert client.posts == AT_ONCE  # none was sent twice


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """The address of an app, served on a socket."""
    server = uvicorn.Server(uvicorn.Config(service.app, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


@pytest.mark.parametrize("kind", [Verl, OpenRlhf])
async def test_a_full_service_is_tried_again_until_it_has_room(kind: type[Verl | OpenRlhf]) -> None:
    engine = HeldEngine()
    async with serving(engine, max_inflight_pairs=1) as service, listening(service) as url:
        held = asyncio.create_task(service.score(PAIRS[1]))
        await engine.busy.wait()
        client = kind(url)
        asking = asyncio.create_task(client.reward(*asked(list(PAIRS[:1]))[0]))
        await service.until(lambda: client.posts >= 3)
        engine.gate.set()
        await held
        reward = await asking
        assert [reward] == [score["reward"] for score in await service.scores(PAIRS[0])]


# The openai package


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    """Untyped: the service answers more than the package's types know."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def score_of(url: str, pair: Json) -> Json:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        answer: Json = (await http.post("/score", json=pair)).json()
    return answer


def by_the_documentation(content: str) -> dict[str, float]:
    """How NVIDIA's documentation reads the content."""
    return {part.split(":")[0]: float(part.split(":")[1]) for part in content.split(",")}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["response"])
async def test_both_ways_of_reading_a_completion_give_the_five(
    client: Any, url: str, pair: Json
) -> None:
    score = await score_of(url, pair)
    five = {name: score[name] for name in ATTRIBUTES}
    answer = await client.chat.completions.create(
        model="nvidia/nemotron-4-340b-reward", messages=conversation(pair), temperature=0.0
    )
    (choice,) = answer.choices
    assert by_the_documentation(choice.message.content) == five
    assert choice.logprobs is not None  # Curator raises ValueError for a null
    assert {token.token: token.logprob for token in choice.logprobs.content} == five
    assert list(five) == [token.token for token in choice.logprobs.content]
    assert answer.reward == score["reward"]
    assert answer.usage.prompt_tokens == score["tokens"] == answer.usage.total_tokens


async def test_a_stream_is_one_chunk_with_everything_in_it(client: Any, url: str) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=conversation(PAIRS[0]), stream=True, n=2
    )
    chunks = [chunk async for chunk in stream]
    score = await score_of(url, PAIRS[0])
    contents: dict[int, str] = {}
    for chunk in chunks:
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            contents[choice.index] = contents.get(choice.index, "") + choice.delta.content
    five = {name: score[name] for name in ATTRIBUTES}
    assert [by_the_documentation(contents[i]) for i in (0, 1)] == [five, five]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_embeddings_end_with_the_reward_in_any_encoding(
    client: Any, url: str, encoding: str | None
) -> None:
    rewards = await rewards_of(url, list(PAIRS))
    chosen = {"encoding_format": encoding} if encoding else {}
    for inputs in ([rendered(pair) for pair in PAIRS], [token_ids(pair) for pair in PAIRS]):
        answer = await client.embeddings.create(model="m", input=inputs, **chosen)
        vectors = [
            numbers(entry.embedding) if encoding == "base64" else entry.embedding
            for entry in answer.data
        ]
        assert [vector[-1] for vector in vectors] == pytest.approx(rewards, rel=1e-6)
        assert answer.usage.prompt_tokens > 0


def numbers(encoded: Any) -> list[float]:
    """A vector that was asked for in base64 is left so by the package."""
    assert isinstance(encoded, str)
    return list(array("f", base64.b64decode(encoded)))


async def test_an_error_is_the_packages_own_with_the_services_words(client: Any) -> None:
    with pytest.raises(UnprocessableEntityError) as caught:
        await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "no answer to score"}]
        )
    assert "assistant" in str(caught.value)
    assert caught.value.type == "invalid_request"
    assert caught.value.code


async def test_a_full_service_is_asked_again_by_the_package() -> None:
    engine = HeldEngine()
    async with (
        serving(engine, max_inflight_pairs=1) as service,
        listening(service) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=2) as package,
    ):
        client: Any = package
        held = asyncio.create_task(service.score(PAIRS[1]))
        await engine.busy.wait()
        asking = asyncio.create_task(
            client.chat.completions.create(model="m", messages=conversation(PAIRS[0]))
        )
        refused = "fivescore_admission_rejections_total"
        async with asyncio.timeout(60):
            while not await service.metric(refused, reason="pairs"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # the package has no event
        engine.gate.set()
        await held
        reward = (await asking).reward
        assert [reward] == [score["reward"] for score in await service.scores(PAIRS[0])]
