"""``GET /openapi.json``: what each route takes and answers, its errors included.

Endpoints parse their bodies themselves, so FastAPI knows neither bodies nor answers. It gets them
from the description that each endpoint carries.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from fivescore.http import problems
from fivescore.http.auth import OPEN
from fivescore.http.schema import (
    JSON,
    STRING,
    Description,
    Schema,
    description_of,
    list_of,
    obj,
)

PROBLEM = obj(
    ("type", "title", "status", "detail", "code", "request_id"),
    type=STRING, title=STRING, status={"type": "integer"}, detail=STRING, code=STRING,
    request_id=STRING,
    errors=list_of(obj(("field", "detail"), field=STRING, detail=STRING)),
    error=obj(("message", "type", "code"), message=STRING, type=STRING),
)  # fmt: skip
ERRORS = {
    400: "Not valid HTTP/1.1",
    403: "Without keys: another host was asked for, or a page of another site asked",
    408: "The request came too slowly",
    414: "The target is too long",
    415: "The body is compressed",
    431: "The head is too large",
    500: "The service failed, or a score is not a finite number",
    501: "The body has a Transfer-Encoding other than chunked",
    503: "Unavailable: see Retry-After",
}
"""Errors of every route."""
BODY_ERRORS = {
    413: "The body or the number of pairs is too large",
    422: "The request is malformed",
    504: "The deadline passed",
}
KEY_ERROR = {401: "The key is missing or wrong"}


def describe(app: FastAPI) -> Schema:
    """The app's OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = PROBLEM
        for route in app.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                (method,) = route.methods
                description = description_of(route.endpoint)
                operation = document["paths"][route.path][method.lower()]
                operation.update(_request_body(description))
                operation["responses"] = _responses(description, route.path not in OPEN)
                schemas.update(description.definitions)
        app.openapi_schema = document
    return app.openapi_schema


def _request_body(description: Description) -> Schema:
    """OpenAPI's ``requestBody`` member; nothing for an endpoint that reads no body."""
    if description.body is None:
        return {}
    content: Schema = {"schema": description.body}
    if description.example is not None:
        content["example"] = description.example
    return {"requestBody": {"required": description.body_required, "content": {JSON: content}}}


def _responses(description: Description, guarded: bool) -> dict[str, Schema]:
    """The answers by status; ``guarded`` routes require a key where keys are set."""
    content = {
        media: {"schema": description.answer} if media == JSON else {}
        for media in description.media
    }
    errors = {**ERRORS, **description.errors}
    if guarded:
        errors |= KEY_ERROR
    if description.body is not None and description.body_required:
        errors |= BODY_ERRORS
    problem = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Schema] = {"200": {"description": "The answer", "content": content}}
    for status, text in sorted(errors.items()):
        responses[str(status)] = {"description": text, "content": problem}
    if description.is_probe:
        responses["503"] = {"description": "Not alive or not ready", "content": content}
    return responses
