"""What all protocols share: a body becomes pairs, and their scores become an answer.

A protocol is another service's wire format. Its endpoints differ from ``POST /score`` where
trainers require it: a pair that is too long is truncated and flagged, a pair that fails makes its
request fail, and too much work in flight is a 503 instead of a 429.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from fivescore.errors import FivescoreError, InvalidPair
from fivescore.http.body import Body, json_response
from fivescore.http.holding import Holding
from fivescore.http.priority import priority_of
from fivescore.http.problems import request_id_of
from fivescore.http.request import (
    body_of,
    read,
    score_pairs,
    service_of,
    settings_of,
    summarise,
    written_beside,
)
from fivescore.http.schema import Description, described
from fivescore.model.checkpoint import Model
from fivescore.scoring.scorer import Options
from fivescore.settings import Settings
from fivescore.types import Pair, Score

TRUNCATED = "X-Fivescore-Truncated"
"""Header with the number of the request's pairs that were truncated."""

Truncate = Literal["never", "prompt_start"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a translation may use beside the body."""

    model: Model
    settings: Settings
    request_id: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A body, translated.

    Args:
        field: the body's field that holds the pairs, for error texts; empty where the fields of
            the body are those of its one pair.
        answer: makes JSON content, or a whole response, of the scores; holds no list or object of
            the body, which are emptied once it is translated.
        truncate, max_tokens: the request's own, where it sets them.
    """

    field: str
    pairs: list[Pair | InvalidPair]
    answer: Callable[[list[Score]], Any]
    truncate: Truncate | None = None
    max_tokens: int | None = None


Translate = Callable[[Any, Context], Translated]
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def protocol(description: Description, *, held: bool = False) -> Callable[[Translate], Endpoint]:
    """Make an endpoint of a translation.

    Args:
        held: whether its requests wait for an engine, because its clients do not come back.
    """

    def wrap(translate: Translate) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            if not held:
                return await respond(request, await body_of(request), translate)
            holding: Holding = request.app.state.holding
            return await holding.answer(request, lambda body: respond(request, body, translate))

        endpoint.__name__, endpoint.__doc__ = translate.__name__, translate.__doc__
        return described(description)(endpoint)

    return wrap


def context_of(request: Request) -> Context:
    """What a translation of the request's body may use."""
    model = service_of(request).model
    return Context(model, settings_of(request), request_id_of(request.scope))


async def respond(request: Request, body: Body, translate: Translate) -> Response:
    """Score the pairs that ``translate`` finds in the JSON of a body, and answer in its form.

    Raises:
        FivescoreError: the first failed pair's error; no trainer can use half an answer.
    """
    context = context_of(request)
    # To parse long policy texts takes milliseconds, which must not block the event loop.
    slow = context.model.policy is not None
    translated = await read(request, body, lambda content: translate(content, context), slow=slow)
    del body  # or it would take memory until the answer
    return await answer(request, translated)


async def answer(request: Request, translated: Translated) -> Response:
    """Score what a body was translated to, and answer in its form.

    Raises:
        FivescoreError: the first failed pair's error.
    """
    settings = settings_of(request)
    options = Options(
        truncate=translated.truncate or settings.trainer_truncate,
        max_tokens=translated.max_tokens,
        priority=priority_of(request),
    )
    results = await score_pairs(request, translated.pairs, options)
    summarise(request.scope, results)
    several = len(results) > 1
    scores = [
        _score(result, f"{translated.field}.{place}" if several else translated.field)
        for place, result in enumerate(results)
    ]
    response = await written_beside(request, lambda: _response(translated.answer(scores)))
    if truncated := sum(score.truncated for score in scores):
        response.headers[TRUNCATED] = str(truncated)
    return response


def _response(content: Any) -> Response:
    return content if isinstance(content, Response) else json_response(content)


def _score(result: Score | FivescoreError, field: str) -> Score:
    if isinstance(result, Score):
        return result
    error = copy.copy(result)  # another request that sent the same pair may share it
    error.detail = f"{field}: {error.detail}" if field else error.detail
    raise error
