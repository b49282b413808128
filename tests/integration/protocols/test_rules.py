"""What holds on every trainer's route, whatever its shape."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fivescore.telemetry.logging import Text
from tests.integration.protocols.protocols import (
    BY_NAME,
    PAIRS,
    PROTOCOLS,
    QUESTION,
    SEVERAL,
    Protocol,
    answered,
    assert_refused,
    encoded,
    of_trainers_alone,
    post,
    token_ids,
)
from tests.integration.service import Json, Service, serving
from tests.integration.test_life import Connection
from tests.unit.engines import HeldEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
with_several = pytest.mark.parametrize("protocol", SEVERAL, ids=lambda protocol: protocol.name)
TRUNCATED = "X-Fivescore-Truncated"
LONG: Json = {"prompt": "many words " * 40, "response": "The end of it."}
LONGER: Json = {"prompt": LONG["prompt"], "response": "Another end, of another response."}
LIMIT = 32
EXTRA: Json = {
    "model": "/models/nobody-has-this", "user": "u", "unheard_of": [{"a": None}],
    "priority": 3, "seed": 0, "temperature": 0.0, "max_tokens": 2048,
    **dict.fromkeys(("activation", "use_activation", "softmax", "normalize"), True),
    "raw_scores": False, "add_special_tokens": True, "truncation_side": "left",
    "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


def app(**settings: Any) -> Any:
    """A fixture: one app for all tests of this file that ask it."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def run() -> AsyncIterator[Service]:
        async with serving(**settings) as service:
            yield service

    return run


short = app(max_tokens=LIMIT)
short_and_strict = app(max_tokens=LIMIT, trainer_truncate="never")
tiny = app(max_body_bytes=8)
of_two_pairs = app(max_pairs=2)
nan = app(options={"nan_every": 1})
failing = app(options={"fail_every": 1})


async def rewards(service: Service, *pairs: Json, **options: Any) -> list[float]:
    return [score["reward"] for score in await service.scores(*pairs, **options)]


# The same reward


@every
async def test_a_pair_gets_the_reward_that_score_gives_it(
    service: Service, protocol: Protocol
) -> None:
    for pair, reward in zip(PAIRS, await rewards(service, *PAIRS), strict=True):
        response = await post(service, protocol, protocol.one(pair))
        assert protocol.rewards(answered(response)) == [reward]
        assert TRUNCATED not in response.headers


@with_several
async def test_pairs_are_answered_in_their_order(service: Service, protocol: Protocol) -> None:
    responses = [f"{n} {'word ' * (n % 7)}" for n in range(150)]
    pairs = [{"prompt": QUESTION, "response": response} for response in responses]
    answer = answered(await post(service, protocol, protocol.body(pairs)))
    assert protocol.rewards(answer) == await rewards(service, *pairs)


@every
async def test_an_unknown_model_unknown_fields_and_another_content_type_change_nothing(
    service: Service, protocol: Protocol
) -> None:
    response = await service.http.post(
        protocol.path,
        content=encoded({**protocol.one(), **EXTRA}),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert protocol.rewards(answered(response)) == await rewards(service, PAIRS[0])


# Too long


@every
async def test_an_over_long_pair_loses_its_start_and_is_flagged(
    short: Service, protocol: Protocol
) -> None:
    expected = await rewards(short, LONG, truncate="prompt_start")
    before = await short.metric("fivescore_truncated_pairs_total")
    response = await post(short, protocol, protocol.one(LONG))
    answer = answered(response)
    assert protocol.rewards(answer) == expected
    assert response.headers[TRUNCATED] == "1"
    if protocol.flags:
        assert protocol.flags(answer) == [True]
    assert await short.metric("fivescore_truncated_pairs_total") == before + 1


@with_several
async def test_each_truncated_pair_is_flagged_and_counted(protocol: Protocol) -> None:
    short = {"prompt": LONG["prompt"], "response": "Hm."}
    limit = len(token_ids(short))
    pairs = [LONG, short, LONGER]
    async with serving(max_tokens=limit) as service:
        response = await post(service, protocol, protocol.body(pairs))
        answer = answered(response)
        assert protocol.rewards(answer) == await rewards(service, *pairs, truncate="prompt_start")
    assert response.headers[TRUNCATED] == "2"
    if protocol.flags:
        assert protocol.flags(answer) == [True, False, True]


@every
async def test_an_over_long_pair_is_refused_where_the_setting_says_so(
    short_and_strict: Service, protocol: Protocol
) -> None:
    response = await post(short_and_strict, protocol, protocol.one(LONG))
    assert assert_refused(response, 422, "too_long")["limit"] == LIMIT
    assert TRUNCATED not in response.headers


async def test_a_tei_client_may_refuse_truncation_itself(short: Service) -> None:
    inputs = [LONG["prompt"], LONG["response"]]
    response = await short.http.post("/predict", json={"inputs": inputs, "truncate": False})
    assert_refused(response, 422, "too_long")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": [LONG["prompt"], LONG["response"]], "truncate": True}),
        ("/classify", {"input": LONG["prompt"], "truncate_prompt_tokens": 8}),
        ("/classify", {"input": LONG["prompt"], "truncate_prompt_tokens": -1}),
    ],
)
async def test_a_client_may_ask_for_truncation_where_the_service_refuses_it(
    short_and_strict: Service, path: str, body: Json
) -> None:
    response = await short_and_strict.http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers[TRUNCATED] == "1"


