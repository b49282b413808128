"""Scenario 11: what networks do between a client and two replicas, each in its own namespace."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from fivescore.client import RewardClient
from fivescore.client import client as client_module
from fivescore.client.answers import Result as Answered
from fivescore.client.call import Batch, Call
from fivescore.types import Score
from tests.e2e.server import Server
from tests.faults.bench import FLAGS, Bench
from tests.faults.judging import counted
from tests.faults.known import Known
from tests.faults.names import Names
from tests.faults.namespaces import Namespace
from tests.faults.result import Bound, Result, Tally, at_least, at_most, only, total
from tests.faults.target import Target
from tests.faults.wire import Wire

CLIENT = "10.99.0.1"
REPLICAS = ("10.99.0.2", "10.99.0.3")
NAMES = ("rm-1", "rm-2")
PAIRS = 512
"""Of a call; calls follow each other while a fault lasts."""
BATCH = 16
FAKE = ("--backend", "fake", "--engine.latency-seconds", "0.05")
DELAY_SECONDS = 0.05
LOSS = 0.03
CONNECTIONS_LIVE_SECONDS = 60.0
"""What the client may take to see that nobody is at the other end (client/exchange.py)."""
RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


class Distant(Target):
    """A server in a namespace of its own."""

    def __init__(self, namespace: Namespace, log: Path, *flags: str) -> None:
        self._namespace = namespace
        # Only this wire leads there, and the client has no key.
        super().__init__(namespace.call(Server, log, "--host", "0.0.0.0", *flags))

    async def status(self, path: str) -> int | None:
        return await self._namespace.run(self.server.status, path)

    async def metric(self, name: str, labels: str = "") -> float:
        return await self._namespace.run(self.server.metric, name, labels)


class Watched(Call):
    """The client's call, which counts its tries, and how often each place got a result."""

    tries = 0
    twice = 0

    async def _send(self, batch: Batch, left: float) -> list[Answered]:
        Watched.tries += 1
        return await super()._send(batch, left)

    def _settle(self, places: Sequence[int], results: Sequence[Answered]) -> None:
        Watched.twice += sum(place in self._results for place in places)
        Watched.twice += len(places) - len(set(places))
        super()._settle(places, results)


@dataclass
class Net:
    """Two replicas, the client that knows both, and the wire between them."""

    wire: Wire
    names: Names
    replicas: list[Distant]
    client: RewardClient
    namespace: Namespace
    known: Sequence[Known]

    async def call(self) -> Tally:
        """One call of all pairs."""
        pairs = [(pair.prompt, pair.response) for pair in self.known]
        submitted = await self.namespace.run(self.client.submit, pairs, errors="return")
        return counted(await asyncio.wrap_future(submitted), self.known)

    async def calls_until(self, other: asyncio.Task[float]) -> list[Tally]:
        """Calls, one after the other, until ``other`` has ended; the last one begins after it."""
        tallies = []
        while not other.done():
            tallies.append(await self.call())
        return [*tallies, await self.call()]

    async def scoring(self, replica: int) -> None:
        """Wait until the replica scores more than it has."""
        target = self.replicas[replica]
        before = await target.metric("fivescore_pairs_total")

        async def more() -> bool:
            return await target.metric("fivescore_pairs_total") > before

        await target.until("it scores again", more)


Fault = Callable[[Net, Bench], Coroutine[Any, Any, float]]
"""Does it during the calls; returns the seconds until both replicas scored again."""


async def _scenario(
    bench: Bench, done: str, fault: Fault, met: str, by_name: bool = False
) -> Result:
    async with _net(bench, by_name) as net:
        Watched.tries = Watched.twice = 0
        doing = asyncio.create_task(fault(net, bench))
        tally = total(await net.calls_until(doing))
        recovery = await doing
        tally.requests = Watched.tries
        happened = net.wire.counted + net.names.counted
    bounds = [
        only(tally),
        at_most("places with two results", Watched.twice, 0),
        at_least(met, happened[met], 1),
    ]
    return Result(
        f"{done}; {len(REPLICAS)} replicas ({bench.scale.spare_backend} engine), calls of"
        f" {PAIRS} pairs meanwhile",
        tally,
        bounds,
        recovery,
        {name: float(count) for name, count in happened.items()},
    )


