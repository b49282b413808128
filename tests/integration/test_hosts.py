"""Without keys, web pages of other sites get nothing: neither by a foreign name nor by a POST."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fivescore.errors import ConfigurationError
from fivescore.http.app import ROUTES
from fivescore.settings import load
from tests.integration.service import PAIR, Json, Service, assert_problem, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "http://evil.example"
PAGE = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": "http://localhost"}
"""What a browser adds to the requests of the service's own page."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    """Without keys, on a loopback address, as ``fivescore serve`` starts."""
    async with serving() as running:
        yield running


async def asked(
    service: Service, method: str = "POST", path: str = "/score", **headers: str
) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.http.request(method, path, json=PAIR, headers=sent)


@pytest.mark.parametrize(("method", "path"), sorted({(m, p) for m, p, _ in ROUTES}))
async def test_a_name_that_is_bound_to_this_machine_anew_reads_nothing(
    service: Service, method: str, path: str
) -> None:
    answer = await asked(service, method, path, Host="evil.example:8000")
    problem = assert_problem(answer, 403, "foreign_host")
    assert "'evil.example:8000'" in problem["detail"]
    assert "--allowed-hosts" in problem["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:9000", 200), ("localhost.", 200), ("a.localhost:1", 200),
        ("127.0.0.1:8000", 200), ("127.9.9.9", 200), ("[::1]:8000", 200),
        ("[::ffff:127.0.0.1]", 200), ("evil.example", 403), ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("evil.example:localhost", 403), ("notlocalhost", 403),
        ("192.168.0.9", 403), ("0.0.0.0", 403), ("[::]", 403), ("", 403), (":8000", 403),
        ("localhost@evil.example", 403), ("localhost, evil.example", 403), ("[::1", 403),
        ("localhost:80:80", 403),
    ],
)  # fmt: skip
async def test_on_loopback_only_this_machines_names_are_asked_for(
    service: Service, host: str, status: int
) -> None:
    for path in ("/score", "/v1/score/evaluation"):
        answer = await asked(service, path=path, Host=host)
        assert (answer.status_code == 403) is (status == 403)
    assert (await asked(service, "GET", "/health/ready", Host=host)).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "file://"},
        {"Origin": "http://localhost:port"},
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_a_simple_request_of_another_sites_page_is_refused(
    service: Service, headers: dict[str, str]
) -> None:
    answer = await asked(service, **headers, Content_Type="text/plain")
    assert "--allowed-hosts" in assert_problem(answer, 403, "foreign_origin")["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        PAGE,
        {"Origin": "http://localhost"},
        {"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"},
        {"Origin": "http://[::1]:8000", "Host": "[::1]:8000"},
        {"Origin": "https://rm.example", "Sec-Fetch-Site": "same-origin"},  # behind a proxy
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_the_page_and_clients_that_are_no_browsers_are_answered(
    service: Service, headers: dict[str, str]
) -> None:
    assert (await asked(service, **headers)).status_code == 200


async def test_a_link_to_the_page_opens_it(service: Service) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await asked(service, "GET", "/", **followed)).status_code == 200


BEYOND = {"host": "0.0.0.0"}


@pytest.mark.parametrize(
    ("settings", "host", "origin", "code"),
    [
        ({"allowed_hosts": "rm.example, 10.0.0.7"}, "RM.example:443", "https://rm.example", "ok"),
        ({"allowed_hosts": "rm.example, 10.0.0.7"}, "10.0.0.7", "https://rm.example", "ok"),
        ({"allowed_hosts": "rm.example"}, "localhost", "https://rm.example", "ok"),
        ({"allowed_hosts": "rm.example"}, "evil.example", "https://rm.example", "foreign_host"),
        ({"host": "127.1.2.3"}, "127.1.2.3", "http://127.1.2.3", "ok"),
        (BEYOND, "rm-1:8000", "http://rm-1:8000", "ok"),
        (BEYOND, "rm-1:8000", EVIL, "foreign_origin"),
        ({**BEYOND, "allowed_hosts": "rm-1"}, "rm-1:8000", "http://rm-1:8000", "ok"),
        ({**BEYOND, "allowed_hosts": "rm-1"}, "evil.example", EVIL, "foreign_host"),
    ],
)
async def test_other_names_are_those_of_the_address_and_of_the_setting(
    settings: Json, host: str, origin: str, code: str
) -> None:
    async with serving(**settings) as service:
        answer = await asked(service, Host=host, Origin=origin)
        if code == "ok":
            assert answer.status_code == 200
        else:
            assert_problem(answer, 403, code)
        probe = await asked(service, "GET", "/health/live", Host="10.1.1.1:8000")
        assert probe.status_code == (200 if "host" in settings and "0" in settings["host"] else 403)


async def test_with_keys_the_key_decides_and_open_routes_stay_closed_to_other_sites() -> None:
    async with serving(api_key="a-key", open_routes="/score") as service:
        foreign = {"Host": "rm.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
        assert (await asked(service, **foreign, Authorization="Bearer a-key")).status_code == 200
        assert_problem(await asked(service, **foreign), 403, "foreign_origin")
        assert (await asked(service, Host="rm.example")).status_code == 200
        assert (await asked(service, "GET", "/", **foreign)).status_code == 200
        assert_problem(await asked(service, path="/rerank", **foreign), 401, "unauthorized")


@pytest.mark.parametrize("given", ["http://rm.example", "rm.example:8000", "a b", "*", "rm,"])
async def test_what_is_no_host_stops_the_start(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--allowed-hosts: .*without scheme and port"):
        load({"allowed_hosts": given})
