"""What is too much, and what is no request at all."""

from __future__ import annotations

import asyncio
import json

import pytest

from fivescore.http.slices import MOST_DEPTH
from tests.integration.service import OTHER, PAIR, Service, assert_problem, serving
from tests.unit.engines import HeldEngine, RecordingEngine


async def test_a_body_of_just_the_limit_passes_and_one_byte_more_does_not() -> None:
    body = json.dumps(PAIR).encode()
    async with serving(max_body_bytes=len(body)) as service:
        assert (await service.http.post("/score", content=body)).status_code == 200
        problem = assert_problem(
            await service.http.post("/score", content=body + b" "), 413, "body_too_large"
        )
    assert problem["limit"] == len(body)
    assert "max_body_bytes" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/score", "pairs"), ("/score", "text_2"), ("/v1/score", "queries"),
        ("/get_reward", "query"), ("/classify", "input"), ("/classify", "input_ids"),
        ("/predict", "inputs"), ("/rerank", "documents"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("entry", ["x", [], {}, None], ids=str)
async def test_lists_longer_than_any_request_may_have_are_refused_unread(
    service: Service, path: str, field: str, entry: object
) -> None:
    problem = assert_problem(
        await service.http.post(path, json={field: [entry] * 10_001}), 413, "too_many_pairs"
    )
    assert problem["detail"].startswith(f"{field}: 10001 entries")
    assert problem["limit"] == 10_000


async def test_a_list_of_token_ids_may_be_longer(service: Service) -> None:
    response = await service.score({"token_ids": [1] * 10_001})
    assert_problem(response, 422, "too_long")


async def test_more_pairs_are_read_where_more_are_allowed() -> None:
    async with serving(max_pairs=10_002) as service:
        assert len(await service.scores(*[PAIR] * 10_001)) == 10_001


async def test_more_members_than_any_route_knows_are_refused_in_a_few_words(
    service: Service,
) -> None:
    response = await service.score({**PAIR, **{str(i): i for i in range(1000)}})
    assert "1002 members" in assert_problem(response, 422, "invalid_request")["detail"]
    assert len(response.content) < 1000


async def test_too_many_pairs_are_refused_whole() -> None:
    engine = RecordingEngine()
    async with serving(engine, max_pairs=2) as service:
        response = await service.score({"pairs": [PAIR, OTHER, PAIR]})
        problem = assert_problem(response, 413, "too_many_pairs")
        assert problem["limit"] == 2
        assert engine.submitted == []
        assert (await service.score({"pairs": [PAIR, OTHER]})).status_code == 200


async def test_a_full_service_refuses_and_says_when_to_come_again() -> None:
    engine = HeldEngine()
    async with serving(engine, max_inflight_pairs=1) as service:
        accepted = asyncio.create_task(service.score(PAIR))
        await engine.busy.wait()
        problem = assert_problem(await service.score(OTHER), 429, "overloaded")
        assert problem["limit"] == 1
        engine.gate.set()
        assert (await accepted).status_code == 200
        assert (await service.score(OTHER)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q" * 9000, "documents": [str(i) for i in range(600)]}),
        ("/score", {"text_1": [str(i) for i in range(600)], "text_2": "a" * 9000}),
        ("/score", {"pairs": [{"text": f"{i} " * 900} for i in range(600)]}),
    ],
    ids=["query", "text_2", "pairs"],
)
async def test_beside_one_huge_request_every_small_one_is_scored(
    path: str, body: dict[str, object]
) -> None:
    engine = HeldEngine()
    async with serving(engine, max_inflight_pairs=512, max_inflight_tokens=2**14) as service:
        huge = asyncio.create_task(service.http.post(path, json=body))
        await engine.busy.wait()
        pairs = [{"prompt": f"What is 1+{i}?", "response": "?"} for i in range(32)]
        small = [asyncio.create_task(service.score(pair)) for pair in pairs]
        while await service.metric("fivescore_inflight_pairs") < 632:
            assert [one.result().text for one in small if one.done()] == []
            await asyncio.sleep(0.1)
        engine.gate.set()
        assert {(await one).status_code for one in small} == {200}
        assert (await huge).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q" * 10**6, "documents": [""] * 10_000}),
        ("/v1/score", {"queries": "q" * 10**5, "documents": [""] * 10_000}),
        ("/score", {"text_1": [""] * 10_000, "text_2": "a" * 10**6}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_text_that_would_be_repeated_too_often_is_refused(
    service: Service, path: str, body: dict[str, object]
) -> None:
    problem = assert_problem(await service.http.post(path, json=body), 413, "body_too_large")
    assert problem["detail"].startswith(tuple(body))
    assert "send at most" in problem["detail"]


MALFORMED = (
    b'"timeout_seconds": Infinity',
    b'"\\ud83d": 1',  # halves of surrogate pairs
    b'"weights": {"\\ud83d": "x"}',
    b'"weights": {"\\ud83d": 1}',
    b'"truncate": "\\ud83d"',
)
"""Options that are none."""


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}",
        b'{"pairs": []  "weights": {}}',
        b'{"pairs":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        *(b'{"prompt": "Q", "response": "A", %s}' % option for option in MALFORMED),
    ],
    ids=lambda body: repr(body[:80]),
)  # fmt: skip
async def test_a_malformed_request_is_told_what_is_wrong(service: Service, body: bytes) -> None:
    problem = assert_problem(
        await service.http.post("/score", content=body), 422, "invalid_request"
    )
    assert isinstance(problem["errors"], list)


async def test_a_pair_nested_as_deep_as_allowed_fails_alone(service: Service) -> None:
    deep = b"[" * (MOST_DEPTH - 3) + b"]" * (MOST_DEPTH - 3)
    content = (
        b'{"pairs": [{"prompt": ' + deep + b', "response": "A"}, {"prompt": "Q", "response": "A"}]}'
    )
    response = await service.http.post("/score", content=content)
    assert response.status_code == 200, response.text
    bad, good = response.json()["scores"]
    assert bad["error"]["code"] == "invalid_pair"
    assert "reward" in good
