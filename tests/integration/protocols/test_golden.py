"""Whole requests and answers, in the shapes that the trainers' own code sends and reads."""

from __future__ import annotations

import base64
import struct
from functools import reduce
from operator import getitem
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import ATTRIBUTES
from tests.integration.protocols.protocols import (
    PAIRS,
    QUESTION,
    answered,
    conversation,
    rendered,
    rendered_prompt,
    token_ids,
)
from tests.integration.service import Json, Service, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "fivescore-demo"
LOW, HIGH = 4 * -0.33, 4 * (0.3 + 0.74 + 0.46 + 0.47)
"""The combined reward of the worst and of the best attributes, by the demo's weights."""


async def ask(service: Service, path: str, body: Any) -> Any:
    """An answer, with what differs from one request to the next made the same."""
    response = await service.http.post(path, json=body, headers={"X-Request-Id": "abc"})
    answer = answered(response)
    for one in answer if isinstance(answer, list) else [answer]:
        if isinstance(one, dict):
            if "created" in one:
                assert isinstance(one["created"], int)
                one["created"] = 0
            if "meta_info" in one:
                assert one["meta_info"]["e2e_latency"] >= 0
                one["meta_info"]["e2e_latency"] = 0.0
    return answer


def usage(*scores: Json) -> Json:
    tokens = sum(score["tokens"] for score in scores)
    return {
        "prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


def listed(kind: str, entries: list[Json], scores: list[Json]) -> Json:
    """A whole answer of vLLM's."""
    return {
        "id": f"{kind}-abc", "object": "list", "created": 0, "model": MODEL, "data": entries,
        "usage": usage(*scores),
    }  # fmt: skip


# OpenRLHF


async def test_openrlhf(service: Service) -> None:
    scores = await service.scores(*PAIRS)
    body = {
        "query": [rendered(pair) for pair in PAIRS],
        "prompts": [rendered_prompt(pair) for pair in PAIRS],
        "labels": ["4", None, "2"],
    }
    answer = await ask(service, "/get_reward", body)
    mapped = answer.pop("scores")
    assert answer == {
        "rewards": [score["reward"] for score in scores],
        "extra_logs": {name: [score[name] for score in scores] for name in ATTRIBUTES},
        "truncated": [False, False, False],
    }
    places = [(score["reward"] - LOW) / (HIGH - LOW) for score in scores]
    assert mapped == pytest.approx([min(1.0, place) for place in places], abs=1e-9)
    assert min(places) < 1 < max(places)
    assert all(0 <= score <= 1 for score in mapped)


@pytest.mark.parametrize("extra", [{}, {"labels": [None]}, {"prompts": [], "labels": []}])
async def test_openrlhf_gets_lists_of_one_for_a_list_of_one(service: Service, extra: Json) -> None:
    (score,) = await service.scores(PAIRS[0])
    answer = await ask(service, "/get_reward", {"query": [rendered(PAIRS[0])], **extra})
    assert answer["rewards"] == [score["reward"]]
    assert len(answer["scores"]) == 1
    assert list(answer["extra_logs"].values()) == [[score[name]] for name in ATTRIBUTES]


async def test_openrlhf_gets_empty_lists_for_the_empty_list(service: Service) -> None:
    answer = await ask(service, "/get_reward", {"query": [], "prompts": [], "labels": []})
    logs: Json = {name: [] for name in ATTRIBUTES}
    assert answer == {"rewards": [], "scores": [], "extra_logs": logs, "truncated": []}


async def test_openrlhfs_scores_are_clamped_to_the_range_that_is_set() -> None:
    async with serving(score_range="0.5,1.5") as service:
        rewards = [score["reward"] for score in await service.scores(*PAIRS)]
        body = {"query": [rendered(pair) for pair in PAIRS]}
        answer = await ask(service, "/get_reward", body)
    assert answer["rewards"] == rewards
    assert answer["scores"] == [
        pytest.approx(min(1.0, max(0.0, reward - 0.5))) for reward in rewards
    ]


async def test_openrlhf_gets_a_scalar_models_reward_without_logs() -> None:
    async with serving(options={"outputs": 1}, manifest="scalar") as service:
        (score,) = await service.scores(PAIRS[0])
        answer = await ask(service, "/get_reward", {"query": [rendered(PAIRS[0])]})
    assert answer["rewards"] == [score["reward"]]
    assert answer["extra_logs"] == {}
    assert 0 < answer["scores"][0] < 1


# vLLM


@pytest.mark.parametrize(
    "asked",
    [
        {"input": [rendered(PAIRS[0])]},
        {"input": rendered(PAIRS[0])},
        {"input": token_ids(PAIRS[0])},
        {"input": [token_ids(PAIRS[0])]},
        {"messages": conversation(PAIRS[0])},
    ],
    ids=["texts", "text", "ids", "list of ids", "messages"],
)
@pytest.mark.parametrize("kind", ["classify", "pooling", "embedding"])
async def test_vllms_vectors(service: Service, kind: str, asked: Json) -> None:
    (score,) = await service.scores(PAIRS[0])
    path = {"embedding": "/v1/embeddings"}.get(kind, f"/{kind}")
    answer = await ask(service, path, {"model": "/models/rm", "use_activation": False, **asked})
    entry: Json = {"index": 0, "truncated": False}
    if kind == "classify":
        entry |= {"label": "reward", "probs": [score["reward"]], "num_classes": 1}
    else:
        field = "data" if kind == "pooling" else "embedding"
        entry |= {"object": kind, field: [score["reward"]]}
    assert answer == listed(kind, [entry], [score])


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("left", "right"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
async def test_vllms_scores_of_one_prompt_and_many_responses(
    service: Service, path: str, left: str, right: str
) -> None:
    scores = await service.scores(*PAIRS)
    body = {left: QUESTION, right: [pair["response"] for pair in PAIRS]}
    entries = [
        {"index": i, "object": "score", "score": score["reward"], "truncated": False}
        for i, score in enumerate(scores)
    ]
    assert await ask(service, path, body) == listed("score", entries, scores)


async def test_vllms_score_takes_many_prompts_for_one_response(service: Service) -> None:
    scores = await service.scores(
        *({"prompt": prompt, "response": "Yes."} for prompt in ("Is it?", "Really?"))
    )
    answer = await ask(service, "/v1/score", {"text_1": ["Is it?", "Really?"], "text_2": "Yes."})
    assert [entry["score"] for entry in answer["data"]] == [score["reward"] for score in scores]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("top", [0, 1, 2, 9])
async def test_vllms_rerank_has_the_best_first(service: Service, path: str, top: int) -> None:
    scores = await service.scores(*PAIRS)
    texts = [pair["response"] for pair in PAIRS]
    answer = await ask(service, path, {"query": QUESTION, "documents": texts, "top_n": top})
    order = sorted(range(3), key=lambda i: -scores[i]["reward"])[: top or 3]
    results = answer.pop("results")
    assert [result["index"] for result in results] == order
    for result, i in zip(results, order, strict=True):
        assert result["document"]["text"] == texts[i]
        assert result["relevance_score"] == scores[i]["reward"]
        assert result["truncated"] is False
    assert answer.pop("usage") == usage(*scores)
    assert (answer["id"], answer["model"]) == ("rerank-abc", MODEL)


async def test_a_base64_vector_holds_the_same_numbers_in_float32(service: Service) -> None:
    scores = await service.scores(*PAIRS)
    body = {"input": [rendered(pair) for pair in PAIRS], "encoding_format": "base64"}
    for path, field in (("/v1/embeddings", "embedding"), ("/pooling", "data")):
        answer = await ask(service, path, body)
        for entry, score in zip(answer["data"], scores, strict=True):
            (reward,) = struct.unpack("<f", base64.b64decode(entry[field], validate=True))
            assert reward == pytest.approx(score["reward"], rel=1e-6)


async def test_attributes_stand_before_the_reward_where_the_setting_says_so() -> None:
    text = rendered(PAIRS[0])
    async with serving(vector="attributes") as service:
        (score,) = await service.scores(PAIRS[0])
        vector = [*(score[name] for name in ATTRIBUTES), score["reward"]]
        for path, body, keys in (
            ("/classify", {"input": text}, ("data", 0, "probs")),
            ("/pooling", {"input": text}, ("data", 0, "data")),
            ("/v1/embeddings", {"input": text}, ("data", 0, "embedding")),
            ("/classify", {"text": text}, ("embedding",)),
        ):
            answer = await ask(service, path, body)
            assert reduce(getitem, keys, answer) == vector
            if keys[-1] == "probs":
                assert answer["data"][0]["num_classes"] == 6


# SGLang


@pytest.mark.parametrize("kind", ["text", "input_ids"])
async def test_sglang_answers_an_entry_for_one_and_a_list_for_a_list(
    service: Service, kind: str
) -> None:
    scores = await service.scores(*PAIRS)
    values = [rendered(pair) if kind == "text" else token_ids(pair) for pair in PAIRS]
    entries = [
        {
            "embedding": [score["reward"]],
            "meta_info": {
                "id": f"abc-{i}", "finish_reason": {"type": "length", "length": 0},
                "prompt_tokens": score["tokens"], "completion_tokens": 0, "cached_tokens": 0,
                "e2e_latency": 0.0, "truncated": False,
            },
        }
        for i, score in enumerate(scores)
    ]  # fmt: skip
    assert await ask(service, "/classify", {kind: values}) == entries
    assert await ask(service, "/classify", {kind: values[:1]}) == entries[:1]
    assert await ask(service, "/classify", {kind: values[0]}) == entries[0]


# NIM


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"max_tokens": 2048, "n": 1, "seed": 0, "temperature": 0.0, "top_p": 0.95, "stop": None},
        {"stream": False, "logprobs": False, "tools": [], "response_format": {"type": "text"}},
    ],
    ids=["bare", "curator", "others"],
)
async def test_nim(service: Service, extra: Json) -> None:
    (score,) = await service.scores(PAIRS[0])
    content = ",".join(f"{name}:{score[name]!r}" for name in ATTRIBUTES)
    tokens = [
        {"token": name, "bytes": None, "logprob": score[name], "top_logprobs": []}
        for name in ATTRIBUTES
    ]
    choice = {
        "index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": content},
        "logprobs": {"content": tokens},
    }  # fmt: skip
    body = {"model": MODEL, "messages": conversation(PAIRS[0]), **extra}
    assert await ask(service, "/v1/chat/completions", body) == {
        "id": "chatcmpl-abc", "object": "chat.completion", "created": 0, "model": MODEL,
        "choices": [choice], "usage": usage(score), "reward": score["reward"], "truncated": False,
    }  # fmt: skip


