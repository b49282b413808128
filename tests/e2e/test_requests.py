"""Whole requests on the demo checkpoint, which ``fivescore serve`` serves when told nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from transformers import AutoTokenizer

from demo.build import CHECKPOINT
from demo.vocabulary import MAX_TOKENS
from tests.e2e.server import Server

TOLERANCE = 1e-4
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
OUTPUTS = (*ATTRIBUTES, "reward")
MANIFEST_WEIGHTS = (0.3, 0.74, 0.46, 0.47, -0.33)
PAIRS, TOO_LONG, MALFORMED = 1000, 20, 10
PROBLEM = "application/problem+json"

Json = dict[str, Any]

MALFORMED_PAIRS: list[Any] = [
    {"prompt": "half a character: \ud800", "response": "a"},
    {"prompt": "a", "response": "the other half: \udc00!"},
    {"prompt": [{"role": "user", "content": "\udfff"}], "response": "a"},
    {"prompt": [{"role": "wizard", "content": "a"}], "response": "a"},
    {"prompt": "no response"},
    {"token_ids": [1, 2, 6144]},
    {"token_ids": [-1]},
    {"prompt": "both forms", "response": "a", "token_ids": [1]},
    {"prompt": "an unknown field", "response": "a", "reponse": "b"},
    "not an object",
]
MORE_MALFORMED_PAIRS: list[Any] = [
    {"token_ids": []},
    {"token_ids": [1.0]},
    {"token_ids": ["1"]},
    {"token_ids": [2**40]},
    {"token_ids": [True]},
    {"prompt": [], "response": "a"},
    {"prompt": [{"role": "user"}], "response": "a"},
    {"prompt": [{"role": "assistant", "content": "a"}], "response": "a"},
    {"prompt": 5, "response": "a"},
    {"prompt": "a", "response": None},
    {"prompt": "a", "response": ["a"]},
    {},
    None,
    [],
]


def words(seed: str) -> Iterator[str]:
    chance = random.Random(seed)
    known = (
        "the",
        "a",
        "dog",
        "function",
        "returns",
        "été",
        "人工智能",
        "x = 1;",
        "\U0001f468",
        "why?",
    )
    while True:
        yield chance.choice(known)


def text(seed: str, count: int) -> str:
    return " ".join(islice(words(seed), count))


def good_pairs(count: int) -> list[Json]:
    return [
        {"prompt": f"{i}: {text(f'prompt {i}', 12)}", "response": text(f"response {i}", i % 24)}
        for i in range(count)
    ]


def long_pairs(count: int) -> list[Json]:
    """Pairs just over the limit and far over it."""
    return [
        {"prompt": text(f"long {i}", 3600 + 100 * i), "response": text(f"end {i}", 20)}
        for i in range(count)
    ]


def reference_ids(pair: Json) -> list[int]:
    """The ids of a pair by the demo checkpoint's own chat template."""
    tokenizer: Any = AutoTokenizer.from_pretrained(CHECKPOINT)
    messages = [
        {"role": "user", "content": pair["prompt"]},
        {"role": "assistant", "content": pair["response"]},
    ]
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    return ids


