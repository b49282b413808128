"""Sends requests and measures them, with aiohttp, which takes a fifth of httpx's time per request.

A closed loop has a number of workers with one request in flight each, as trainers do. An open loop
sends at times drawn beforehand, whatever the server does, and counts latency from the time at which
a request was due, so that a slow server does not slow its own test down. The latency of an idle
server is measured by a blocking client, which adds the least time of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import math
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp

MOST_LAG_SECONDS = 0.005
"""The largest 99th percentile of lags; with a larger one the run measured its own generator."""
TIMEOUT_SECONDS = 600
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """A body and the pairs in it."""

    body: bytes
    pairs: int


@dataclass
class Run:
    """The results of a run: ``seconds`` from its start to its last answer; latencies in seconds."""

    seconds: float = 0.0
    pairs: int = 0
    """Pairs in requests that were answered with 200."""
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """Seconds by which requests were sent after they were due; empty for a closed loop."""
    dropped: int = 0
    """Requests that were not sent, because too many were in flight."""
    failed: dict[str, int] = field(default_factory=dict)
    """Counts of failures by status or by the error's type."""
    answers: list[bytes] = field(default_factory=list)

    @property
    def void(self) -> bool:
        """Whether the generator, not the server, was too slow."""
        return quantile(self.lags, 0.99) > MOST_LAG_SECONDS

    def fail(self, what: str) -> None:
        self.failed[what] = self.failed.get(what, 0) + 1

    def add(self, request: Request, since: float, status: int, body: bytes) -> None:
        """Count a request that was answered now; its latency counts from ``since``."""
        if status != 200:
            self.fail(str(status))
            return
        self.latencies.append(time.perf_counter() - since)
        self.pairs += request.pairs
        self.answers.append(body)


class Driver:
    """Sends to one URL.

    Args:
        new_connections: open one for each request, as ``requests.post`` does, and keep none.
    """

    def __init__(self, url: str, *, new_connections: bool = False) -> None:
        self._url = url
        connector = aiohttp.TCPConnector(limit=0, force_close=new_connections)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.close()

    async def closed(self, requests: Iterable[Request], workers: int) -> Run:
        """Send all requests with ``workers`` of them in flight."""
        run, waiting = Run(), iter(requests)
        began = time.perf_counter()

        async def work() -> None:
            for request in waiting:
                await self._send(request, time.perf_counter(), run)

        await asyncio.gather(*(work() for _ in range(workers)))
        run.seconds = time.perf_counter() - began
        return run

    async def open(self, requests: Iterable[Request], due: Sequence[float], most: int) -> Run:
        """Send one request at each time in ``due``, in seconds from now, and wait for all answers.

        Requests that are due while ``most`` are in flight are dropped and counted.
        """
        run, sending = Run(), set[asyncio.Task[None]]()
        began = time.perf_counter()
        for request, at in zip(requests, due, strict=False):
            await asyncio.sleep(began + at - time.perf_counter())
            if len(sending) >= most:
                run.dropped += 1
                continue
            run.lags.append(time.perf_counter() - began - at)
            task = asyncio.create_task(self._send(request, began + at, run))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)
        run.seconds = time.perf_counter() - began
        return run

    async def _send(self, request: Request, due: float, run: Run) -> None:
        try:
            async with self._http.post(self._url, data=request.body, headers=JSON) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            run.fail(type(error).__name__)
            return
        run.add(request, due, answer.status, body)


def one_by_one(url: str, requests: Iterable[Request]) -> Run:
    """Send each request after the answer to the one before, on one connection.

    Raises:
        OSError, http.client.HTTPException: the connection failed.
    """
    run, parts = Run(), urllib.parse.urlsplit(url)
    client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    began = time.perf_counter()
    with contextlib.closing(client):
        for request in requests:
            sent = time.perf_counter()
            client.request("POST", parts.path, request.body, JSON)
            answer = client.getresponse()
            body = answer.read()
            run.add(request, sent, answer.status, body)
    run.seconds = time.perf_counter() - began
    return run


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed; 0 without values."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