async def test_nims_scalar_model_answers_the_reward_alone(service: Service) -> None:
    (score,) = await service.scores(PAIRS[0])
    models = (await service.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == [MODEL, f"{MODEL}-scalar"]
    body = {"model": f"{MODEL}-scalar", "messages": conversation(PAIRS[0])}
    answer = await ask(service, "/v1/chat/completions", body)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == f"reward:{score['reward']!r}"
    (token,) = choice["logprobs"]["content"]
    assert (token["token"], token["logprob"]) == ("reward", score["reward"])
    assert (answer["model"], answer["reward"]) == (f"{MODEL}-scalar", score["reward"])


async def test_a_model_whose_own_name_ends_so_answers_its_attributes_by_it() -> None:
    async with serving(name="judge-scalar") as service:
        for name, alone in (("judge-scalar", False), ("judge-scalar-scalar", True)):
            body = {"model": name, "messages": conversation(PAIRS[0])}
            answer = await ask(service, "/v1/chat/completions", body)
            content = answer["choices"][0]["message"]["content"]
            assert content.startswith("reward:" if alone else "helpfulness:")


async def test_a_scalar_reward_model_answers_its_reward_under_either_name() -> None:
    async with serving(options={"outputs": 1}, manifest="scalar") as service:
        (score,) = await service.scores(PAIRS[0])
        for name in (MODEL, f"{MODEL}-scalar"):
            body = {"model": name, "messages": conversation(PAIRS[0])}
            answer = await ask(service, "/v1/chat/completions", body)
            assert answer["choices"][0]["message"]["content"] == f"reward:{score['reward']!r}"


async def test_n_repeats_the_choice(service: Service) -> None:
    body = {"model": MODEL, "messages": conversation(PAIRS[0]), "n": 3}
    choices = (await ask(service, "/v1/chat/completions", body))["choices"]
    assert [choice.pop("index") for choice in choices] == [0, 1, 2]
    assert choices[0] == choices[1] == choices[2]


# slime, NeMo-Gym, TEI


async def test_slimes_route_is_where_the_setting_says() -> None:
    async with serving(reward_path="/rm/v1/reward") as service:
        (score,) = await service.scores(PAIRS[0])
        assert await ask(service, "/rm/v1/reward", PAIRS[0]) == score["reward"]
        assert (await service.http.post("/reward", json=PAIRS[0])).status_code == 404
        name = "fivescore_http_request_duration_seconds_count"
        route = "/rm/v1/reward"
        assert await service.metric(name, method="POST", route=route, status="200") == 1


@pytest.mark.parametrize("path", ["/classify", "/score", "/v1/models", "/health/live"])
async def test_slimes_route_takes_no_other_routes_place(path: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^--reward-path: {path} "):
        async with serving(reward_path=path):
            pass


GYM_OUTPUT: list[Json] = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "message", "role": "assistant",
     "content": [{"type": "output_text", "text": "1+1=2", "annotations": []}]},
]  # fmt: skip
GYM_BODY: Json = {
    "responses_create_params": {
        "input": [{"role": "user", "content": QUESTION}], "temperature": 0.7, "tools": [],
    },
    "response": {
        "id": "resp_1", "object": "response", "created_at": 1.5, "output": GYM_OUTPUT, "usage": None
    },
    "ground_truth": {"nested": [1, 2.5, None, "ü"]},
    "uuid": "u-1",
}  # fmt: skip


