"""Keys: every route but the probes wants one, and none is shown anywhere."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fivescore.errors import ConfigurationError
from fivescore.http.app import ROUTES
from fivescore.http.auth import OPEN
from tests.integration.protocols.protocols import PROTOCOLS
from tests.integration.service import OTHER, PAIR, Service, assert_problem, serving
from tests.integration.test_life import Connection
from tests.unit.engines import HeldEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OTHER_KEY = "s3cret-Key+/=:1", "another_key"
KEYS = (KEY, OTHER_KEY)
GUARDED = sorted({(method, path) for method, path, _ in ROUTES if path not in OPEN})
NO_PROBES = ("/health/", "//health", "/health/../score", "/health%2Fx", "/HEALTH", "/health/x")
HIDDEN = [
    *(("GET", path) for path in ("/docs", "/openapi.json", "/nowhere")),
    *(("POST", path) for path in NO_PROBES),
]
PROBES = sorted(OPEN)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded() -> AsyncIterator[Service]:
    async with serving(api_key=",".join(KEYS)) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def url(path: str) -> httpx.URL:
    """As it is: what begins with two slashes is still a path."""
    return httpx.URL(f"http://localhost{path}")


def assert_unauthorized(response: httpx.Response) -> None:
    problem = assert_problem(response, 401, "unauthorized")
    assert (
        response.headers["WWW-Authenticate"] == 'Bearer realm="fivescore", Basic realm="fivescore"'
    )
    assert "api_key" in problem["detail"]
    assert all(key not in response.text for key in KEYS)


@pytest.mark.parametrize(("method", "path"), [*GUARDED, *HIDDEN])
async def test_without_a_key_nothing_is_answered(guarded: Service, method: str, path: str) -> None:
    assert_unauthorized(await guarded.http.request(method, url(path), json=PAIR))


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("key", KEYS)
async def test_each_key_opens_each_route_in_each_way(
    guarded: Service, method: str, path: str, key: str
) -> None:
    for offered in (
        {"headers": bearer(key)},
        {"headers": {"authorization": f"bearer {key}"}},
        {"headers": basic("anybody", key)},
        {"headers": basic("", key)},
        {"params": {"api_key": key}},
        {"params": [("a", "b"), ("api_key", "wrong"), ("api_key", key)]},
    ):
        response = await guarded.http.request(method, path, **offered)
        assert response.status_code not in (401, 403, 404), offered


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_are_open(guarded: Service, method: str, path: str) -> None:
    assert (await guarded.http.request(method, path)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Bearer \xff\xfe",
        "Bearer schlüssel".encode(),
        b"Bearer " + KEY.encode() + b"x",
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer " + KEY.upper().encode(),
        b"Bearer " + ",".join(KEYS).encode(),
        KEY.encode(), b"Digest " + KEY.encode(), b"Basic " + KEY.encode(),
        b"Basic", b"Basic !!!", b"Basic \xff",
        b"Basic " + base64.b64encode(KEY.encode()),  # no colon: what a user is called is no key
        b"Basic " + base64.b64encode(KEY.encode() + b":"),
        b"Basic " + base64.b64encode(b"user:wrong"),
        b"Basic " + base64.b64encode(b"user:\xff\xfe"),
        b"Basic " + base64.b64encode(b"user:")[:-1],
    ],
)  # fmt: skip
async def test_a_wrong_or_malformed_authorization_is_refused(
    guarded: Service, authorization: bytes
) -> None:
    headers = [(b"Authorization", authorization)]
    assert_unauthorized(await guarded.http.post("/get_reward", headers=headers))


@pytest.mark.parametrize(
    "query",
    ["api_key=", "api_key", "api_key=wrong", "api_key=%FF", "api_key=%", "API_KEY=another_key",
     "key=another_key", "api_key[]=another_key", "api_key=another_key%00", "x=api_key=another_key",
     "api_key=%20another_key", "api_key=schl%C3%BCssel", "&&&=&"],
)  # fmt: skip
async def test_a_wrong_or_malformed_query_is_refused(guarded: Service, query: str) -> None:
    assert_unauthorized(await guarded.http.post(f"/get_reward?{query}"))


async def test_the_body_of_a_request_without_a_key_is_not_read(guarded: Service) -> None:
    connection = Connection(b"{", complete=False)  # read, it would be waited for without end
    await asyncio.wait_for(connection.run(guarded), 60)
    assert connection.sent[0]["status"] == 401
    assert len(connection._messages) == 1


async def test_while_the_model_loads_a_key_is_wanted_too() -> None:
    async with serving(api_key=KEY, options={"load_seconds": 3600}, settle=False) as service:
        assert_unauthorized(await service.score(PAIR))
        assert_problem(await service.score(PAIR, **bearer(KEY)), 503, "loading")


async def test_a_request_without_a_key_is_logged_and_counted_without_what_it_offered(
    guarded: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "fivescore"):
        for key, status in ((KEY, 200), ("wr0ng-key", 401)):
            for offered in (
                {"headers": bearer(key)},
                {"params": {"api_key": key}},
                {"headers": basic("u", key)},
            ):
                response = await guarded.http.post("/score", json=PAIR, **offered)  # type: ignore[arg-type]
                assert response.status_code == status
    assert "POST /score 401" in caplog.text
    shown = caplog.text + (await guarded.http.get("/metrics", headers=basic("u", KEY))).text
    for key in (*KEYS, "wr0ng-key"):
        assert key not in shown
        assert base64.b64encode(f"u:{key}".encode()).decode() not in shown
    name = "fivescore_http_request_duration_seconds_count"
    assert f'{name}{{method="POST",route="unknown",status="401"}}' in shown


# Routes that are open by name


async def test_a_route_that_is_named_is_open_and_no_other() -> None:
    async with serving(api_key=KEY, open_routes="/metrics, /openapi.json") as service:
        for path in ("/metrics", "/openapi.json", *PROBES):
            for headers in ({}, bearer("wrong")):
                assert (await service.http.get(path, headers=headers)).status_code == 200
        for method, path in {*GUARDED, *HIDDEN} - {("GET", "/metrics"), ("GET", "/openapi.json")}:
            assert_unauthorized(await service.http.request(method, url(path), json=PAIR))


@pytest.mark.parametrize("named", ["/metrcs", "/metrics,/reward", "metrics", "/health/"])
async def test_an_open_route_that_does_not_exist_stops_the_start(named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--open-routes: .* there are /classify, /docs,"):
        async with serving(api_key=KEY, open_routes=named, reward_path="/rm"):
            pass


# Pairs per second of each key

RATE = 0.02
"""A bucket of 1.2 pairs: a key's third pair is too much for most of a minute."""


