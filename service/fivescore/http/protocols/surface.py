"""What all trainers' routes share: a body becomes pairs, their scores become an answer.

They differ from ``POST /score`` in what trainers cannot handle: a pair that is too long is
truncated and flagged, a pair that fails fails its request, and too much work in flight is 503,
never 429.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from fivescore.errors import FivescoreError, InvalidPair
from fivescore.http.body import json_response, read_json
from fivescore.http.context import summarise
from fivescore.http.health import scorer_of
from fivescore.http.priority import priority_of
from fivescore.http.problems import for_trainer, request_id_of
from fivescore.http.ratelimit import score_within_rate
from fivescore.model.checkpoint import Model
from fivescore.scoring.scorer import Options
from fivescore.settings import Settings
from fivescore.types import Pair, Score

TRUNCATED = "X-Fivescore-Truncated"
"""Header with the number of pairs of the request that lost their start."""


Truncate = Literal["never", "prompt_start"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a translation may look at beside the body."""

    model: Model
    settings: Settings
    request_id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a body asks for, and how its scores are answered.

    ``field`` is the body's that the pairs came from, for errors: empty where a pair's own fields
    have the body's names. ``answer`` gives JSON content or a whole response. ``truncate`` and
    ``max_tokens`` are the request's own where it has them.
    """

    field: str
    pairs: Sequence[Pair | InvalidPair]
    answer: Callable[[list[Score]], Any]
    truncate: Truncate | None = None
    max_tokens: int | None = None


Translate = Callable[[Any, Context], Ask]
Endpoint = Callable[[Request], Awaitable[Response]]


def surface(example: Any) -> Callable[[Translate], Endpoint]:
    """Make an endpoint of a translation; ``example`` is a body that ``/docs`` shows."""

    def wrap(translate: Translate) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            for_trainer(request.scope)
            scorer_of(request).service.check_available()
            body = await read_json(request, request.app.state.settings.max_body_bytes)
            return await respond(request, body, translate)

        endpoint.__name__, endpoint.__doc__ = translate.__name__, translate.__doc__
        endpoint.__dict__["example"] = example
        return endpoint

    return wrap


async def respond(request: Request, body: Any, translate: Translate) -> Response:
    """Score what ``translate`` finds in ``body``, and answer as it says.

    Raises:
        FivescoreError: one pair's error is the request's: no trainer can use half an answer.
    """
    for_trainer(request.scope)
    scorer = scorer_of(request)
    settings: Settings = request.app.state.settings
    request_id = request_id_of(request.scope)
    context = Context(scorer.service.model, settings, request_id)
    if context.model.policy is None:
        ask = translate(body, context)
    else:  # taking long texts apart takes milliseconds, which probes and others need not wait for
        ask = await asyncio.to_thread(translate, body, context)
    options = Options(
        truncate=ask.truncate or settings.trainer_truncate,
        max_tokens=ask.max_tokens,
        priority=priority_of(request),
    )
    results = await score_within_rate(request, ask.pairs, options)
    summarise(request.scope, results)
    several = len(results) > 1
    scores = [
        _score(result, f"{ask.field}.{place}" if several else ask.field)
        for place, result in enumerate(results)
    ]
    answer = ask.answer(scores)
    response = answer if isinstance(answer, Response) else json_response(answer)
    if truncated := sum(score.truncated for score in scores):
        response.headers[TRUNCATED] = str(truncated)
    return response


def _score(result: Score | FivescoreError, field: str) -> Score:
    if isinstance(result, Score):
        return result
    error = copy.copy(result)  # it may also be another request's, which waited for the same pair
    error.detail = f"{field}: {error.detail}" if field else error.detail
    raise error
