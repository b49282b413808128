"""Bodies that are no request: each is told what is wrong with it, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fivescore.http.slices import MOST_DEPTH
from tests.integration.protocols.protocols import (
    BY_NAME,
    PAIRS,
    PROTOCOLS,
    Protocol,
    answered,
    assert_refused,
    conversation,
    of_trainers_alone,
    post,
)
from tests.integration.service import Json, Service, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


@of_trainers_alone
async def test_what_is_not_json_is_refused(service: Service, protocol: Protocol) -> None:
    for content in (b"", b"{", b"\xff\xfe", b'{"input": NaN}', b"[" * 50):
        response = await service.http.post(protocol.path, content=content)
        problem = assert_refused(response, 422, "invalid_request")
        assert "not JSON" in problem["detail"]


@of_trainers_alone
async def test_a_body_that_is_no_object_is_refused(service: Service, protocol: Protocol) -> None:
    for body in ([], "text", 1, None, [{"input": "x"}]):
        problem = assert_refused(await post(service, protocol, body), 422, "invalid_request")
        assert "object" in problem["detail"]


SAID = {"role": "assistant", "content": "x"}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
NO_INPUTS: tuple[tuple[Any, str], ...] = (
    *((body, "input") for body in ({}, {"input": None}, {"inputs": "x"})),
    *(({"input": value}, "input") for value in (1, {"a": 1}, True)),
    *(({"messages": value}, "messages") for value in ("x", [], ["x"])),
    ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ({"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"input": "x", "truncate_prompt_tokens": "9"}, "truncate_prompt_tokens"),
    ({"input": "x", "chat_template": "{{ 1 }}"}, "chat_template"),
)
NO_VECTORS: tuple[tuple[Any, str], ...] = (
    ({"input": "x", "encoding_format": "bytes"}, "encoding_format"),
    ({"input": "x", "dimensions": 2}, "dimensions"),
)
NO_SIDES: tuple[tuple[Any, str], ...] = (
    ({"text_1": "x"}, "text_2"),
    ({"documents": ["x"]}, "text_1"),
    ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_2"),
    ({"text_1": "a", "text_2": ["a", 1]}, "text_2.1"),
    ({"text_1": ["a"], "text_2": [["a", "b"]]}, "text_2.0"),
)
NO_RANKING: tuple[tuple[Any, str], ...] = (
    ({"query": "x"}, "documents"),
    ({"documents": ["x"]}, "query"),
    ({"query": ["x", 1], "documents": ["x"]}, "query"),
    ({"query": "x", "documents": ["x"], "top_n": -1}, "top_n"),
)
NO_CHAT: tuple[tuple[Any, str], ...] = (
    ({}, "messages"),
    *(({"messages": value}, "messages") for value in ([], "x", [1])),
    ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ({"messages": [IMAGE, SAID]}, "messages.0.content.0"),
    *(({"messages": conversation(PAIRS[0]), "n": n}, "n") for n in (0, -1, 129, "2", 1.5)),
)
NO_GYM: tuple[tuple[Any, str], ...] = (
    ({"response": {"output": []}}, "responses_create_params"),
    ({"responses_create_params": {"input": "x"}}, "response"),
    ({"responses_create_params": 1, "response": {}}, "responses_create_params"),
    ({"responses_create_params": {}, "response": {}}, "responses_create_params.input"),
    ({"responses_create_params": {"input": "x"}, "response": {"output": 1}}, "response.output"),
)
MALFORMED: dict[str, tuple[tuple[Any, str], ...]] = {
    "/get_reward": (
        *((body, "query") for body in ({}, {"queries": ["x"]})),
        *(({"query": value}, "query") for value in (None, 1, [1], [["x"]])),
    ),
    "/classify": (*NO_INPUTS, ({"text": 1}, "text"), ({"input_ids": "x"}, "input_ids")),
    "/pooling": (*NO_INPUTS, *NO_VECTORS),
    "/v1/embeddings": (*NO_INPUTS, *NO_VECTORS),
    "/score": NO_SIDES,
    "/v1/score": NO_SIDES,
    "/rerank": NO_RANKING,
    "/v1/rerank": NO_RANKING,
    "/v1/chat/completions": NO_CHAT,
    "/reward": (
        ({"response": "x"}, "prompt"),
        ({"prompt": "x"}, "response"),
        ({"prompt": 1, "response": "x"}, "prompt"),
        ({"prompt": "x", "response": 1}, "response"),
    ),
    "/verify": NO_GYM,
    "/predict": (
        ({}, "inputs"),
        ({"inputs": 1}, "inputs"),
        ({"inputs": ["a", "b", "c"]}, "inputs"),
        ({"inputs": [["a"], ["a", "b", "c"]]}, "inputs.1"),
    ),
}
"""Bodies by route, and the field that is at fault in each."""


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [(path, body, field) for path, bodies in MALFORMED.items() for body, field in bodies],
)
async def test_a_malformed_field_is_named(
    service: Service, path: str, body: Json, field: str
) -> None:
    response = await service.http.post(path, json=body)
    problem = assert_refused(response, 422, "invalid_request")
    (error,) = problem["errors"]
    assert error["field"].startswith(field)
    assert error["detail"]
    assert error["field"] in problem["detail"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/get_reward", {"query": [""]}, "query"),
        ("/classify", {"input": [""]}, "input"),
        ("/classify", {"input": [[]]}, "input"),
        ("/classify", {"input": [[1, -1]]}, "input"),
        ("/classify", {"input": [1, True]}, "input"),
        ("/classify", {"input": [["x"]]}, "input"),
        ("/classify", {"input_ids": [[1.5]]}, "input_ids"),
        ("/classify", {"input": [6144]}, "6144"),
        ("/predict", {"inputs": ["Q", 1]}, "inputs"),
        ("/predict", {"inputs": ""}, "inputs"),
        ("/classify", {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        (
            "/classify",
            {"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant"}]},
            "messages.0.role",
        ),
    ],
)
async def test_a_malformed_pair_is_told_in_the_words_of_the_request(
    service: Service, path: str, body: Json, told: str
) -> None:
    response = await service.http.post(path, json=body)
    problem = assert_problem(response, 422, response.json()["code"])
    assert told in problem["detail"]


@pytest.mark.parametrize(
    "protocol",
    [protocol for protocol in PROTOCOLS if not protocol.name.endswith("ids")],
    ids=lambda protocol: protocol.name,
)
async def test_half_a_surrogate_pair_is_a_malformed_pair_and_no_failure(
    service: Service, protocol: Protocol
) -> None:
    body = json.loads(json.dumps(protocol.one()).replace("1+1=2", "cut \\ud83d"))
    problem = assert_refused(await post(service, protocol, body), 422, "invalid_pair")
    assert "surrogate" in problem["detail"]


@pytest.mark.parametrize("text", ["", "\ud83d"])
async def test_a_deep_body_that_nemo_gym_wants_back_is_echoed(service: Service, text: str) -> None:
    note = json.loads("[" * (MOST_DEPTH - 1) + json.dumps(text) + "]" * (MOST_DEPTH - 1))
    answer = await post(service, BY_NAME["nemo-gym"], {**BY_NAME["nemo-gym"].one(), "note": note})
    assert answered(answer)["note"] == note


async def test_half_a_surrogate_pair_in_what_nemo_gym_wants_back_is_echoed(
    service: Service,
) -> None:
    protocol = BY_NAME["nemo-gym"]
    answer = answered(await post(service, protocol, {**protocol.one(), "note": "\ud83d"}))
    assert answer["note"] == "\ud83d"
    assert [answer["reward"]] == [(await service.scores(PAIRS[0]))[0]["reward"]]
