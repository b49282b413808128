"""What vLLM itself does with our requests, told by its own counters."""

from __future__ import annotations

import functools
import http.client
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fivescore.scoring.admission import STEPS_OF_TOKENS
from fivescore.telemetry.metrics import SECONDS
from tests.e2e.server import Server

TOLERANCE = 1e-4
DEMO, TINY = 768, 4096
"""Tokens of a step on a CPU, where a larger one has the fewest and a tiny one the most."""
BLOCK = 32
"""Tokens in one block of the prefix cache on CPU."""

QUERIED = "vllm:prefix_cache_queries_total"
HIT = "vllm:prefix_cache_hits_total"
COMPUTED = "vllm:prompt_tokens_total"
FINISHED = "vllm:request_success_total"

Json = dict[str, Any]


def passage(subject: str, sentences: int) -> str:
    """Text that shares no prefix with another subject's."""
    return " ".join(f"{subject} {i}: the dog has {i * i} bones." for i in range(sentences))


def large_request(subject: str, pairs: int) -> Json:
    """Pairs without a shared prefix, each of some 500 tokens: seconds of work."""
    return {
        "pairs": [
            {"prompt": f"{i} {passage(subject, 40)}", "response": "A dog."} for i in range(pairs)
        ]
    }


def pairs_ended(server: Server, outcome: str) -> float:
    return server.metric("fivescore_pairs_total", f'outcome="{outcome}"')


def test_responses_to_one_prompt_share_its_computation(demo: Server) -> None:
    prompt = passage("shared", 60)
    pairs = [{"prompt": prompt, "response": f"Answer {i} is about a dog."} for i in range(8)]
    before = {name: demo.metric(name) for name in (HIT, QUERIED)}
    (first,) = demo.score(pairs[:1])
    rest = demo.score(pairs[1:])

    shared = first["tokens"] - 2 * BLOCK  # all but the response and what a block rounds off
    assert first["cached_tokens"] == 0
    for answer in rest:
        assert shared <= answer["cached_tokens"] < answer["tokens"]
        assert answer["cached_tokens"] % BLOCK == 0
    cached = sum(answer["cached_tokens"] for answer in rest)
    assert demo.metric(HIT) - before[HIT] == cached
    assert demo.metric(QUERIED) - before[QUERIED] == sum(a["tokens"] for a in [first, *rest])
    assert demo.metric("fivescore_cached_prompt_tokens_total") >= cached


def test_responses_of_one_request_share_their_prompt(demo: Server) -> None:
    """Eight at once, prompts interleaved: each prompt is computed about once."""
    prompts = [passage(f"prompt {i} of three", 60) for i in range(3)]
    before = demo.metric(HIT)
    answers = demo.score(
        [
            {"prompt": prompt, "response": f"Answer {i} is about a dog."}
            for i in range(8)
            for prompt in prompts
        ]
    )
    hits = sum(answer["cached_tokens"] > 0 for answer in answers)
    assert hits >= len(prompts) * 4
    assert demo.metric(HIT) - before == sum(answer["cached_tokens"] for answer in answers)


def test_identical_pairs_are_computed_once(demo: Server) -> None:
    pair = {"prompt": passage("identical", 20), "response": "A dog."}
    other = {"prompt": passage("different", 20), "response": "A dog."}
    finished, computed = demo.metric(FINISHED), demo.metric(COMPUTED)
    answers = demo.score([pair] * 25 + [other] + [pair] * 24)
    assert demo.metric(FINISHED) - finished == 2
    assert demo.metric(COMPUTED) - computed == answers[0]["tokens"] + answers[25]["tokens"]
    assert all(answer == answers[0] for i, answer in enumerate(answers) if i != 25)
    assert answers[25]["reward"] != answers[0]["reward"]


def test_requests_of_one_id_are_told_apart(demo: Server) -> None:
    """A client may send the same X-Request-Id again while the first is in the engine."""
    pairs = [{"prompt": passage(f"one id {i}", 20), "response": "A dog."} for i in range(16)]
    with ThreadPoolExecutor(len(pairs)) as pool:
        post = functools.partial(demo.http.post, "/score", headers={"X-Request-Id": "the-same"})
        answers = list(pool.map(lambda pair: post(json=pair), pairs))
    assert {answer.headers["x-request-id"] for answer in answers} == {"the-same"}
    found = [answer.json()["reward"] for answer in answers]
    alone = [demo.post(pair).json()["reward"] for pair in pairs]
    assert found == pytest.approx(alone, abs=TOLERANCE)
    assert len(set(found)) == len(pairs)


def test_a_step_of_the_demo_has_the_fewest_tokens(demo: Server) -> None:
    assert_step_tokens(demo, DEMO)