async def test_nemo_gym_gets_its_body_back_with_a_reward_that_is_the_sum_of_its_components(
    service: Service,
) -> None:
    (score,) = await service.scores(PAIRS[0])
    answer = await ask(service, "/verify", GYM_BODY)
    components = answer.pop("reward_components")
    assert components.keys() == set(ATTRIBUTES)
    assert sum(components.values()) == pytest.approx(score["reward"], rel=0, abs=1e-6)
    assert components["verbosity"] == pytest.approx(-0.33 * score["verbosity"])
    attributes = {name: score[name] for name in ATTRIBUTES}
    assert answer == {
        **GYM_BODY, **attributes, "reward": score["reward"], "truncated": False,
    }  # fmt: skip


async def test_nemo_gyms_instructions_are_the_system_message(service: Service) -> None:
    prompt = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": QUESTION}]
    (score,) = await service.scores({"prompt": prompt, "response": "1+1=2"})
    params = {"input": QUESTION, "instructions": "Be terse."}
    answer = await ask(service, "/verify", {**GYM_BODY, "responses_create_params": params})
    assert answer["reward"] == score["reward"]


@pytest.mark.parametrize("output", [[], None, GYM_OUTPUT[:1]])
async def test_nemo_gyms_output_without_a_message_is_an_empty_response(
    service: Service, output: Any
) -> None:
    (score,) = await service.scores({"prompt": QUESTION, "response": ""})
    answer = await ask(service, "/verify", {**GYM_BODY, "response": {"output": output}})
    assert answer["reward"] == score["reward"]