def post_ascii(server: Server, body: Any) -> Any:
    """Post JSON in which half characters stand as escapes: UTF-8 has no bytes for them."""
    answer = server.http.post(
        "/score", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_same(one: Json, other: Json) -> None:
    assert one["tokens"] == other["tokens"]
    for name in OUTPUTS:
        assert one[name] == pytest.approx(other[name], rel=0, abs=TOLERANCE), name


def assert_problem(answer: Any, status: int, code: str) -> Json:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: Json = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_a_thousand_pairs_of_every_kind(demo: Server) -> None:
    good = good_pairs(PAIRS - TOO_LONG - MALFORMED)
    mixed = [
        *(("ok", pair) for pair in good),
        *(("too_long", pair) for pair in long_pairs(TOO_LONG)),
        *(("invalid_pair", pair) for pair in MALFORMED_PAIRS),
    ]
    random.Random(3).shuffle(mixed)
    answer = post_ascii(demo, {"pairs": [pair for _, pair in mixed]})

    found = [entry.get("error", {"code": "ok"})["code"] for entry in answer["scores"]]
    assert found == [kind for kind, _ in mixed]
    scored = {
        pair["prompt"]: entry
        for (kind, pair), entry in zip(mixed, answer["scores"], strict=True)
        if kind == "ok"
    }
    assert len(scored) == 970
    assert answer["usage"]["pairs"] == PAIRS
    assert answer["usage"]["failed"] == TOO_LONG + MALFORMED
    assert answer["usage"]["tokens"] == sum(entry["tokens"] for entry in scored.values())
    for (kind, _), entry in zip(mixed, answer["scores"], strict=True):
        if kind != "ok":
            assert entry["error"]["detail"]
        if kind == "too_long":
            assert entry["error"]["limit"] == MAX_TOKENS < entry["error"]["tokens"]

    random.Random(4).shuffle(good)  # other neighbours, other places, other batches
    for start in range(0, len(good), 97):
        batch = good[start : start + 97]
        for pair, entry in zip(batch, demo.score(batch), strict=True):
            assert_same(entry, scored[pair["prompt"]])


def test_every_malformed_pair_leaves_its_neighbours_alone(demo: Server) -> None:
    pair = {"prompt": "What is a dog?", "response": "An animal."}
    (alone,) = demo.score([pair])
    for malformed in (*MALFORMED_PAIRS, *MORE_MALFORMED_PAIRS):
        before, error, after = post_ascii(demo, {"pairs": [pair, malformed, pair]})["scores"]
        assert error.keys() == {"error"}
        assert error["error"]["code"] == "invalid_pair", malformed
        assert error["error"]["detail"], malformed
        assert_same(before, alone)
        assert_same(after, alone)


def test_errors_name_the_fault(demo: Server) -> None:
    answers = post_ascii(demo, {"pairs": MALFORMED_PAIRS})["scores"]
    for entry, fault in zip(
        answers,
        (
            "surrogate", "surrogate", "surrogate", "role", "response", "6144", "token_ids",
            "token_ids", "reponse", "",
        ),
        strict=True,
    ):  # fmt: skip
        assert fault in entry["error"]["detail"]


def test_prompt_start_scores_the_end_of_long_pairs(demo: Server) -> None:
    pairs = long_pairs(TOO_LONG)
    short = {"prompt": "What is a dog?", "response": "An animal."}
    *answers, untouched = demo.score([*pairs, short], truncate="prompt_start")
    assert all(entry["truncated"] for entry in answers)
    assert {entry["tokens"] for entry in answers} == {MAX_TOKENS}
    assert untouched["truncated"] is False

    for pair, entry in list(zip(pairs, answers, strict=True))[::7]:
        bos, *ids = reference_ids(pair)
        kept = [bos, *ids[-(MAX_TOKENS - 1) :]]
        (expected,) = demo.score([{"token_ids": kept}])
        assert_same(entry, expected)


def test_prompt_start_takes_a_prompt_of_many_times_the_limit(demo: Server) -> None:
    pair = {"prompt": text("very long", 60_000), "response": "An animal."}
    (entry,) = demo.score([pair], truncate="prompt_start")
    assert "error" not in entry, entry
    assert (entry["tokens"], entry["truncated"]) == (MAX_TOKENS, True)


def test_long_token_ids(demo: Server) -> None:
    ids = [100 + i % 1000 for i in range(MAX_TOKENS + 5)]
    (refused,) = demo.score([{"token_ids": ids}])
    assert refused["error"]["code"] == "too_long"
    assert refused["error"]["tokens"] == MAX_TOKENS + 5
    cut, fitting = demo.score([{"token_ids": ids}, {"token_ids": ids[5:]}], truncate="prompt_start")
    assert (cut["truncated"], fitting["truncated"]) == (True, False)
    assert_same(cut, fitting)


def test_weights_of_the_request_combine_the_attributes(demo: Server) -> None:
    pairs = good_pairs(3)
    plain = demo.score(pairs)
    weighted = demo.score(pairs, weights={"helpfulness": 1.0, "verbosity": -0.2})
    for one, other in zip(plain, weighted, strict=True):
        values = [one[name] for name in ATTRIBUTES]
        combined = sum(w * v for w, v in zip(MANIFEST_WEIGHTS, values, strict=True))
        assert one["reward"] == pytest.approx(combined, abs=1e-9)
        assert other["reward"] == pytest.approx(other["helpfulness"] - 0.2 * other["verbosity"])
        for name in ATTRIBUTES:
            assert other[name] == pytest.approx(one[name], rel=0, abs=TOLERANCE)


def test_unknown_weights_are_refused(demo: Server) -> None:
    answer = demo.post({"pairs": good_pairs(1), "weights": {"humor": 1.0}})
    problem = assert_problem(answer, 422, "invalid_request")
    assert "humor" in problem["detail"]
    assert "helpfulness" in problem["detail"]


def test_a_bare_pair_is_answered_bare(demo: Server) -> None:
    pair = {"prompt": "What is a dog?", "response": "An animal."}
    answer = demo.post(pair)
    assert answer.status_code == 200
    bare = answer.json()
    assert bare["model"] == "fivescore-demo"
    assert bare.keys() == {"model", *OUTPUTS, "tokens", "cached_tokens", "truncated"}
    (listed,) = demo.score([pair])
    assert_same(bare, listed)
    assert bare["tokens"] == len(reference_ids(pair))

    weighted = demo.post({**pair, "weights": {"verbosity": 2.0}}).json()
    assert weighted["reward"] == pytest.approx(2 * weighted["verbosity"])


def test_a_bare_pair_that_fails_is_a_problem(demo: Server) -> None:
    (pair,) = long_pairs(1)
    problem = assert_problem(demo.post(pair), 422, "too_long")
    assert problem["limit"] == MAX_TOKENS
    assert problem["tokens"] == len(reference_ids(pair))
    assert_problem(demo.post({"prompt": "a"}), 422, "invalid_pair")


def test_an_empty_list_of_pairs(demo: Server) -> None:
    answer = demo.post({"pairs": []}).json()
    assert answer["scores"] == []
    assert answer["usage"] == {"pairs": 0, "tokens": 0, "cached_tokens": 0, "failed": 0}


def test_a_request_past_its_deadline_leaves_no_work(demo: Server) -> None:
    pairs = [
        {"prompt": f"deadline {i}", "response": text(f"deadline {i}", 400)} for i in range(1500)
    ]
    counters = ("vllm:prefix_cache_queries_total", "vllm:prompt_tokens_total")
    scheduled, computed = (demo.metric(name) for name in counters)
    failed = demo.metric("fivescore_pairs_total", 'outcome="deadline_exceeded"')
    tokens = len(pairs) * len(reference_ids(pairs[0]))

    answer = demo.post({"pairs": pairs, "timeout_seconds": 1.0})
    assert_problem(answer, 504, "deadline_exceeded")
    demo.until_idle()
    assert demo.metric("fivescore_pairs_total", 'outcome="deadline_exceeded"') == failed + 1500
    assert demo.metric(counters[0]) > scheduled, "the engine had none of it: nothing is shown"
    assert demo.metric(counters[1]) - computed < tokens / 2

    # A gauge can be stale, the queue cannot: a new pair would wait behind what was left in it.
    (entry,) = demo.score([{"prompt": "afterwards", "response": "a"}])
    assert demo.metric(counters[1]) - computed < tokens / 2
    assert "error" not in entry