def assert_step_tokens(server: Server, tokens: int) -> None:
    """Told by the limit of tokens in flight, which is so many steps."""
    limit = server.metric("fivescore_inflight_limit", 'kind="tokens"')
    assert limit == STEPS_OF_TOKENS * tokens


def test_work_of_a_client_that_leaves_is_aborted(demo: Server) -> None:
    pairs = 1500
    body = large_request("abandoned", pairs)
    one = demo.score([{"prompt": passage("abandoned", 40), "response": "A dog."}])[0]
    tokens = pairs * one["tokens"]
    computed, cancelled = demo.metric(COMPUTED), pairs_ended(demo, "cancelled")
    answered = pairs_ended(demo, "ok")

    client = http.client.HTTPConnection("127.0.0.1", demo.port)
    try:
        client.request("POST", "/score", json.dumps(body))
        demo.until(
            "the engine computes some of the request while more waits",
            lambda: (
                demo.metric(COMPUTED) > computed and demo.metric("vllm:num_requests_waiting") > 0
            ),
        )
        assert demo.metric("fivescore_inflight_pairs") == pairs
    finally:
        client.close()

    demo.until_idle()
    assert pairs_ended(demo, "cancelled") - cancelled == pairs
    assert pairs_ended(demo, "ok") == answered
    assert demo.metric("vllm:kv_cache_usage_perc") == 0

    # Gauges are what vLLM says; that a new pair is answered before the abandoned tokens could
    # have been computed shows it.
    (fresh,) = demo.score([{"prompt": "after the abandoned request", "response": "a"}])
    assert "error" not in fresh
    assert demo.metric(COMPUTED) - computed < tokens / 3
    demo.until_idle()
    assert demo.metric(COMPUTED) - computed < tokens / 3


def test_a_shared_pair_survives_the_client_that_leaves(demo: Server) -> None:
    """Two clients wait for the same pairs; one goes, the other gets its answer."""
    body = large_request("two clients", 150)
    cancelled = pairs_ended(demo, "cancelled")
    finished = demo.metric(FINISHED)
    leaving = http.client.HTTPConnection("127.0.0.1", demo.port)
    staying = http.client.HTTPConnection("127.0.0.1", demo.port)
    try:
        for client in (leaving, staying):
            client.request("POST", "/score", json.dumps(body))
        demo.until(
            "both requests are in flight",
            lambda: demo.metric("fivescore_inflight_pairs") == 2 * len(body["pairs"]),
        )
        leaving.close()
        answer = staying.getresponse()
        scores = json.loads(answer.read())["scores"]
    finally:
        leaving.close()
        staying.close()
    assert answer.status == 200
    assert pairs_ended(demo, "cancelled") - cancelled == len(body["pairs"])
    demo.until_idle()
    # Few were finished before the second request joined them, and were computed again.
    assert demo.metric(FINISHED) - finished < 1.5 * len(body["pairs"])
    (again,) = demo.score(body["pairs"][-1:])
    assert scores[-1]["reward"] == pytest.approx(again["reward"], rel=0, abs=TOLERANCE)


def latencies(server: Server) -> dict[str, float]:
    """vLLM's own request times: cumulated counts by upper bound, ``sum`` and ``count``."""
    sample = r'^vllm:e2e_request_latency_seconds_(sum|count|bucket)\{(?:.*?le="(.*?)")?.*\} (\S+)$'
    found = re.findall(sample, server.http.get("/metrics").text, re.MULTILINE)
    return {bound or kind: float(value) for kind, bound, value in found}


def test_vllms_own_request_times_have_buckets_of_milliseconds(demo: Server) -> None:
    """Its own start at 0.3 s, and would not tell the times of pairs apart."""
    bounds = [float(bound) for bound in latencies(demo) if bound not in ("sum", "count")]
    assert bounds == [0.0005, 0.001, 0.0025, *SECONDS, math.inf]


def test_the_time_in_the_engine_holds_vllms_own(demo: Server) -> None:
    before = latencies(demo)
    answer = demo.post({"pairs": [{"prompt": passage("timed", 30), "response": "a"}]})
    after = latencies(demo)
    found = re.search(r"engine;dur=([\d.]+)", answer.headers["Server-Timing"])
    assert found
    assert after["count"] - before["count"] == 1
    assert 0 < after["sum"] - before["sum"] <= float(found[1]) / 1e3


def test_every_line_of_the_log_is_json(demo: Server) -> None:
    """Ours, vLLM's and its processes': the log is a file here, so nobody reads it in a terminal."""
    lines = demo.log.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all({"ts", "level", "logger", "msg"} <= record.keys() for record in records)
    assert any(record["msg"].startswith("ready after") for record in records)
