"""``POST /score``: parse, hand over, answer in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from fivescore.errors import FivescoreError, InvalidRequest
from fivescore.http.body import json_response, read_json
from fivescore.http.context import summarise
from fivescore.http.health import scorer_of
from fivescore.http.priority import priority_of
from fivescore.http.problems import item
from fivescore.http.protocols import vllm
from fivescore.http.protocols.surface import respond
from fivescore.http.ratelimit import score_within_rate
from fivescore.scoring.scorer import Options
from fivescore.types import PAIR_FIELDS, Pair, Score, faults, parse_pair, sentence

MOST_WEIGHT = 1e6
"""Published weights are below 1; a sum of these stays far from what a float can hold."""


class RequestOptions(BaseModel):
    """What a request may say beside its pairs."""

    model_config = ConfigDict(extra="forbid")

    weights: dict[str, Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]] | None = Field(
        None, description="another combined reward for this request"
    )
    truncate: Literal["never", "prompt_start"] = Field(
        "never", description="prompt_start drops the oldest tokens of a pair that is too long"
    )
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="this request's own deadline"
    )


class Batch(RequestOptions):
    """Pairs to score together; each may be of another form."""

    pairs: list[Pair]


class Single(RequestOptions, Pair):
    """One pair, bare."""

    model_config = ConfigDict(extra="forbid", frozen=False)


async def score(request: Request) -> Response:
    """Score pairs. A pair that fails has its error in its place; its neighbours are not touched."""
    scorer = scorer_of(request)
    model = scorer.service.check_available()
    body = await read_json(request, request.app.state.settings.max_body_bytes)
    if vllm.asks_for_score(body):
        return await respond(request, body, vllm.scores)
    items, options, bare = parse(body)
    options = replace(options, priority=priority_of(request))
    pairs = [parse_pair(value) for value in items]
    del body, items  # or they would be held until the answer
    results = await score_within_rate(request, pairs, options)
    if bare and isinstance(results[0], FivescoreError):
        raise results[0]
    usage = summarise(request.scope, results)
    if bare:
        return json_response({"model": model.name, **entry(results[0])})
    return json_response(
        {"model": model.name, "scores": [entry(result) for result in results], "usage": usage}
    )


def parse(body: Any) -> tuple[list[Any], Options, bool]:
    """The raw pairs, the request's options, and whether there is one bare pair.

    Raises:
        InvalidRequest: the body as a whole is malformed; names every fault.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object: {pairs: [...]} or one bare pair")
    rest = dict(body)
    bare = "pairs" not in rest
    if bare:
        pairs = [{name: rest.pop(name) for name in PAIR_FIELDS & rest.keys()}]
        if not pairs[0]:
            raise InvalidRequest("give pairs: [...], or one bare pair: prompt and response")
    else:
        pairs = rest.pop("pairs")
        if not isinstance(pairs, list):
            raise InvalidRequest("pairs: must be a list")
    try:
        options = RequestOptions.model_validate(rest)
    except ValidationError as error:
        found = faults(error)
        raise InvalidRequest(sentence(found), found) from error
    return pairs, Options(options.weights, options.truncate, options.timeout_seconds), bare


def entry(result: Score | FivescoreError) -> dict[str, Any]:
    """One pair's part of the answer."""
    if isinstance(result, FivescoreError):
        return {"error": item(result)}
    return {
        **result.attributes,
        "reward": result.reward,
        "tokens": result.tokens,
        "cached_tokens": result.cached_tokens,
        "truncated": result.truncated,
    }
