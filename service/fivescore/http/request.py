"""What every endpoint does with a request: its body, its pairs' scores, and what its log shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
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
from fivescore.http.body import read_json
from fivescore.http.disconnect import until_gone
from fivescore.http.ratelimit import RateLimit
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Options, Scorer
from fivescore.settings import Settings
from fivescore.telemetry.trace import Trace
from fivescore.types import Pair, Score


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


async def body_of(request: Request) -> Any:
    """The request's JSON body, which is read only while the service takes requests.

    Raises:
        ServiceUnavailable: the service takes no requests now; the body is not read.
        FivescoreError: what ``read_json`` raises.
    """
    service_of(request).check_available()
    return await read_json(request, settings_of(request))


async def score_pairs(
    request: Request, pairs: Sequence[Pair | InvalidPair], options: Options
) -> list[Score | FivescoreError]:
    """Score a request's pairs within the rate of its key, and stop when its client disconnects.

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
