"""What the load generator sends, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from loadtest.driver import MOST_LAG_SECONDS, Driver, Request, Run, one_by_one, quantile

PAIR = Request(b"{}", 1)


class Service:
    """Answers with a status, after a time; remembers what came."""

    def __init__(self, status: int = 200, seconds: float = 0.0) -> None:
        self.bodies: list[bytes] = []
        self.connections: set[object] = set()
        self.most = 0
        self._inside = 0
        self._status, self._seconds = status, seconds

    async def answer(self, request: web.Request) -> web.Response:
        self._inside += 1
        self.most = max(self.most, self._inside)
        self.bodies.append(await request.read())
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        await asyncio.sleep(self._seconds)
        self._inside -= 1
        return web.Response(status=self._status, text="[]")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
        await runner.cleanup()


async def test_a_closed_loop_sends_everything_with_so_many_on_their_way() -> None:
    service = Service(seconds=0.01)
    requests = [Request(b"%d" % number, 3) for number in range(20)]
    async with service.running() as url, Driver(url) as driver:
        run = await driver.closed(requests, workers=4)
    assert sorted(service.bodies) == sorted(request.body for request in requests)
    assert service.most == 4
    assert len(service.connections) == 4
    assert (run.pairs, len(run.latencies), run.failed) == (60, 20, {})
    assert all(0.01 <= latency <= run.seconds for latency in run.latencies)


async def test_one_by_one_on_one_connection_and_what_is_refused_is_counted() -> None:
    service = Service(seconds=0.01)
    requests = [Request(b"%d" % number, 3) for number in range(5)]
    async with service.running() as url, Service(status=503).running() as refusing:
        run = await asyncio.to_thread(one_by_one, url, requests)
        refused = await asyncio.to_thread(one_by_one, refusing, [PAIR] * 3)
    assert service.bodies == [request.body for request in requests]
    assert (service.most, len(service.connections)) == (1, 1)
    assert (run.pairs, len(run.latencies), run.answers) == (15, 5, [b"[]"] * 5)
    assert all(0.01 <= latency <= run.seconds for latency in run.latencies)
    assert (refused.pairs, refused.latencies, refused.failed) == (0, [], {"503": 3})


async def test_a_new_connection_each() -> None:
    service = Service()
    async with service.running() as url, Driver(url, new_connections=True) as driver:
        await driver.closed([PAIR] * 5, workers=1)
    assert len(service.connections) == 5


async def test_an_open_loop_does_not_wait_for_answers_and_counts_from_the_time_due() -> None:
    service = Service(seconds=0.2)
    async with service.running() as url, Driver(url) as driver:
        run = await driver.open([PAIR] * 10, [0.01 * number for number in range(10)], most=10)
    assert service.most == 10
    assert run.pairs == 10
    assert len(run.lags) == 10
    assert run.seconds < 10 * 0.2
    assert all(latency >= 0.2 for latency in run.latencies)


async def test_what_finds_too_many_on_their_way_is_dropped_and_counted() -> None:
    service = Service(seconds=0.2)
    async with service.running() as url, Driver(url) as driver:
        run = await driver.open([PAIR] * 5, [0.0] * 5, most=2)
    assert (run.dropped, run.pairs, service.most) == (3, 2, 2)


@pytest.mark.parametrize("status", [429, 500])
async def test_failures_are_counted_by_what_they_are_and_no_pair_of_theirs(status: int) -> None:
    service = Service(status)
    async with service.running() as url, Driver(url) as driver:
        run = await driver.closed([PAIR] * 3, workers=1)
    async with Driver(url) as driver:
        gone = await driver.closed([PAIR], workers=1)
    assert run.failed == {str(status): 3}
    assert gone.failed == {"ClientConnectorError": 1}
    assert (run.pairs, run.latencies, gone.pairs) == (0, [], 0)


def test_a_run_is_void_when_the_generator_lags() -> None:
    assert not Run(lags=[]).void
    assert not Run(lags=[0.0] * 99 + [1.0]).void
    assert Run(lags=[2 * MOST_LAG_SECONDS] * 2 + [0.0] * 98).void


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_quantiles(share: float, value: float) -> None:
    assert quantile([3.0, 1.0, 4.0, 2.0], share) == value
