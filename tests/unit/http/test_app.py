"""What the app answers where no endpoint does."""

from __future__ import annotations

import pytest

from fivescore.http.app import ROUTES
from tests.integration.service import Service, assert_problem


@pytest.mark.parametrize("path", ["/score/", "/scores", "/v1/scores", "/health/x", "/%00"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_a_problem(service: Service, method: str, path: str) -> None:
    response = await service.http.request(method, path)
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize(("method", "path", "_endpoint"), ROUTES)
async def test_a_wrong_method_is_a_problem_that_says_which_is_right(
    service: Service, method: str, path: str, _endpoint: object
) -> None:
    response = await service.http.request("DELETE", path)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == method


async def test_the_documentation_is_served(service: Service) -> None:
    response = await service.http.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text
