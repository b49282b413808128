"""What every endpoint does with a request: its body, its pairs' scores, and what its log shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from fivescore.errors import (
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    RateLimited,
    ServiceUnavailable,
    TooManyPairs,
)
from fivescore.http.auth import holder_of
from fivescore.http.beside import Beside, free_pairs
from fivescore.http.body import Body, check_members, is_large, parse_json, read_body
from fivescore.http.disconnect import until_gone
from fivescore.http.ratelimit import RateLimit
from fivescore.http.slices import free
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Options, Scorer
from fivescore.settings import Settings
from fivescore.telemetry.trace import Trace
from fivescore.types import Pair, Score


class WithPairs(Protocol):
    """What a body is read as."""

    @property
    def pairs(self) -> list[Pair | InvalidPair]: ...


Read = TypeVar("Read", bound=WithPairs)
_LARGE = "fivescore.large"
MOST_MESSAGES = 2**17
"""Limit on the messages of all prompts of a request: each collection of garbage looks at each, and
stops the event loop for a third of a microsecond."""


def scorer_of(request: Request) -> Scorer:
    """The app's scorer."""
    scorer: Scorer = request.app.state.scorer
    return scorer


def service_of(request: Request) -> Service:
    """The model, its engine and their state."""
    return scorer_of(request).service


def settings_of(request: Request) -> Settings:
    """The app's settings."""
    settings: Settings = request.app.state.settings
    return settings


def trace_of(scope: Scope) -> Trace:
    """The request's trace."""
    trace: Trace = scope["fivescore.trace"]
    return trace


async def body_of(request: Request) -> Body:
    """The request's body, which is received only while the service takes requests.

    Raises:
        ServiceUnavailable: the service takes no requests now; the body is not received.
        FivescoreError: what ``read_body`` raises.
    """
    service_of(request).check_available()
    return await read_body(request, settings_of(request))


async def read(
    request: Request, body: Body, work: Callable[[Any], Read], *, slow: bool = False
) -> Read:
    """What ``work`` makes of the JSON in a body, on a thread if the body is large.

    Then what was parsed is freed there: the result must hold none of its lists and objects.

    Args:
        slow: whether ``work`` takes long on a small body too.

    Raises:
        Overloaded: too many large bodies wait.
        FivescoreError: what ``parse_json``, ``check_members`` and ``work`` raise.
    """
    settings = settings_of(request)
    if is_large(body):
        request.scope[_LARGE] = True
        beside: Beside = request.app.state.beside
        return await beside(len(body), lambda: _read_and_free(body, settings, work))
    content = parse_json(body)
    check_members(content, settings)
    return await asyncio.to_thread(work, content) if slow else work(content)


def _read_and_free(body: Body, settings: Settings, work: Callable[[Any], Read]) -> Read:
    content = parse_json(body)
    try:
        check_members(content, settings)
        result = work(content)
    finally:
        free(content)
    messages = 0
    for pair in result.pairs:
        if isinstance(pair, Pair):
            pair.compact()
            messages += len(pair.prompt) if isinstance(pair.prompt, list) else 0
    if messages > MOST_MESSAGES:
        free_pairs(result.pairs)
        raise InvalidRequest(
            f"the pairs have {messages} messages together, the limit is {MOST_MESSAGES}: split"
            " the request",
            limit=MOST_MESSAGES,
        )
    return result


async def written_beside(request: Request, write: Callable[[], Response]) -> Response:
    """The response that ``write`` makes, on a thread if the body was large."""
    return await asyncio.to_thread(write) if _LARGE in request.scope else write()


async def score_pairs(
    request: Request, pairs: list[Pair | InvalidPair], options: Options
) -> list[Score | FivescoreError]:
    """Score a request's pairs within the rate of its key, and stop when its client disconnects.

    The pairs of a large body are taken out of the list then.

    Returns:
        One entry per pair, in order: its score or its own error.

    Raises:
        RateLimited: this key has sent more pairs than its rate allows.
        FivescoreError: what ``Scorer.score`` and ``until_gone`` raise.
    """
    rate: RateLimit = request.app.state.rate_limit
    holder = holder_of(request.scope)
    try:
        rate.take(holder, len(pairs))
    except RateLimited as error:
        metrics = service_of(request).metrics
        metrics.rejections.labels(error.code).inc()
        metrics.pairs.labels(error.code).inc(len(pairs))
        raise
    work = scorer_of(request).score(pairs, options, trace_of(request.scope))
    try:
        return await until_gone(request, work)
    except (ServiceUnavailable, InvalidRequest, TooManyPairs):
        rate.give_back(holder, len(pairs))
        raise
    finally:
        if _LARGE in request.scope:
            asyncio.get_running_loop().run_in_executor(None, free_pairs, pairs)


def summarise(scope: Scope, results: Sequence[Score | FivescoreError]) -> dict[str, int]:
    """Count a request's pairs and tokens; keeps the counts for its log line and its span."""
    scores = [result for result in results if isinstance(result, Score)]
    usage = scope["fivescore.usage"] = {
        "pairs": len(results),
        "tokens": sum(score.tokens for score in scores),
        "cached_tokens": sum(score.cached_tokens for score in scores),
        "failed": len(results) - len(scores),
    }
    return usage