LIMITED = [
    "vllm-classify", "vllm-pooling", "embeddings", "vllm-classify-ids", "vllm-classify-messages",
    "vllm-score", "vllm-rerank",
]  # fmt: skip


@pytest.mark.parametrize("name", LIMITED)
async def test_a_vllm_client_may_set_a_lower_limit(service: Service, name: str) -> None:
    protocol = BY_NAME[name]
    body = {**protocol.one(LONG), "truncate_prompt_tokens": LIMIT}
    response = await post(service, protocol, body)
    answer = answered(response)
    assert response.headers[TRUNCATED] == "1"
    assert answer["usage"]["prompt_tokens"] == LIMIT
    bos, *ids = token_ids(LONG)
    kept = [bos, *ids[len(ids) - LIMIT + 1 :]]
    assert protocol.rewards(answer) == await rewards(service, {"token_ids": kept})
    whole = await post(service, protocol, {**protocol.one(LONG), "truncate_prompt_tokens": -1})
    assert TRUNCATED not in whole.headers


# Broken


@every
async def test_a_pair_without_a_score_is_500_for_the_whole_request(
    nan: Service, failing: Service, protocol: Protocol
) -> None:
    assert_refused(await post(nan, protocol), 500, "non_finite")
    assert_refused(await post(failing, protocol), 500, "engine_error")


ITEMS = {
    "openrlhf": "query",
    "llama-factory": "messages",
    "vllm-score": "text_2",
    "vllm-v1-score": "documents",
    "vllm-rerank": "documents",
    "sglang-text": "text",
    "sglang-ids": "input_ids",
    "tei": "inputs",
}
"""The field that has an item a pair, where it is not ``input``."""


@with_several
async def test_one_failure_fails_the_request_and_is_told_by_its_place(protocol: Protocol) -> None:
    async with serving(options={"fail_every": 2}) as service:
        problem = assert_refused(
            await post(service, protocol, protocol.body(PAIRS)), 500, "engine_error"
        )
    assert problem["detail"].startswith(f"{ITEMS.get(protocol.name, 'input')}.1: ")


@with_several
async def test_one_malformed_item_fails_the_request_and_is_told_by_its_place(
    service: Service, protocol: Protocol
) -> None:
    body = protocol.body(PAIRS)
    if protocol.name.endswith("ids"):
        _replaced(body, token_ids(PAIRS[2]), [6144])
    else:
        body = json.loads(json.dumps(body).replace("Two, as every", "\\ud83d"))
    problem = assert_refused(await post(service, protocol, body), 422, "invalid_pair")
    assert problem["detail"].startswith(f"{ITEMS.get(protocol.name, 'input')}.2: ")


def _replaced(body: Json, value: Any, other: Any) -> None:
    for items in body.values():
        items[items.index(value)] = other


# Too much


@of_trainers_alone
async def test_a_body_over_the_limit_is_refused(tiny: Service, protocol: Protocol) -> None:
    assert assert_refused(await post(tiny, protocol), 413, "body_too_large")["limit"] == 8


@with_several
async def test_too_many_pairs_are_refused(of_two_pairs: Service, protocol: Protocol) -> None:
    response = await post(of_two_pairs, protocol, protocol.body(PAIRS))
    assert assert_refused(response, 413, "too_many_pairs")["limit"] == 2
    assert (await post(of_two_pairs, protocol, protocol.body(PAIRS[:2]))).status_code == 200


# Around each request


async def counted(service: Service, protocol: Protocol) -> list[float]:
    """Answers on the protocol's route, and pairs scored on any."""
    name = "fivescore_http_request_duration_seconds_count"
    labels = {"method": "POST", "route": protocol.path, "status": "200"}
    return [
        await service.metric(name, **labels),
        await service.metric("fivescore_pairs_total", outcome="ok"),
    ]


@every
async def test_each_request_has_its_log_line_and_its_metrics(
    service: Service, protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    await post(service, protocol)
    before = await counted(service, protocol)
    caplog.clear()
    with caplog.at_level(logging.INFO, "fivescore"):
        response = await post(service, protocol)
    (good,) = (Text().format(record) for record in caplog.records)
    tokens = len(token_ids(PAIRS[0]))
    assert f" POST {protocol.path} 200 " in good
    assert f" pairs=1 tokens={tokens} failed=0 " in good
    assert good.endswith(f"request_id={response.headers['X-Request-Id']}")
    after = await counted(service, protocol)
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1]


@every
async def test_a_client_that_goes_away_has_its_work_aborted(protocol: Protocol) -> None:
    engine = HeldEngine()
    async with serving(engine) as service:
        connection = Connection(encoded(protocol.one()))
        connection.scope["path"] = protocol.path
        request = asyncio.create_task(connection.run(service))
        await engine.busy.wait()
        connection.broken.set()
        await asyncio.wait_for(request, 30)
        await asyncio.sleep(0)
        assert (engine.aborted, engine.unfinished()) == (1, 0)
        assert await service.metric("fivescore_pairs_total", outcome="cancelled") == 1