async def test_nemo_gym_gets_the_assistants_last_message_scored_whatever_follows(
    service: Service,
) -> None:
    said = GYM_BODY["response"]["output"]
    expected = (await ask(service, "/verify", GYM_BODY))["reward"]
    after = [{"role": "user", "content": "Go on."}, {"type": "function_call_output", "output": "x"}]
    body = {**GYM_BODY, "response": {"output": [*said, *after]}}
    assert (await ask(service, "/verify", body))["reward"] == expected


async def test_nemo_gyms_refusal_is_text(service: Service) -> None:
    rewards = []
    for part in ({"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "No."}):
        message = {"type": "message", "role": "assistant", "content": [part]}
        body = {**GYM_BODY, "response": {"output": [message]}}
        rewards.append((await ask(service, "/verify", body))["reward"])
    assert rewards[0] == rewards[1]


@pytest.mark.parametrize("body", [{}, {"anything": [1]}])
async def test_nemo_gym_may_seed_a_session(service: Service, body: Json) -> None:
    assert await ask(service, "/seed_session", body) == {}


async def test_tei_takes_one_text_one_pair_or_a_list(service: Service) -> None:
    scores = await service.scores(*PAIRS)
    expected = [[{"score": score["reward"], "label": "reward"}] for score in scores]
    pairs = [[pair["prompt"], pair["response"]] for pair in PAIRS]
    for inputs, answer in (
        (pairs, expected),
        (pairs[0], expected[0]),  # two texts in a list are one pair
        (rendered(PAIRS[0]), expected[0]),
        ([rendered(PAIRS[0])], expected[0]),
        ([[rendered(PAIRS[0])], pairs[1]], expected[:2]),
        ([pairs[0]], expected[:1]),
    ):
        body = {"inputs": inputs, "raw_scores": False, "truncate": True}
        assert await ask(service, "/predict", body) == answer


async def test_tei_gets_attributes_too_where_the_setting_says_so_the_highest_first() -> None:
    async with serving(vector="attributes") as service:
        (score,) = await service.scores(PAIRS[0])
        body = {"inputs": [QUESTION, PAIRS[0]["response"]]}
        answer = await ask(service, "/predict", body)
    assert {one["label"]: one["score"] for one in answer} == {
        name: score[name] for name in (*ATTRIBUTES, "reward")
    }
    assert [one["score"] for one in answer] == sorted(
        (one["score"] for one in answer), reverse=True
    )


# The empty list


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/classify", {"input": []}, "data"),
        ("/pooling", {"input": []}, "data"),
        ("/v1/embeddings", {"input": []}, "data"),
        ("/v1/score", {"text_1": QUESTION, "text_2": []}, "data"),
        ("/score", {"text_1": [], "text_2": []}, "data"),
        ("/rerank", {"query": QUESTION, "documents": []}, "results"),
        ("/classify", {"text": []}, None),
        ("/classify", {"input_ids": []}, None),
        ("/predict", {"inputs": []}, None),
    ],
)
async def test_the_empty_list_has_an_empty_answer(
    service: Service, path: str, body: Json, field: str | None
) -> None:
    answer = await ask(service, path, body)
    assert (answer if field is None else answer[field]) == []
    if field:
        assert answer["usage"] == usage()
