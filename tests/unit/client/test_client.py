"""A call on its way: cut, sent, tried again, halved and put back into order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from fivescore.client import AsyncRewardClient, BadAnswer, Unreachable
from fivescore.client.retry import BACKOFF_SECONDS, FEW_TRIES
from fivescore.errors import (
    BodyTooLarge,
    ConfigurationError,
    Draining,
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    Loading,
    RequestError,
    TooLong,
    Unauthorized,
)
from fivescore.types import Pair, Score
from tests.unit.client.fakes import (
    Answer,
    Fleet,
    Hurry,
    Request,
    pairs,
    problem,
    score,
    scored,
    scores,
)

REFUSED = httpx.ConnectError("Connection refused")


def asking(fleet: Fleet, clock: Hurry | None = None, **options: Any) -> AsyncRewardClient:
    options.setdefault("urls", "http://rm")
    return AsyncRewardClient(transport=fleet, clock=clock or Hurry(), **options)


def rewards(found: Sequence[Score | FivescoreError | None]) -> list[float | None]:
    return [one.reward if isinstance(one, Score) else None for one in found]


async def later_requests_first(request: Request) -> httpx.Response:
    first = min(int(response) for response in request.responses)
    for _ in range(100 - first):
        await asyncio.sleep(0)
    return scored(request)


# Order and size


async def test_scores_are_in_the_order_of_the_pairs_whatever_is_answered_first() -> None:
    fleet = Fleet(*[later_requests_first] * 20)
    async with asking(fleet, batch_size=3, concurrency=8) as client:
        found = await client.score(pairs(50))
    assert rewards(found) == list(range(50))
    assert [len(request.pairs) for request in fleet.requests].count(3) >= 10


async def test_requests_are_no_larger_and_no_more_at_a_time_than_asked_for() -> None:
    fleet = Fleet()
    async with asking(fleet, batch_size=4, concurrency=3) as client:
        await asyncio.gather(client.score(pairs(100)), client.score(pairs(100)))
    assert max(len(request.pairs) for request in fleet.requests) == 4
    assert fleet.most_inflight == 3


async def test_pairs_of_one_prompt_go_together_up_to_what_a_request_takes() -> None:
    fleet = Fleet()
    await asking(fleet, batch_size=8).score(pairs(42, prompts=14))
    for prompt in (f"Q{n}" for n in range(14)):
        having = [r for r in fleet.requests if prompt in [pair["prompt"] for pair in r.pairs]]
        assert len(having) == 1, prompt
    fleet.requests.clear()
    assert rewards(await asking(fleet, batch_size=4).score(pairs(10, prompts=1))) == list(range(10))
    assert [len(request.pairs) for request in fleet.requests] == [4, 4, 2]
    assert await asking(fleet).score([]) == []
    assert len(fleet.requests) == 3


async def test_a_score_is_its_attributes_and_lengths_without_what_a_later_server_adds() -> None:
    later = scores({**score(4), "id": "x", "flags": [1], "more": {"a": 1}})
    for fleet in (Fleet(), Fleet(later)):
        (found,) = await asking(fleet).score(pairs(5)[4:])
        assert found == Score({"helpfulness": 2.0, "verbosity": -4.0}, 4.0, 7, 2, False)


async def test_every_form_of_a_pair_is_sent_as_the_server_takes_it() -> None:
    fleet = Fleet(scores(*[score(n) for n in range(5)]))
    turns = [{"role": "user", "content": "Q"}]
    await asking(fleet).score(
        [
            {"prompt": "Q", "response": "A", "token_ids": None},
            ("Q", "Ä"),
            (turns, "A"),
            Pair(text="[user]Q"),
            {"token_ids": [1, 2]},
        ]
    )
    assert fleet.requests[0].body == {
        "pairs": [
            {"prompt": "Q", "response": "A"},
            {"prompt": "Q", "response": "Ä"},
            {"prompt": turns, "response": "A"},
            {"text": "[user]Q"},
            {"token_ids": [1, 2]},
        ],
        "truncate": "never",
    }


async def test_options_go_with_every_request() -> None:
    fleet = Fleet()
    weights = {"helpfulness": 1.0}
    await asking(fleet, batch_size=2).score(pairs(4), weights=weights, truncate="prompt_start")
    assert [(request.body["weights"], request.body["truncate"]) for request in fleet.requests] == [
        (weights, "prompt_start")
    ] * len(fleet.requests)


async def at_most_five(request: Request) -> httpx.Response:
    if len(request.pairs) > 5:
        return problem(413, "too_many_pairs", limit=5)
    return scored(request)


async def test_what_is_too_much_for_the_server_goes_in_halves() -> None:
    fleet = Fleet(*[at_most_five] * 100)
    assert rewards(await asking(fleet).score(pairs(64, prompts=64))) == list(range(64))
    sizes = [len(request.pairs) for request in fleet.requests]
    assert {size: sizes.count(size) for size in sizes} == {64: 1, 32: 2, 16: 4, 8: 8, 4: 16}


@pytest.mark.parametrize("answer", [problem(413, "body_too_large"), httpx.Response(413, text="no")])
async def test_a_pair_that_is_too_much_alone_fails_alone(answer: httpx.Response) -> None:
    async def without_one(request: Request) -> httpx.Response:
        return answer if "1" in request.responses else scored(request)

    fleet = Fleet(*[without_one] * 10)
    first, error, last = await asking(fleet).score(pairs(3), errors="return")
    assert rewards([first, last]) == [0, 2]
    assert isinstance(error, BodyTooLarge)


# Tries


@pytest.mark.parametrize(
    "fault",
    [
        *[httpx.Response(status) for status in (408, 425, 429, 502, 503, 504, 500, 520)],
        problem(429, "overloaded", "1"),
        problem(503, "loading", "x"),
        REFUSED,
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
    ],
    ids=repr,
)
async def test_what_another_try_may_mend_is_tried_again(fault: Answer) -> None:
    fleet = Fleet(fault, fault)
    assert rewards(await asking(fleet).score(pairs(2))) == [0, 1]
    assert len(fleet.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_retry_after_is_the_least_to_wait(status: int) -> None:
    clock = Hurry()
    await asking(Fleet(problem(status, "some", "7")), clock).score(pairs(1))
    (slept,) = clock.slept
    assert 7 <= slept <= 8


async def test_waits_grow_to_the_longest() -> None:
    clock = Hurry()
    await asking(Fleet(*[REFUSED] * 12), clock, deadline_seconds=3600).score(pairs(1))
    first, longest = BACKOFF_SECONDS
    assert first / 2 <= clock.slept[0] <= first
    assert first <= clock.slept[2] <= 4 * first
    assert all(longest / 2 <= slept <= longest for slept in clock.slept[8:])
    assert len(set(clock.slept[8:])) > 1  # or all clients would come back at once


async def test_a_server_that_stays_away_is_given_up_at_the_deadline() -> None:
    clock, fleet = Hurry(), Fleet(*[REFUSED] * 1000)
    with pytest.raises(Unreachable, match="http://rm: Connection refused"):
        await asking(fleet, clock, deadline_seconds=100).score(pairs(1))
    assert 60 <= sum(clock.slept) <= 100
    assert len(fleet.requests) == len(clock.slept) + 1


async def test_advice_to_come_after_the_deadline_ends_the_tries_at_once() -> None:
    clock = Hurry()
    with pytest.raises(Loading, match="told loading") as caught:
        await asking(Fleet(problem(503, "loading", "3600")), clock).score(pairs(1))
    assert caught.value.retry_after == 3600
    assert clock.slept == []


async def test_a_deadline_of_0_asks_once() -> None:
    for fault in (REFUSED, problem(503, "draining", "0"), problem(500, "x"), httpx.Response(504)):
        clock, fleet = Hurry(), Fleet(fault)
        with pytest.raises(FivescoreError):
            await asking(fleet, clock, deadline_seconds=0).score(pairs(1))
        assert (len(fleet.requests), clock.slept) == (1, [])


@pytest.mark.parametrize(
    "fault", [problem(500, "internal_error"), problem(504, "deadline_exceeded")]
)
async def test_what_the_server_fails_on_is_tried_a_few_times(fault: httpx.Response) -> None:
    fleet = Fleet(*[fault] * 100)
    with pytest.raises(FivescoreError, match="told") as caught:
        await asking(fleet).score(pairs(1))
    assert caught.value.code == fault.json()["code"]
    assert len(fleet.requests) == FEW_TRIES


async def test_a_try_that_is_not_answered_in_time_has_failed() -> None:
    async def never(request: Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    fleet = Fleet(never)
    assert rewards(await asking(fleet, timeout_seconds=0.01).score(pairs(1))) == [0]
    with pytest.raises(Unreachable, match="http://rm: no answer within"):
        await asking(Fleet(never), timeout_seconds=0.01, deadline_seconds=0).score(pairs(1))


async def test_no_connection_is_named_with_its_limit() -> None:
    with pytest.raises(Unreachable, match="http://rm: no connection within 10 s"):
        await asking(Fleet(httpx.ConnectTimeout("")), deadline_seconds=0).score(pairs(1))


@pytest.mark.parametrize(("deadline_seconds", "reward"), [(0.01, None), (600, 0)])
async def test_no_try_outlasts_the_deadline(deadline_seconds: float, reward: float | None) -> None:
    async def slow(request: Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return scored(request)

    client = asking(Fleet(slow), deadline_seconds=deadline_seconds)
    assert rewards(await client.score(pairs(1), errors="none")) == [reward]


async def test_after_a_deadline_passed_the_rest_of_the_call_is_asked_once_each() -> None:
    clock, fleet = Hurry(), Fleet(*[REFUSED] * 1000)
    client = asking(fleet, clock, batch_size=1, concurrency=1, deadline_seconds=60)
    assert await client.score(pairs(5), errors="none") == [None] * 5
    assert sum(clock.slept) <= 60
    first = sum(request.responses == ["0"] for request in fleet.requests)
    assert len(fleet.requests) == first + 4


async def test_a_server_that_comes_back_is_waited_for_again() -> None:
    clock = Hurry()

    def later(answer: httpx.Response) -> Callable[[Request], httpx.Response]:
        def answered(request: Request) -> httpx.Response:
            clock.seconds += 1
            return answer

        return answered

    away, works = later(problem(503, "loading", "100")), later(scores(score(1)))
    fleet = Fleet(away, works, REFUSED, REFUSED)
    client = asking(fleet, clock, batch_size=1, concurrency=1, deadline_seconds=60)
    assert rewards(await client.score(pairs(3), errors="none")) == [None, 1, 2]


async def test_an_answer_ends_the_outage_and_its_long_waits() -> None:
    clock = Hurry()
    client = asking(Fleet(*[REFUSED] * 6, scored, REFUSED), clock, batch_size=1, concurrency=1)
    await client.score(pairs(2))
    assert clock.slept[-1] <= BACKOFF_SECONDS[0] < clock.slept[-2]


async def test_who_waits_to_try_again_leaves_the_connections_to_others() -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    class Held(Hurry):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await go_on.wait()

    client = asking(Fleet(problem(500, "internal_error")), Held(), concurrency=1)
    async with client:
        first = asyncio.create_task(client.score(pairs(1)))
        await waiting.wait()
        assert rewards(await client.score(pairs(2))) == [0, 1]
        assert not first.done()
        go_on.set()
        assert rewards(await first) == [0]


async def test_trouble_and_its_end_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fivescore")
    fleet = Fleet(*[REFUSED] * 6)
    await asking(fleet, batch_size=1).score(pairs(20))
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("WARNING", "http://rm: Connection refused; retrying for up to 600 s"),
        ("INFO", "http://rm works again"),
    ]


# What cannot be mended


@pytest.mark.parametrize("errors", ["raise", "none", "return"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, "unauthorized"), Unauthorized),
        (httpx.Response(401, text="Authorization Required"), Unauthorized),
        (problem(422, "invalid_request", errors=[{"field": "weights"}]), InvalidRequest),
        (httpx.Response(404, text="<html>Not Found</html>"), RequestError),
        (httpx.Response(400), RequestError),
        (httpx.Response(307, headers={"Location": "https://rm"}), RequestError),
    ],
)
async def test_what_the_caller_must_change_is_raised_at_once(
    answer: httpx.Response, kind: type[FivescoreError], errors: Any
) -> None:
    fleet = Fleet(answer)
    with pytest.raises(kind):
        await asking(fleet).score(pairs(2), errors=errors)
    assert len(fleet.requests) == 1


async def test_weights_that_are_no_numbers_are_refused_before_they_are_sent() -> None:
    fleet = Fleet()
    with pytest.raises(InvalidRequest, match="weights"):
        await asking(fleet).score(pairs(1), weights={"helpfulness": math.nan}, errors="none")
    with pytest.raises(ConfigurationError, match="errors: 'ignore'"):
        await asking(fleet).score(pairs(1), errors="ignore")  # type: ignore[call-overload]
    assert fleet.requests == []


TOO_LONG = {"error": {"code": "too_long", "detail": "9 tokens", "limit": 8, "tokens": 9}}


async def test_a_pair_that_fails_is_told_with_its_place_and_facts_or_none_or_its_error() -> None:
    def client() -> AsyncRewardClient:
        return asking(Fleet(scores(score(0), TOO_LONG, score(2), TOO_LONG)))

    with pytest.raises(TooLong, match="pair 1: 9 tokens; 2 of the 4 pairs") as caught:
        await client().score(pairs(4, prompts=4))
    assert caught.value.facts == {"limit": 8, "tokens": 9, "index": 1, "failed": 2}
    none = await client().score(pairs(4, prompts=4), errors="none")
    assert rewards(none) == [0, None, 2, None]
    _, error, *_ = await client().score(pairs(4, prompts=4), errors="return")
    assert isinstance(error, TooLong)
    assert (error.detail, error.facts) == ("9 tokens", {"limit": 8, "tokens": 9})


async def test_requests_that_failed_for_good_fill_the_places_of_their_pairs() -> None:
    broken = [problem(500, "internal_error")] * FEW_TRIES
    client = asking(Fleet(*broken), batch_size=2, concurrency=1)
    first, second, *rest = await client.score(pairs(6, prompts=6), errors="return")
    assert isinstance(first, FivescoreError)
    assert first.code == "internal_error"
    assert first is second
    assert rewards(rest) == [2, 3, 4, 5]


MALFORMED: tuple[Any, ...] = (
    {},
    {"prompt": "Q"},
    {"prompt": math.nan, "response": "A"},
    {"prompt": "Q", "response": "cut \ud83d"},
    {"prompt": "Q", "response": "A", "principel": "clarity"},
    {"prompt": "Q", "response": "A", "tools": ["x"]},
    {"prompt": "Q", "response": "A", "system": "S", "label": 1},
    {"question": "Q", "answer": "A", "output": "A", "text": "A"},
    {"prompt": [{"role": "assistant", "content": "Q"}], "response": "A"},
    ("Q",),
    ["Q", "A", "B"],
    "QA",
    None,
)


@pytest.mark.parametrize("pair", MALFORMED, ids=repr)
async def test_a_malformed_pair_fails_alone_and_is_not_sent(pair: Any) -> None:
    fleet = Fleet()
    first, error, last = await asking(fleet).score([*pairs(1), pair, *pairs(1)], errors="return")
    assert rewards([first, last]) == [0, 0]
    assert isinstance(error, InvalidPair)
    with pytest.raises(InvalidPair, match="pair 0: "):
        await asking(fleet).score([pair])
    assert len(fleet.requests) == 1


# Answers that are none


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>a proxy's login page</html>"),
        httpx.Response(200, text='{"scores": ['),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"message": "hello"}),
        httpx.Response(200, json={"scores": None}),
        httpx.Response(200, json={"scores": [[], 2.0]}),
        httpx.Response(200, json={"scores": [{"tokens": 1}, {}]}),
        httpx.Response(200, json={"scores": [{"error": "broken"}, {"error": {}}]}),
        httpx.Response(200, text='{"scores": [{"reward": 1%s, "tokens": 1}, {}]}' % ("0" * 400)),
        httpx.Response(204),
        scores(),
        scores(score(0)),
        scores(score(0), score(1), score(2)),
    ],
)
async def test_an_answer_that_is_not_one_score_a_pair_is_no_score(answer: httpx.Response) -> None:
    with pytest.raises(BadAnswer, match="http://rm answered"):
        await asking(Fleet(answer)).score(pairs(2))
    assert await asking(Fleet(answer)).score(pairs(2), errors="none") == [None, None]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", "1e999"])
@pytest.mark.parametrize("name", ["reward", "helpfulness"])
async def test_a_number_that_is_not_finite_is_no_score(name: str, value: str) -> None:
    other = "reward" if name == "helpfulness" else "helpfulness"
    entry = f'{{"{name}": {value}, "{other}": 1.0, "tokens": 3}}'
    answer = httpx.Response(200, text=f'{{"scores": [{entry}, {{"reward": 1, "tokens": 3}}]}}')
    error, found = await asking(Fleet(answer)).score(pairs(2, prompts=2), errors="return")
    assert isinstance(error, BadAnswer)
    assert name in error.detail
    assert rewards([found]) == [1]
    with pytest.raises(BadAnswer, match=f"pair 0: .*{name}"):
        await asking(Fleet(answer)).score(pairs(2, prompts=2))


WRONG: dict[str, tuple[Any, ...]] = {
    "tokens": (3.5, -1, True, "7", None, 2**40),
    "cached_tokens": (0.5,),
    "truncated": ("no", 0, None, []),
    "reward": ("2", True, []),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
async def test_a_field_of_another_type_is_no_score(field: str, value: Any) -> None:
    fleet = Fleet(scores({**score(0), field: value}, score(1)))
    error, found = await asking(fleet).score(pairs(2, prompts=2), errors="return")
    assert isinstance(error, BadAnswer)
    assert field in error.detail
    assert rewards([found]) == [1]


DEEP = "[" * 100_000
HOSTILE = (
    DEEP,
    f'{{"code": "x", "detail": {DEEP}',
    '{"code": "invalid_request", "detail": "x", "errors": 5}',
    '{"code": "invalid_request", "detail": "x", "errors": [1, null, {"field": "y"}]}',
    '{"code": {"a": [1]}, "detail": "x"}',
    '{"code": "x", "detail": ["x"]}',
    '{"code": "x", "detail": "x", "limit": 1e999}',
    '["code", "detail"]',
    '"code"',
    "5",
    "\ud800",
    "",
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
@pytest.mark.parametrize("status", [400, 413, 429, 503, 500, 504])
async def test_whatever_an_error_holds_it_is_an_error_of_ours(status: int, text: str) -> None:
    content = text.encode(errors="surrogatepass")
    answer = httpx.Response(status, content=content, headers={"Retry-After": "1e300"})
    fleet = Fleet(*[answer] * FEW_TRIES)
    client = asking(fleet, deadline_seconds=0)
    if status == 400:
        with pytest.raises(RequestError):
            await client.score(pairs(1), errors="return")
    else:
        (error,) = await client.score(pairs(1), errors="return")
        assert isinstance(error, FivescoreError)
        assert len(error.detail) < 5000


async def test_a_problem_is_raised_as_its_class_with_its_facts() -> None:
    fleet = Fleet(problem(503, "draining", "9", inflight=3, request_id="r1"))
    with pytest.raises(Draining, match=r"^told draining$") as caught:
        await asking(fleet, deadline_seconds=0).score(pairs(1))
    assert caught.value.retry_after == 9
    assert caught.value.facts == {"inflight": 3, "request_id": "r1"}


async def test_the_bar_counts_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    client = asking(Fleet(), batch_size=2)
    await client.score([*pairs(5), {}], progress=True, errors="none")
    assert "6/6" in capsys.readouterr().err
    await client.score(pairs(5))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"concurrency": 0}, {"deadline_seconds": -1},
     {"deadline_seconds": math.nan}, {"timeout_seconds": 0}],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        AsyncRewardClient(**wrong)
