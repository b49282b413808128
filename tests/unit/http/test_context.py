"""The id and the metrics of every request."""

from __future__ import annotations

import pytest

from tests.integration.service import PAIR, Service, assert_problem, serving


@pytest.mark.parametrize("given", ["a", "A-1_b.c", "x" * 128, "0" * 32])
async def test_a_usable_request_id_is_taken_over(service: Service, given: str) -> None:
    good = await service.score(PAIR, **{"X-Request-Id": given})
    assert good.headers["X-Request-Id"] == given
    bad = await service.score({}, **{"X-Request-Id": given})
    assert assert_problem(bad, 422, "invalid_request")["request_id"] == given


@pytest.mark.parametrize(
    "given",
    [b"", b"x" * 129, b"two words", b"a,b", b'"quoted"', b"a/b", b"\xc3\xa9", b"\xc3\xaa", b"\xaa"],
)
async def test_an_unusable_request_id_is_replaced(service: Service, given: bytes) -> None:
    response = await service.http.post("/score", content=b"", headers=[(b"X-Request-Id", given)])
    assert_problem(response, 422, "invalid_request")
    own = dict(response.headers.raw)[b"x-request-id"]
    assert own != given
    assert own.isascii()
    assert len(own) == 32


async def test_every_request_gets_an_id_of_its_own(service: Service) -> None:
    paths = ["/score", "/health", "/metrics", "/nowhere"] * 3
    answers = [await service.http.get(path) for path in paths]
    ids = [answer.headers.get_list("X-Request-Id") for answer in answers]
    assert all(len(own) == 1 for own in ids)
    assert len({own[0] for own in ids}) == len(paths)


async def test_the_counters_move() -> None:
    async with serving(options={"fail_every": 3}) as service:
        scored = await service.scores(PAIR, {"token_ids": [1, 2]}, {"token_ids": [3]}, {})
        await service.score({"prompt": "Q"})
        await service.score({"pairs": [PAIR], "weights": {"humor": 1}})
        for outcome, count in {
            "ok": 2, "engine_error": 1, "invalid_pair": 2, "invalid_request": 1, "too_long": 0,
        }.items():  # fmt: skip
            assert await service.metric("fivescore_pairs_total", outcome=outcome) == count, outcome
        assert await service.metric("fivescore_prompt_tokens_count") == 2
        tokens = sum(entry.get("tokens", 0) for entry in scored)
        assert await service.metric("fivescore_prompt_tokens_sum") == tokens
        assert await service.metric("fivescore_request_pairs_sum") == 5
        answered = {"method": "POST", "route": "/score"}
        name = "fivescore_http_request_duration_seconds_count"
        assert await service.metric(name, status="200", **answered) == 1
        assert await service.metric(name, status="422", **answered) == 2


async def test_no_client_can_make_new_labels(service: Service) -> None:
    for n in range(5):
        await service.http.get(f"/nowhere/{n}")
        await service.http.request(f"FROB{n}", "/score")
    text = (await service.http.get("/metrics")).text
    assert "nowhere" not in text
    assert "FROB" not in text
    name = "fivescore_http_request_duration_seconds_count"
    assert await service.metric(name, method="GET", route="unknown", status="404") == 5
    assert await service.metric(name, method="other", route="/score", status="405") == 5