@asynccontextmanager
async def _net(bench: Bench, by_name: bool) -> AsyncIterator[Net]:
    await bench.close()
    backend = FAKE if bench.scale.spare_backend == "fake" else ()
    async with contextlib.AsyncExitStack() as stack:
        home = stack.enter_context(contextlib.closing(Namespace(CLIENT, mounts=True)))
        away = [stack.enter_context(contextlib.closing(Namespace(one))) for one in REPLICAS]
        wire = await stack.enter_async_context(Wire([home, *away]))
        resolver = bench.folder / "resolv.conf"
        resolver.write_text(RESOLVER)
        home.mount(resolver, "/etc/resolv.conf")
        names = await stack.enter_async_context(
            Names(home, dict(zip(NAMES, REPLICAS, strict=True)))
        )
        targets = []
        for number, namespace in enumerate(away):
            log = bench.folder / f"replica-{number}.log"
            targets.append(Distant(namespace, log, *FLAGS, *backend))
            stack.push_async_callback(targets[-1].stop)
        for target in targets:
            await target.wait_ready()
        hosts = NAMES if by_name else REPLICAS
        urls = [
            f"http://{host}:{one.server.port}" for host, one in zip(hosts, targets, strict=True)
        ]
        stack.enter_context(mock.patch.object(client_module, "Call", Watched))
        client = RewardClient(urls, batch_size=BATCH)
        stack.callback(client.close)
        net = Net(wire, names, targets, client, home, await bench.known(PAIRS))
        if backend:
            net.known = await _as_scored(net)
        yield net


async def _as_scored(net: Net) -> list[Known]:
    """The pairs with the fake engine's scores, from before anything goes wrong."""
    pairs = [(pair.prompt, pair.response) for pair in net.known]
    scores: list[Score] = await asyncio.wrap_future(
        await net.namespace.run(net.client.submit, pairs)
    )
    return [
        Known(pair.prompt, pair.response, score)
        for pair, score in zip(net.known, scores, strict=True)
    ]


async def lossy(bench: Bench) -> Result:
    """Every packet late, and some lost."""

    async def fault(net: Net, bench: Bench) -> float:
        net.wire.delay, net.wire.loss = DELAY_SECONDS, LOSS
        await asyncio.sleep(bench.scale.network_seconds)
        net.wire.mend()
        return await _both_score(net)

    done = (
        f"{LOSS:.0%} of all packets lost and the others {DELAY_SECONDS * 1000:.0f} to"
        f" {DELAY_SECONDS * 2000:.0f} ms late for {bench.scale.network_seconds:.0f} s"
    )
    return await _scenario(bench, done, fault, "lost")


async def reset(bench: Bench) -> Result:
    """Connections are reset in requests and in answers: one replica's, the other's, both's."""

    async def fault(net: Net, bench: Bench) -> float:
        for addresses in (REPLICAS[:1], REPLICAS[1:], REPLICAS):
            for address in addresses:
                net.wire.reset(address)
            await asyncio.sleep(bench.scale.network_seconds / 4)
            net.wire.mend()
            await asyncio.sleep(bench.scale.network_seconds / 12)
        return await _both_score(net)

    done = "every connection that carries something reset, of one replica, the other, then both"
    return await _scenario(bench, done, fault, "reset")


async def half_open(bench: Bench) -> Result:
    """All connections are forgotten between the ends, without a word to either."""

    async def fault(net: Net, bench: Bench) -> float:
        await _both_score(net)
        began = time.monotonic()
        forgotten = sum(map(net.wire.forget, REPLICAS))
        net.wire.counted["connections forgotten"] = forgotten
        return await _both_score(net, began)

    done = "all connections forgotten on the way, without a word to either end"
    result = await _scenario(bench, done, fault, "connections forgotten")
    assert result.recovery is not None
    longest = at_most("recovery, s,", result.recovery, CONNECTIONS_LIVE_SECONDS)
    return _with(result, longest)


async def cut_off(bench: Bench) -> Result:
    """One replica cannot be reached for a while; the other one goes on."""

    async def fault(net: Net, bench: Bench) -> float:
        net.wire.cut(REPLICAS[0])
        await asyncio.sleep(bench.scale.cut_seconds)
        net.wire.mend()
        return await _both_score(net)

    done = f"one replica cut off for {bench.scale.cut_seconds:.0f} s"
    return await _scenario(bench, done, fault, "cut")


async def nameless(bench: Bench) -> Result:
    """The name service is silent, fails, and denies the replicas, while connections break."""

    async def fault(net: Net, bench: Bench) -> float:
        for answer in net.names.FAULTS:
            net.names.answer = answer
            for address in REPLICAS:
                net.wire.reset(address)
            await asyncio.sleep(bench.scale.network_seconds / 12)
            net.wire.mend()
            await asyncio.sleep(bench.scale.network_seconds / 4)
        net.names.answer = None
        return await _both_score(net)

    done = "the name service silent, then failing, then denying the names, and connections reset"
    return await _scenario(bench, done, fault, "names not resolved", by_name=True)


async def _both_score(net: Net, began: float | None = None) -> float:
    """Seconds from ``began``, or from now, until both replicas have scored more."""
    began = time.monotonic() if began is None else began
    await asyncio.gather(*map(net.scoring, range(len(REPLICAS))))
    return time.monotonic() - began


def _with(result: Result, bound: Bound) -> Result:
    result.bounds.append(bound)
    return result
