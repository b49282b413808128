"""Every error of ours has an answer."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request

from fivescore.errors import (
    ConfigurationError,
    FivescoreError,
    Overloaded,
    RateLimited,
    ServiceUnavailable,
)
from fivescore.http import problems
from tests.unit.test_errors import LEAVES


@pytest.mark.parametrize(
    "kind",
    [kind for kind in LEAVES if not issubclass(kind, ConfigurationError)],
    ids=lambda kind: kind.code,
)
async def test_every_error_has_status_title_and_canonical_shape(kind: type[FivescoreError]) -> None:
    request = Request({"type": "http", "headers": [], "fivescore.request_id": "abc"})
    response = await problems.on_error(request, kind("what went wrong"))
    assert 400 <= response.status_code < 600
    body = json.loads(bytes(response.body))
    assert body["title"]
    assert body["title"] != body["detail"]
    assert (body["type"], body["code"]) == (f"urn:fivescore:{kind.code}", kind.code)
    assert (body["detail"], body["request_id"]) == ("what went wrong", "abc")
    assert body["status"] == response.status_code
    assert response.media_type == "application/problem+json"
    assert ("retry-after" in response.headers) == issubclass(kind, ServiceUnavailable)


@pytest.mark.parametrize("kind", [Overloaded, RateLimited])
async def test_a_trainers_route_says_503_where_ours_says_429(kind: type[FivescoreError]) -> None:
    """Trainers' clients try again after the one and end the run at the other."""
    scope: dict[str, object] = {"type": "http", "headers": []}
    ours = await problems.on_error(Request(dict(scope)), kind("later"))
    problems.use_protocol_errors(scope)
    theirs = await problems.on_error(Request(scope), kind("later"))
    assert (ours.status_code, theirs.status_code) == (429, 503)
    body = json.loads(bytes(theirs.body))
    assert body["status"] == body["error"]["code"] == 503
