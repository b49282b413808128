"""``POST /score``: parse, hand over, answer in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from fivescore import content
from fivescore.errors import FivescoreError, InvalidPair, InvalidRequest
from fivescore.http.body import json_response
from fivescore.http.priority import priority_of
from fivescore.http.problems import item, request_id_of
from fivescore.http.request import score_pairs, service_of, summarise
from fivescore.http.schema import COUNT, FLAG, NUMBER, STRING, Schema, either, list_of, obj
from fivescore.scoring.scorer import Options
from fivescore.types import PAIR_FIELDS, Pair, Score, Text, faults, parse_pair, sentence

MOST_WEIGHT = 1e6
"""Limit on a weight: published ones are below 1, and sums of these stay finite."""


class RequestOptions(BaseModel):
    """What a request may set beside its pairs."""

    model_config = ConfigDict(extra="forbid")

    weights: dict[str, Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]] | None = Field(
        None, description="another combined reward for this request"
    )
    truncate: Literal["never", "prompt_start"] = Field(
        "never", description="prompt_start drops the oldest tokens of a pair that is too long"
    )
    principle: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="what the pairs are judged by that have no principle of their own"
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


_BODIES, _DEFINITIONS = models_json_schema(
    [(Batch, "validation"), (Single, "validation")], ref_template="#/components/schemas/{model}"
)
BODIES: tuple[Schema, ...] = tuple(_BODIES.values())
DEFINITIONS: dict[str, Schema] = _DEFINITIONS["$defs"]
"""What ``BODIES`` refers to."""
_SCORE = obj(
    ("reward", "tokens", "cached_tokens", "truncated"),
    reward=NUMBER, tokens=COUNT, cached_tokens=COUNT, truncated=FLAG,
)  # fmt: skip
_FAILURE = obj(("error",), error=obj(("code", "detail"), code=STRING, detail=STRING))
_USAGE = ("pairs", "tokens", "cached_tokens", "failed")
ANSWERS: tuple[Schema, ...] = (
    obj(
        ("model", "request_id", "scores", "usage"),
        model=STRING,
        request_id=STRING,
        scores=list_of(either(_SCORE, _FAILURE)),
        usage=obj(_USAGE, **dict.fromkeys(_USAGE, COUNT)),
    ),
    {**_SCORE, "required": ["model", *_SCORE["required"]]},
)
ERRORS = {429: "Too much is in flight: see Retry-After"}


class Asked(NamedTuple):
    """What a body asks for.

    Args:
        bare: whether the body is one pair, and so is the answer.
    """

    pairs: list[Pair | InvalidPair]
    options: Options
    bare: bool


async def score(request: Request, asked: Asked) -> Response:
    """Score the pairs of a body. A pair that fails has its error in its place.

    Raises:
        FivescoreError: the request as a whole, or its one bare pair, failed.
    """
    pairs, options, bare = asked
    options = replace(options, priority=priority_of(request))
    results = await score_pairs(request, pairs, options)
    if bare and isinstance(results[0], FivescoreError):
        raise results[0]
    usage = summarise(request.scope, results)
    name = service_of(request).model.name
    if bare:
        return json_response({"model": name, **entry(results[0])})
    return json_response(
        {
            "model": name,
            "request_id": request_id_of(request.scope),  # proxies may take the header away
            "scores": [entry(result) for result in results],
            "usage": usage,
        }
    )


def parse(body: Any) -> Asked:
    """The pairs of a body, each of which may be an error, and the request's options.

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
    for name in content.OF_REQUESTS & rest.keys():
        if not content.carries(rest[name]):
            del rest[name]
    try:
        options = RequestOptions.model_validate(rest)
    except ValidationError as error:
        errors = faults(error)
        raise InvalidRequest(sentence(errors), errors) from error
    chosen = Options(
        weights=options.weights,
        truncate=options.truncate,
        principle=options.principle,
        timeout_seconds=options.timeout_seconds,
    )
    return Asked([parse_pair(value) for value in pairs], chosen, bare)


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
