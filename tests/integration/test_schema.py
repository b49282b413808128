"""Every route against its own description, by generated requests, right ones and wrong ones.

A few hundred a route; TEST_LONG_FORM=1 sends thousands. ``--hypothesis-seed`` repeats a run.
"""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fivescore.http.app import ROUTES

EXAMPLES = 2000 if os.environ.get("TEST_LONG_FORM") else 100
FIXED = 10
"""Requests to a route that takes nothing, so that they are all the same."""


def no_failure(context: Any, response: Any, case: Any) -> None:
    """No 5xx but where the request set a deadline that nothing could keep."""
    if response.status_code >= 500:
        assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def schema(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for method, path, _ in ROUTES
        for mode in GenerationMode
        # What takes anything, or nothing, cannot be asked wrongly.
        if mode is GenerationMode.POSITIVE or (method == "POST" and path != "/seed_session")
    ],
)
@pytest.mark.timeout(1800)
def test_a_route_answers_as_it_says(
    schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schema[path][method]
    examples = EXAMPLES if operation.body else FIXED

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


@pytest.mark.parametrize("path", [path for method, path, _ in ROUTES if method == "POST"])
def test_the_example_of_a_route_is_answered(schema: Any, url: str, path: str) -> None:
    content = schema.raw_schema["paths"][path]["post"]["requestBody"]["content"]
    if path not in ("/score", "/seed_session"):
        example = content["application/json"]["example"]
        assert httpx.post(url + path, json=example).status_code == 200
