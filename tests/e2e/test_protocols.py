"""The same pair gets the same reward on every protocol, from a real model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.server import Server
from tests.integration.protocols.clients import posted_at_once
from tests.integration.protocols.protocols import BY_NAME, PROTOCOLS, Protocol, encoded, token_ids

Json = dict[str, Any]

TOLERANCE = 1e-4
LEAST_SPREAD = 1e-2
"""How far apart rewards of different pairs are: else equal ones would show nothing."""
AT_ONCE = 512
PROMPT = "Name a prime number, and say why it is one."
PAIRS: dict[str, Json] = {
    "short": {"prompt": PROMPT, "response": "7"},
    "wrong": {"prompt": PROMPT, "response": "8, because it is even."},
    "empty": {"prompt": PROMPT, "response": ""},
    "scripts": {"prompt": "人工智能? été?", "response": "Ja: \U0001f468\u200d\U0001f469 עברית"},
    "code": {"prompt": "Add.", "response": "def add(a, b):\n    return a + b\n\n# end"},
    "long": {"prompt": "Explain. " * 30, "response": "Because of that, and so on. " * 20},
}
TALK: Json = {
    "prompt": [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "Name a prime."},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": "Another?"},
    ],
    "response": "Eleven.",
}
OF_TEXTS_ALONE = {"vllm-score", "vllm-v1-score", "vllm-rerank", "tei"}
"""Their prompts are one text, so they have no form for several turns."""

every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)


def rewards_of(demo: Server, pairs: list[Json], **options: Any) -> list[float]:
    return [score["reward"] for score in demo.score(pairs, **options)]


def ask(demo: Server, protocol: Protocol, body: Json) -> list[float]:
    response = demo.http.post(protocol.path, content=encoded(body))
    assert response.status_code == 200, response.text
    return protocol.rewards(response.json())


def assert_close(found: list[float], expected: list[float]) -> None:
    assert found == [pytest.approx(reward, rel=0, abs=TOLERANCE) for reward in expected]


@every
def test_a_pair_gets_the_reward_of_score(demo: Server, protocol: Protocol) -> None:
    pairs = list(PAIRS.values())
    expected = rewards_of(demo, pairs)
    assert max(expected) - min(expected) > LEAST_SPREAD
    found = [ask(demo, protocol, protocol.one(pair))[0] for pair in pairs]
    assert_close(found, expected)


@pytest.mark.parametrize(
    "protocol",
    [protocol for protocol in PROTOCOLS if protocol.name not in OF_TEXTS_ALONE],
    ids=lambda protocol: protocol.name,
)
def test_a_conversation_gets_the_reward_of_score(demo: Server, protocol: Protocol) -> None:
    assert_close(ask(demo, protocol, protocol.one(TALK)), rewards_of(demo, [TALK]))


@pytest.mark.parametrize(
    "protocol", [one for one in PROTOCOLS if one.many], ids=lambda protocol: protocol.name
)
def test_a_list_gets_the_rewards_of_score_in_its_order(demo: Server, protocol: Protocol) -> None:
    pairs = [{"prompt": PROMPT, "response": f"{n} " + "is odd. " * (n % 9)} for n in range(20)]
    assert_close(ask(demo, protocol, protocol.body(pairs)), rewards_of(demo, pairs))


@every
def test_a_pair_that_is_too_long_gets_the_reward_of_its_end(
    demo: Server, protocol: Protocol
) -> None:
    pair = {"prompt": "A word, " * 5000, "response": "and the end."}
    expected = rewards_of(demo, [pair], truncate="prompt_start")
    response = demo.http.post(protocol.path, content=encoded(protocol.one(pair)))
    assert_close(protocol.rewards(response.json()), expected)
    assert response.headers["X-Fivescore-Truncated"] == "1"


def test_all_protocols_at_once_on_fresh_connections_answer_every_pair(demo: Server) -> None:
    pairs = [{"prompt": f"Question {n // 8}?", "response": f"Answer {n}."} for n in range(AT_ONCE)]
    asked = [(PROTOCOLS[n % len(PROTOCOLS)], pair) for n, pair in enumerate(pairs)]
    requests = [(protocol.path, encoded(protocol.one(pair))) for protocol, pair in asked]
    answers = asyncio.run(posted_at_once("127.0.0.1", demo.port, requests))
    assert {status for status, _ in answers} == {200}
    found = [
        protocol.rewards(json.loads(body))[0]
        for (protocol, _), (_, body) in zip(asked, answers, strict=True)
    ]
    expected = rewards_of(demo, pairs)
    assert len({round(reward, 5) for reward in expected}) > AT_ONCE / 2
    assert_close(found, expected)


def test_usage_counts_the_tokens_that_the_model_read(demo: Server) -> None:
    protocol = BY_NAME["vllm-classify"]
    pairs = [PAIRS["short"], PAIRS["long"]]
    answer = demo.http.post(protocol.path, content=encoded(protocol.body(pairs))).json()
    tokens = sum(len(token_ids(pair)) for pair in pairs)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == tokens
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] <= tokens
