"""Scenarios 5 and 6: clients that go away in the middle, and clients that never get on."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tests.faults.asking import Answer, Asker
from tests.faults.bench import SLOW_SECONDS, Bench
from tests.faults.known import SEED, Known
from tests.faults.load import quantile
from tests.faults.result import Result, Tally, at_least, at_most, only, total
from tests.faults.target import LOOK_SECONDS, Target, Usage

PAIRS = 4
"""Of each request whose client goes."""
WITNESS = 64
"""Pairs that are asked for, and waited for, after each round."""
FINISHED = ("vllm:request_success_total", 'finished_reason="stop"')
WASTE = 0.5
"""The most of a large request that the engine may have done before it hears of the end."""
MOST_LEFT_SECONDS = 1.0
"""The longest that a client stays."""
OWN_GROWTH = 1.02
FILES = 8
"""Open files and threads that may be more at the end: pools that grow once."""
RATE = 5.0
"""Requests of normal traffic a second."""
SLOWER = 3.0
"""How many times as long the normal traffic may take."""
AT_A_TIME = 200
"""Connections that are opened together."""
LATER = 6.0
"""How many times its limit the service may take to close a slow client."""
DRIP_SECONDS = 1.0
"""Between two bytes of a slow client."""


async def gone(bench: Bench) -> Result:
    """Clients that disconnect at any time of their request, round after round."""
    target, scale = await bench.server(), bench.scale
    known = await bench.known(WITNESS)
    rng = random.Random(SEED)
    usages: list[Usage] = []
    parts: list[Tally] = []
    async with Asker(target.url) as asker:
        for _ in range(scale.rounds + 1):  # the first one fills caches and pools
            requests = [bench.pairs.other(PAIRS) for _ in range(scale.clients)]
            await asyncio.gather(
                *(_leave(target, _request(pairs), rng.random(), rng) for pairs in requests)
            )
            parts.append(Tally(scale.clients, PAIRS * scale.clients, left=PAIRS * scale.clients))
            await target.until("no work of clients that went is left", target.idle)
            parts.append((await asker.ask(known)).tally)
            usages.append(target.usage())
        for_nobody = await _abandon(bench, target)
    first, half, last = usages[0], usages[len(usages) // 2], usages[-1]
    parts.append(Tally(1, scale.abandoned_pairs, left=scale.abandoned_pairs))
    tally = total(parts)
    return Result(
        f"{scale.clients} clients disconnect mid-request, {scale.rounds + 1} times over, and one"
        f" with {scale.abandoned_pairs} pairs",
        tally,
        [
            only(tally),
            at_most("part of those pairs that was scored for nobody,", for_nobody, WASTE),
            # The engine's process keeps the memory of the most that ever waited in it, and the
            # first rounds raise that: what leaks grows in the last ones too.
            at_most("memory, x after half of them,", last.memory / half.memory, scale.growth),
            at_most("the service's own, x after half of them,", last.own / half.own, OWN_GROWTH),
            at_most("more open files", last.files - first.files, FILES),
            at_most("more threads", last.threads - first.threads, FILES),
        ],
        numbers={"memory, MB": last.memory / 1e6, "open files": last.files},
    )


async def slow(bench: Bench) -> Result:
    """Slow, half-open and idle connections, while normal traffic goes on."""
    target, scale = await bench.server(), bench.scale
    known = await bench.known(WITNESS)
    async with Asker(target.url) as asker:
        await asker.one_by_one(known)
        calm = await _traffic(asker, known, scale.traffic_seconds)
        files = target.usage().files
        async with _crowd(bench, target) as crowd:
            held = target.usage().files - files
            beside = await _traffic(asker, known, scale.traffic_seconds)
            told_off = await _ended(crowd.slow)
            idle = sum(not connection.ended for connection in crowd.idle)
        await target.until("no work is left", target.idle)
        await asyncio.sleep(1)
        left = target.usage().files - files
    tally = total(answer.tally for answer in [*calm, *beside])
    before, during = (quantile([a.seconds for a in some], 0.5) for some in (calm, beside))
    return Result(
        f"{scale.idle_connections} idle connections, {scale.slow_connections} each of slow headers,"
        " slow bodies and half a request, some unread answers; single pairs beside them",
        tally,
        [
            only(tally),
            at_least("slow clients closed", told_off, 3 * scale.slow_connections),
            at_least("idle connections kept", idle, scale.idle_connections),
            at_most("p50 of single pairs, x before,", during / before, SLOWER),
            at_most("more open files afterwards", left, FILES),
        ],
        numbers={
            "p50 before, s": before,
            "p50 beside, s": during,
            "p99 beside, s": quantile([answer.seconds for answer in beside], 0.99),
            "connections held": held,
        },
    )


def _request(pairs: Sequence[dict[str, str]]) -> bytes:
    body = json.dumps({"pairs": pairs}).encode()
    head = f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _leave(target: Target, request: bytes, share: float, rng: random.Random) -> None:
    """Send a request, or half of them only its beginning, and go some time later."""
    stay = rng.uniform(0, MOST_LEFT_SECONDS)
    abort = rng.random() < 0.5
    with suppress(ConnectionError):
        _, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
        writer.write(request if share < 0.5 else request[: int(share * len(request))])
        await writer.drain()
        await asyncio.sleep(stay)
        if abort:
            writer.transport.abort()
        else:
            writer.close()


async def _abandon(bench: Bench, target: Target) -> float:
    """Go while the engine works on a large request; the part of it that was scored all the same."""
    count = bench.scale.abandoned_pairs
    before = await target.metric(*FINISHED)

    async def working() -> bool:
        return await target.metric("vllm:num_requests_running") > 0

    _, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
    writer.write(_request(bench.pairs.other(count)))
    await target.until("the engine works on it", working)
    writer.close()
    await target.until("no work of it is left", target.idle)
    return (await target.metric(*FINISHED) - before) / count


async def _traffic(asker: Asker, known: Sequence[Known], seconds: float) -> list[Answer]:
    """Single pairs at a constant rate, whatever became of those before."""
    began = time.monotonic()
    asked: list[asyncio.Task[Answer]] = []
    while len(asked) < RATE * seconds:
        due = began + len(asked) / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        pair = known[len(asked) % len(known)]
        asked.append(asyncio.create_task(asker.ask([pair], due)))
    return await asyncio.gather(*asked)


async def _ended(connections: Sequence[_Connection]) -> int:
    """How many the service has closed, once it has had the time for all of them."""
    give_up = time.monotonic() + LATER * SLOW_SECONDS
    while True:
        ended = sum(one.ended for one in connections)
        if ended == len(connections) or time.monotonic() > give_up:
            return ended
        await asyncio.sleep(LOOK_SECONDS)


class _Connection:
    """One that sends the first bytes at once, and the rest bit by bit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._end = asyncio.create_task(_end(reader))
        self._drip: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the service closed it."""
        return self._end.done()

    def send(self, first: bytes, rest: bytes) -> None:
        self._writer.write(first)
        self._drip = asyncio.create_task(self._send_slowly(rest))

    async def _send_slowly(self, rest: bytes) -> None:
        for byte in rest:
            await asyncio.sleep(DRIP_SECONDS)
            self._writer.write(bytes([byte]))

    def pause(self) -> None:
        """Read nothing any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def close(self) -> None:
        tasks = [task for task in (self._end, self._drip) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writer.transport.abort()


async def _end(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


class _Crowd:
    """Connections that do not get on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.idle: list[_Connection] = []
        self.slow: list[_Connection] = []
        self.unread: list[_Connection] = []

    async def open(self, count: int) -> list[_Connection]:
        """So many more, not all at once."""
        opened: list[_Connection] = []
        while len(opened) < count:
            some = range(min(AT_A_TIME, count - len(opened)))
            streams = [asyncio.open_connection("127.0.0.1", self._port) for _ in some]
            opened += [_Connection(*one) for one in await asyncio.gather(*streams)]
        return opened

    async def close(self) -> None:
        everybody = [*self.idle, *self.slow, *self.unread]
        await asyncio.gather(*(connection.close() for connection in everybody))


@asynccontextmanager
async def _crowd(bench: Bench, target: Target) -> AsyncIterator[_Crowd]:
    """Idle ones; slow headers, slow bodies and half a request; answers that nobody reads."""
    count = bench.scale.slow_connections
    request, many = _request(bench.pairs.other(PAIRS)), _request(bench.pairs.other(WITNESS))
    head = request.index(b"\r\n\r\n") + 4
    half = (head + len(request)) // 2
    scripts = [
        (request[:10], request[10:head]),
        (request[:head], request[head:]),
        (request[:half], b""),
    ]
    crowd = _Crowd(target.server.port)
    try:
        crowd.idle = await crowd.open(bench.scale.idle_connections)
        crowd.unread = await crowd.open(count // WITNESS + 1)
        for connection in crowd.unread:
            connection.pause()
            connection.send(many, b"")
        crowd.slow = await crowd.open(count * len(scripts))
        for number, connection in enumerate(crowd.slow):
            connection.send(*scripts[number % len(scripts)])
        yield crowd
    finally:
        await crowd.close()
