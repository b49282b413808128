"""``fivescore serve`` as a process: sockets, signals, exit statuses."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest

from tests.integration.conftest import ANYWHERE, Servers
from tests.integration.process import refused, server
from tests.integration.service import OTHER, PAIR, assert_problem, metric


@pytest.mark.skipif(ANYWHERE != "::", reason="this host has no IPv6")
def test_a_service_on_all_addresses_takes_ipv4_and_logs_an_address_that_can_be_opened(
    servers: Servers,
) -> None:
    url = servers.loading.url
    assert url.startswith("http://[::]:")
    for address in (url, url.replace("[::]", "127.0.0.1")):
        assert httpx.get(f"{address}/health/live").json() == {"status": "loading"}


async def test_sigint_while_loading_stops_it_and_exits_with_0(servers: Servers) -> None:
    async with httpx.AsyncClient(base_url=servers.loading.url, timeout=60) as http:
        assert (await http.get("/health/live")).json() == {"status": "loading"}
        assert_problem(await http.post("/score", json=PAIR), 503, "loading")
    servers.loading.signal(signal.SIGINT)
    assert await asyncio.to_thread(servers.loading.exit_status) == 0
    assert "Traceback" not in servers.loading.log


def test_a_service_that_was_given_neither_input_nor_output_serves_and_exits_with_0() -> None:
    """Otherwise its sockets get those numbers, and what is printed is sent to a client."""
    with server(redirections="<&- >&-") as process:
        assert httpx.post(f"{process.ready().url}/score", json=PAIR).status_code == 200
        process.signal(signal.SIGTERM)
        assert process.exit_status() == 0
        assert "Traceback" not in process.log


def test_a_load_that_nothing_can_stop_does_not_hold_up_the_end() -> None:
    with server("--engine.stuck-load-seconds", "3600") as process:
        process.wait_for("(loading) ")
        process.signal(signal.SIGTERM)
        assert process.exit_status() == 0
        assert "Traceback" not in process.log


def test_a_second_signal_ends_it_while_the_engine_does_not_close() -> None:
    flags = ("--engine.stuck-close-seconds", "3600", "--log-level", "debug")
    with server(*flags) as process:
        process.ready().signal(signal.SIGTERM)
        process.wait_for("(the engine is being closed)")
        process.signal(signal.SIGTERM)
        assert process.exit_status() == 0
        assert "Traceback" not in process.log


def test_a_load_that_fails_exits_with_1_and_the_cause_in_one_line(servers: Servers) -> None:
    assert servers.failing.exit_status() == 1
    assert servers.failing.log.splitlines()[-1] == "fivescore: error: out of memory"
    assert "Traceback" not in servers.failing.log


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        last = refused("--port", port).splitlines()[-1]
    assert last.startswith(f"fivescore: error: cannot listen on 127.0.0.1 port {port}: ")


def test_what_was_loaded_is_exempt_from_garbage_collection(servers: Servers) -> None:
    """A collection of it would stop the service for half a second every few thousand requests."""
    objects = servers.slow.wait_for(r"(\d+) objects are exempt from garbage collection")
    assert int(objects) > 100_000


async def inflight(http: httpx.AsyncClient) -> float:
    return metric((await http.get("/metrics")).text, "fivescore_inflight_pairs")


async def test_a_client_that_closes_its_connection_has_its_work_aborted(servers: Servers) -> None:
    url = servers.slow.ready().url
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.timeout(60):
        async with httpx.AsyncClient(base_url=url, timeout=60) as leaving:
            request = asyncio.create_task(leaving.post("/score", json=PAIR))
            while await inflight(http) < 1:
                assert not request.done()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        while await inflight(http):
            pass
        text = (await http.get("/metrics")).text
    assert 'fivescore_pairs_total{outcome="cancelled"} 1.0' in text
    assert 'fivescore_pairs_total{outcome="ok"} 0.0' in text


async def test_sigterm_finishes_what_was_accepted_takes_no_more_and_exits_with_0(
    servers: Servers,
) -> None:
    url = servers.slow.ready().url
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.timeout(60):
        accepted = asyncio.create_task(http.post("/score", json=PAIR))
        while await inflight(http) < 1:
            assert not accepted.done()
        servers.slow.signal(signal.SIGTERM)
        while (await http.get("/health/ready")).status_code == 200:
            assert not accepted.done()
        assert_problem(await http.post("/score", json=OTHER), 503, "draining")
        assert not accepted.done()
        response = await accepted
        assert response.status_code == 200
        assert "reward" in response.json()
    assert await asyncio.to_thread(servers.slow.exit_status) == 0
    assert "Traceback" not in servers.slow.log
