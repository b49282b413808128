"""Errors as RFC 9457 problem documents; the only place that maps an error to a status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from fivescore.errors import FivescoreError, InvalidRequest, ServiceUnavailable, Unauthorized

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED = 499
"""nginx's status for a client that disconnected; only the log and the metrics show it."""

_STATUS = {
    "invalid_request": (422, "The request is malformed"),
    "invalid_pair": (422, "The pair is malformed"),
    "too_long": (422, "The pair is too long"),
    "too_many_pairs": (413, "Too many pairs in one request"),
    "body_too_large": (413, "The request body is too large"),
    "unauthorized": (401, "The key is missing or wrong"),
    "foreign_host": (403, "Another host was asked for"),
    "foreign_origin": (403, "A page of another site sent the request"),
    "client_gone": (CLIENT_CLOSED, "The client closed the connection"),
    "overloaded": (429, "Too much in flight"),
    "rate_limited": (429, "More pairs than the key's rate allows"),
    "loading": (503, "The model is loading"),
    "draining": (503, "The service is shutting down"),
    "engine_dead": (503, "The engine has stopped"),
    "deadline_exceeded": (504, "The request's deadline passed"),
    "engine_error": (500, "The engine failed on this pair"),
    "non_finite": (500, "The model's output is not a finite number"),
    "no_gate": (422, "The pair lacks the tokens at which the model's gate is computed"),
}


def request_id_of(scope: Scope) -> str:
    """The request's id: the client's own if it sent a valid one. Empty before it is chosen."""
    return str(scope.get("fivescore.request_id", ""))


def use_protocol_errors(scope: Scope, use: bool = True) -> None:
    """Choose whether this request's errors have the form that clients of protocols understand."""
    scope["fivescore.protocol_errors"] = use


def item(error: FivescoreError) -> dict[str, Any]:
    """The entry of a pair that failed, in the answer to a batch."""
    return {"code": error.code, "detail": error.detail, **error.facts}


def problem(
    scope: Scope,
    status: int,
    title: str,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **extensions: Any,
) -> Response:
    """A problem document; ``extensions`` are members beside RFC 9457's own.

    For a protocol it also has OpenAI's ``error``, and 503 replaces 429: trainers retry a 503 and
    stop at a 429.
    """
    scope["fivescore.code"] = code
    if scope.get("fivescore.protocol_errors"):
        status = 503 if status == 429 else status
        error = {"message": detail, "type": code, "param": None, "code": status}
        extensions = {**extensions, "error": error}
    body = {
        "type": f"urn:fivescore:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id_of(scope),
        **extensions,
    }
    return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


async def on_error(request: Request, error: Exception) -> Response:
    """Answer for every error of fivescore's own."""
    assert isinstance(error, FivescoreError)
    status, title = _STATUS[error.code]
    headers = {}
    if isinstance(error, ServiceUnavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="fivescore", Basic realm="fivescore"'
    extensions: dict[str, Any] = dict(error.facts)
    if isinstance(error, InvalidRequest):
        extensions["errors"] = error.errors
    return problem(request.scope, status, title, error.code, error.detail, headers, **extensions)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer for what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return problem(
        request.scope,
        error.status_code,
        phrase,
        phrase.lower().replace(" ", "_"),
        f"{request.method} {request.url.path}: {phrase}; GET /docs lists the routes",
        dict(error.headers or {}),
    )
