"""``GET /openapi.json``: what each route takes and answers, its errors included.

Endpoints parse their bodies by themselves, so FastAPI knows neither bodies nor answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from fivescore.http import health, page, problems, routes
from fivescore.http.auth import OPEN
from fivescore.http.protocols import nemo_gym, openai, openrlhf, slime, tei, vllm

Schema = dict[str, Any]
Endpoint = Callable[..., Any]

BODIES, DEFINITIONS = models_json_schema(
    [(routes.Batch, "validation"), (routes.Single, "validation")],
    ref_template="#/components/schemas/{model}",
)
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NUMBERS: Schema = {"type": "object", "additionalProperties": NUMBER}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


PROBLEM = _object(
    ("type", "title", "status", "detail", "code", "request_id"),
    type=STRING, title=STRING, status={"type": "integer"}, detail=STRING, code=STRING,
    request_id=STRING,
    errors=_list(_object(("field", "detail"), field=STRING, detail=STRING)),
    error=_object(("message", "type", "code"), message=STRING, type=STRING),
)  # fmt: skip
TEXTS = _any(STRING, _list(STRING))
IDS = _list({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}, 1)
INPUTS = _any(STRING, _list(STRING), IDS, _list(IDS))
ROLES: Schema = {"type": "string", "enum": ["system", "developer", "user", "assistant"]}
CONTENT = _any(STRING, _list(_object(("text",), text=STRING)), {"type": "null"})
MESSAGES = _list(_object(("role",), role=ROLES, content=CONTENT), 1)
RERANK = _object(
    ("query", "documents"), query=STRING, documents=_list(STRING), top_n=_any(COUNT)
)  # fmt: skip
SIDES = _any(
    _object(("text_1", "text_2"), text_1=TEXTS, text_2=TEXTS),
    _object(("queries", "documents"), queries=TEXTS, documents=TEXTS),
)
VECTORS = _any(
    _object(
        ("input",), input=INPUTS, encoding_format={"type": "string", "enum": ["float", "base64"]}
    ),
    _object(("messages",), messages=MESSAGES),
)
ITEMS = _any(STRING, _list(_object((), type=STRING, role=ROLES, content=CONTENT)))
REQUESTS: dict[Endpoint, Schema] = {
    routes.score: _any(*BODIES.values(), *SIDES["anyOf"]),
    vllm.score: SIDES,
    vllm.rerank: RERANK,
    vllm.classify: _any(
        _object(("input",), input=INPUTS),
        _object(("messages",), messages=MESSAGES),
        _object(("text",), text=TEXTS),
        _object(("input_ids",), input_ids=_any(IDS, _list(IDS))),
    ),
    vllm.pooling: VECTORS,
    vllm.embeddings: VECTORS,
    openai.chat_completions: _object(
        ("messages",), messages=MESSAGES, model=STRING, stream=FLAG,
        n={"type": "integer", "minimum": 1, "maximum": openai.MOST_CHOICES},
    ),
    openrlhf.get_reward: _object(("query",), query=TEXTS, prompts=TEXTS, labels={}),
    slime.reward: _object(
        ("prompt", "response"), prompt=_any(STRING, MESSAGES), response=STRING, label={}
    ),
    nemo_gym.verify: _object(
        ("responses_create_params", "response"),
        responses_create_params=_object(("input",), input=ITEMS, instructions=_any(STRING)),
        response=_object((), output=ITEMS),
    ),
    nemo_gym.seed_session: {},
    tei.predict: _object(
        ("inputs",),
        inputs=_any(STRING, _list(_any(STRING, {**_list(STRING, 1), "maxItems": 2}))),
        truncate=FLAG, raw_scores=FLAG,
    ),
}  # fmt: skip
"""What a body may be; each route takes other members too, and most of them ignore those."""

ENTRY = _any(
    _object(
        ("reward", "tokens", "cached_tokens", "truncated"),
        reward=NUMBER, tokens=COUNT, cached_tokens=COUNT, truncated=FLAG,
    ),
    _object(("error",), error=_object(("code", "detail"), code=STRING, detail=STRING)),
)  # fmt: skip
USAGE = _object(("total_tokens",), prompt_tokens=COUNT, total_tokens=COUNT)
VLLM = _object(("id", "object", "created", "model", "usage"), usage=USAGE, model=STRING)
DATA = {
    **VLLM,
    "properties": {**VLLM["properties"], "data": _list(_object(("index", "truncated")))},
    "required": [*VLLM["required"], "data"],
}
SGLANG = _object(("embedding", "meta_info"), embedding=_list(NUMBER, 1))
LABELS = _list(_object(("score", "label"), score=NUMBER, label=STRING), 1)
STATUS = _object(("status",), status=STRING)
ANSWERS: dict[Endpoint, Schema] = {
    routes.score: _any(
        _object(
            ("model", "scores", "usage"),
            model=STRING, scores=_list(ENTRY),
            usage=_object(
                ("pairs", "tokens", "cached_tokens", "failed"),
                pairs=COUNT, tokens=COUNT, cached_tokens=COUNT, failed=COUNT,
            ),
        ),
        {**ENTRY["anyOf"][0], "required": ["model", *ENTRY["anyOf"][0]["required"]]},
        DATA,
    ),
    vllm.score: DATA,
    vllm.rerank: _object(
        ("id", "model", "results", "usage"),
        results=_list(_object(("index", "relevance_score"), relevance_score=NUMBER)),
    ),
    vllm.classify: _any(DATA, SGLANG, _list(SGLANG)),
    vllm.pooling: DATA,
    vllm.embeddings: DATA,
    openai.chat_completions: _object(
        ("id", "choices", "usage", "reward", "truncated"),
        choices=_list(_object(("index", "message", "logprobs")), 1), reward=NUMBER, truncated=FLAG,
    ),
    openrlhf.get_reward: _object(
        ("rewards", "scores", "extra_logs", "truncated"),
        rewards=_list(NUMBER), scores=_list({**NUMBER, "minimum": 0, "maximum": 1}),
        truncated=_list(FLAG),
    ),
    slime.reward: NUMBER,
    nemo_gym.verify: _object(
        ("reward", "reward_components", "truncated"),
        reward=NUMBER, reward_components=NUMBERS, truncated=FLAG,
    ),
    nemo_gym.seed_session: {"type": "object"},
    tei.predict: _any(LABELS, _list(LABELS)),
    health.live: STATUS,
    health.ready: STATUS,
    health.version: _object(("version", "engine"), version=STRING),
    health.models: _object(("object", "data"), data=_list(_object(("id", "max_model_len")))),
    health.manifest: _object(("outputs", "attributes", "reward", "prompt", "max_tokens")),
}  # fmt: skip
MEDIA: dict[Endpoint, tuple[str, ...]] = {
    page.page: ("text/html",),
    health.metrics: ("text/plain",),
    openai.chat_completions: ("application/json", "text/event-stream"),
}
"""Of answers; others are ``application/json``."""
HEAD_ERRORS = {400: "This is no HTTP/1.1", 408: "Too slow", 414: "The target is too long",
               415: "The body is compressed", 431: "The head is too large"}  # fmt: skip
LATER = {503: "Not now: see Retry-After", 500: "A fault, or a score that is no finite number"}
BODY_ERRORS = {413: "Too large", 422: "Malformed", 504: "The deadline passed"}
PROBES = (health.live, health.ready)


def body_of(endpoint: Endpoint) -> Schema:
    """OpenAPI's ``requestBody`` of an endpoint that has a body."""
    if endpoint not in REQUESTS:
        return {}
    content: Schema = {"schema": REQUESTS[endpoint]}
    if hasattr(endpoint, "example"):
        content["example"] = endpoint.example
    required = endpoint is not nemo_gym.seed_session
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def responses_of(endpoint: Endpoint, keys: bool) -> dict[str, Schema]:
    """The answers of an endpoint by status; ``keys`` is whether it wants one where there are."""
    content = {
        media: {"schema": ANSWERS[endpoint]} if media == "application/json" else {}
        for media in MEDIA.get(endpoint, ("application/json",))
    }
    found: dict[str, Schema] = {"200": {"description": "The answer", "content": content}}
    errors = {**HEAD_ERRORS, **LATER}
    if keys:
        errors[401] = "The key is missing or wrong"
    if endpoint in REQUESTS and endpoint is not nemo_gym.seed_session:
        errors |= BODY_ERRORS
    if endpoint is routes.score:
        errors[429] = "Too much in flight: see Retry-After"
    problem = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in sorted(errors.items()):
        found[str(status)] = {"description": description, "content": problem}
    if endpoint in PROBES:
        found["503"] = {"description": "It is not", "content": content}
    return found


def describe(app: FastAPI) -> Schema:
    """The app's description, made once."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for route in app.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                (method,) = route.methods
                operation = found["paths"][route.path][method.lower()]
                operation.update(body_of(route.endpoint))
                operation["responses"] = responses_of(route.endpoint, route.path not in OPEN)
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(DEFINITIONS["$defs"], Problem=PROBLEM)
        app.openapi_schema = found
    return app.openapi_schema