async def test_each_key_has_its_own_rate_on_all_routes_together() -> None:
    async with serving(api_key=",".join(KEYS), key_pairs_per_second=RATE) as service:
        assert (await service.score({"pairs": [PAIR, OTHER]}, **bearer(KEY))).status_code == 200
        problem = assert_problem(await service.score(PAIR, **bearer(KEY)), 429, "rate_limited")
        assert problem["limit"] == RATE
        for protocol in PROTOCOLS:  # trainers die of a 429
            response = await service.http.post(
                protocol.path, json=protocol.one(PAIR), headers=basic("x", KEY)
            )
            problem = assert_problem(response, 503, "rate_limited")
            assert problem["error"]["code"] == 503
        assert (await service.score(PAIR, **bearer(OTHER_KEY))).status_code == 200
        count = {"reason": "rate_limited"}
        service.http.headers.update(bearer(KEY))
        refused = await service.metric("fivescore_admission_rejections_total", **count)
        assert refused == 1 + len(PROTOCOLS)
        lost = await service.metric("fivescore_pairs_total", outcome="rate_limited")
        assert lost == 1 + len(PROTOCOLS)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
async def test_what_a_trainers_route_scores_is_the_same_with_a_key_and_counts_for_it(
    protocol: Any,
) -> None:
    async with serving() as service:
        (score,) = await service.scores(PAIR)
    async with serving(api_key=KEY, key_pairs_per_second=RATE) as service:
        for status in (200, 200, 503):
            response = await service.http.post(
                protocol.path, json=protocol.one(PAIR), headers=basic("x", KEY)
            )
            assert response.status_code == status
            assert status == 503 or protocol.rewards(response.json()) == [score["reward"]]
        assert_problem(await service.score(OTHER, **bearer(KEY)), 429, "rate_limited")


async def test_a_request_larger_than_a_bucket_is_served() -> None:
    async with serving(api_key=KEY, key_pairs_per_second=1) as service:
        large = {"pairs": [PAIR] * 1000}
        assert (await service.score(large, **bearer(KEY))).status_code == 200
        response = await service.score(large, **bearer(KEY))
        assert response.status_code == 429
        assert 900 < int(response.headers["Retry-After"]) <= 940


async def test_pairs_that_were_refused_for_another_reason_cost_nothing() -> None:
    engine = HeldEngine()
    async with serving(
        engine, api_key=KEY, key_pairs_per_second=RATE, max_inflight_pairs=1, max_pairs=2
    ) as service:
        accepted = asyncio.create_task(service.score(PAIR, **bearer(KEY)))
        await engine.busy.wait()
        for _ in range(3):
            response = await service.score(OTHER, **bearer(KEY))
            assert_problem(response, 429, "overloaded")
            response = await service.score({"pairs": [PAIR] * 3}, **bearer(KEY))
            assert_problem(response, 413, "too_many_pairs")
            response = await service.score({**OTHER, "weights": {"x": 1}}, **bearer(KEY))
            assert_problem(response, 422, "invalid_request")
        engine.gate.set()
        assert (await accepted).status_code == 200
        assert (await service.score(OTHER, **bearer(KEY))).status_code == 200
        assert_problem(await service.score(OTHER, **bearer(KEY)), 429, "rate_limited")


async def test_who_comes_without_a_key_shares_one_rate_with_all_others() -> None:
    async with serving(key_pairs_per_second=RATE) as service:
        for any_key in ("one", "two"):
            assert (await service.score(PAIR, **bearer(any_key))).status_code == 200
        assert_problem(await service.score(PAIR, **bearer("three")), 429, "rate_limited")
    async with serving(key_pairs_per_second=RATE, api_key=KEY, open_routes="/score") as service:
        for _ in range(2):
            assert (await service.score(PAIR)).status_code == 200
        assert_problem(await service.score(PAIR, **bearer("wrong")), 429, "rate_limited")
        assert (await service.score(PAIR, **bearer(KEY))).status_code == 200
