"""The routes beside ``/score``, and what all routes share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fivescore import __version__
from fivescore.http.app import ROUTES
from fivescore.settings import DEMO
from fivescore.telemetry.metrics import OUTCOMES, STATES
from tests.integration.service import PAIR, Json, Service, assert_problem, serving, strict


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


async def test_the_manifest_in_force_is_shown(service: Service) -> None:
    shown = strict(await service.http.get("/manifest"))
    assert shown == json.loads((Path(DEMO) / "reward.json").read_text())


async def test_the_token_limit_in_force_is_shown_with_the_manifest() -> None:
    async with serving(max_tokens=100, name="judge") as service:
        assert strict(await service.http.get("/manifest"))["max_tokens"] == 100
        models = strict(await service.http.get("/v1/models"))["data"]
        assert [(model["id"], model["max_model_len"]) for model in models] == [
            ("judge", 100),
            ("judge-scalar", 100),
        ]


async def test_the_model_is_listed_in_openais_shape(service: Service) -> None:
    body = strict(await service.http.get("/v1/models"))
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["fivescore-demo", "fivescore-demo-scalar"]
    for model in body["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"]


async def test_the_version_is_told(service: Service) -> None:
    body = strict(await service.http.get("/version"))
    assert body == {"version": __version__, "engine": "fake"}


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_a_ready_service_is_healthy(service: Service, path: str) -> None:
    response = await service.http.get(path)
    assert (response.status_code, strict(response)) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_load_balancers_may_probe_with_head(service: Service, path: str) -> None:
    response = await service.http.head(path)
    assert response.status_code == 200


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


# Request ids


@pytest.mark.parametrize("given", ["a", "A-1_b.c", "x" * 128, "0" * 32])
async def test_a_usable_request_id_is_taken_over(service: Service, given: str) -> None:
    good = await service.score(PAIR, **{"X-Request-Id": given})
    assert good.headers["X-Request-Id"] == given
    bad = await service.score({}, **{"X-Request-Id": given})
    assert assert_problem(bad, 422, "invalid_request")["request_id"] == given


@pytest.mark.parametrize(
    "given",
    [b"", b"x" * 129, b"two words", b"a,b", b'"quoted"', b"a/b", b"\xc3\xa9", b"\xc3\xaa", b"\xaa"],
)
async def test_an_unusable_request_id_is_replaced(service: Service, given: bytes) -> None:
    response = await service.http.post("/score", content=b"", headers=[(b"X-Request-Id", given)])
    assert_problem(response, 422, "invalid_request")
    own = dict(response.headers.raw)[b"x-request-id"]
    assert own != given
    assert own.isascii()
    assert len(own) == 32


async def test_every_request_gets_an_id_of_its_own(service: Service) -> None:
    paths = ["/score", "/health", "/metrics", "/nowhere"] * 3
    answers = [await service.http.get(path) for path in paths]
    ids = [answer.headers.get_list("X-Request-Id") for answer in answers]
    assert all(len(own) == 1 for own in ids)
    assert len({own[0] for own in ids}) == len(paths)


# Metrics


async def test_the_metrics_parse_and_every_label_is_there_from_the_start(
    service: Service,
) -> None:
    response = await service.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    for outcome in OUTCOMES:
        assert samples["fivescore_pairs_total", outcome] == 0
    for state in STATES:
        assert samples["fivescore_engine_state", state] == (state == "ready")
    assert samples["fivescore_inflight_limit", "pairs"] == 65_536
    assert samples[("fivescore_inflight_pairs",)] == 0
    assert samples[("fivescore_model_load_seconds",)] > 0
    assert ("process_cpu_seconds_total",) in samples


async def test_the_counters_move() -> None:
    async with serving(options={"fail_every": 3}) as service:
        scored = await service.scores(PAIR, {"token_ids": [1, 2]}, {"token_ids": [3]}, {})
        await service.score({"prompt": "Q"})
        await service.score({"pairs": [PAIR], "weights": {"humor": 1}})
        for outcome, count in {
            "ok": 2, "engine_error": 1, "invalid_pair": 2, "invalid_request": 1, "too_long": 0,
        }.items():  # fmt: skip
            assert await service.metric("fivescore_pairs_total", outcome=outcome) == count, outcome
        assert await service.metric("fivescore_prompt_tokens_count") == 2
        tokens = sum(entry.get("tokens", 0) for entry in scored)
        assert await service.metric("fivescore_prompt_tokens_sum") == tokens
        assert await service.metric("fivescore_request_pairs_sum") == 5
        answered = {"method": "POST", "route": "/score"}
        name = "fivescore_http_request_duration_seconds_count"
        assert await service.metric(name, status="200", **answered) == 1
        assert await service.metric(name, status="422", **answered) == 2


async def test_no_client_can_make_new_labels(service: Service) -> None:
    for n in range(5):
        await service.http.get(f"/nowhere/{n}")
        await service.http.request(f"FROB{n}", "/score")
    text = (await service.http.get("/metrics")).text
    assert "nowhere" not in text
    assert "FROB" not in text
    name = "fivescore_http_request_duration_seconds_count"
    assert await service.metric(name, method="GET", route="unknown", status="404") == 5
    assert await service.metric(name, method="other", route="/score", status="405") == 5


# OpenAPI


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Json, reference: str) -> Any:
    assert reference.startswith("#/"), reference
    node: Any = document
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


async def test_openapi_lists_every_route_and_every_reference_in_it_resolves(
    service: Service,
) -> None:
    document = strict(await service.http.get("/openapi.json"))
    assert document["openapi"].startswith("3.")
    assert document["info"] == {"title": "fivescore", "version": __version__}
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == {(method, path) for method, path, _ in ROUTES}
    for reference in set(references(document)):
        assert isinstance(resolve(document, reference), dict), reference


async def test_openapi_describes_both_bodies_of_score(service: Service) -> None:
    document = strict(await service.http.get("/openapi.json"))
    operation = document["paths"]["/score"]["post"]
    assert operation["description"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    bodies = [
        resolve(document, body["$ref"]) if "$ref" in body else body for body in schema["anyOf"]
    ]
    options = {"weights", "truncate", "timeout_seconds"}
    fields = [set(body["properties"]) for body in bodies]
    assert {"pairs", *options} in fields
    assert {"prompt", "response", "text", "token_ids", *options} in fields
