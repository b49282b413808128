"""Scenario 4: SIGTERM with accepted work, SIGTERM twice, and replicas restarted one by one."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import psutil

from fivescore.client import AsyncRewardClient
from fivescore.types import Score
from tests.faults.asking import Answer, Asker, Counting
from tests.faults.bench import FLAGS, Bench
from tests.faults.judging import counted
from tests.faults.known import RESPONSES, Known
from tests.faults.load import Batch, batches_of, quantile
from tests.faults.result import Result, at_least, at_most, only, total
from tests.faults.target import Target, is_there

REQUESTS = 5
PROBES = 10
"""Requests that come while it drains."""
ADMITTED = "fivescore_request_pairs_count"
REPLICAS = 2
EVERY_SECONDS = 0.1
"""Between two calls of the rolling restart's load."""
CONCURRENCY = 64
GRACE_SECONDS = 30
HASTE = 0.5
"""The part of the grace period in which a second SIGTERM must end the process."""
ENDLESS = ("--backend", "fake", "--engine.latency-seconds", "3600")
"""An engine whose work does not end: nothing of it can be finished."""


async def drained(bench: Bench) -> Result:
    """One SIGTERM while all of the pairs are accepted and most are not scored."""
    target = await bench.server()
    known = await bench.known(bench.scale.drained_pairs)
    processes = psutil.Process(target.server.process.pid).children(recursive=True)
    async with Asker(target.url) as asker:
        asked = await _accepted(target, asker, known)
        inflight = await target.metric("fivescore_inflight_pairs")
        target.send(signal.SIGTERM)
        began = time.monotonic()
        probes = await asyncio.gather(*(asker.ask(known[:1]) for _ in range(PROBES)))
        work = total(answer.tally for answer in await asyncio.gather(*asked))
    status = await target.exit_status()
    # The kernel hands exits on one after the other, so allow for that, not for more.
    await asyncio.to_thread(psutil.wait_procs, processes, timeout=5)
    late = total(answer.tally for answer in probes)
    return Result(
        f"SIGTERM with {len(known)} pairs accepted; {PROBES} requests come while it drains",
        total([work, late]),
        [
            only(work),
            only(late, "draining"),
            at_least("pairs in flight at the signal", inflight, 1),
            at_least("refused with draining", late.errors["draining"], 1),
            at_most("exit status", abs(status), 0),
            at_most("processes left", sum(map(is_there, processes)), 0),
        ],
        numbers={"from the signal to the exit, s": time.monotonic() - began},
    )


async def hastened(bench: Bench) -> Result:
    """A second SIGTERM with work that cannot be finished: each request is told so."""
    await bench.close()
    known = await bench.known(bench.scale.undone_pairs)
    spare = ENDLESS if bench.scale.spare_backend == "fake" else ()
    target = bench.start("--shutdown-grace-seconds", str(GRACE_SECONDS), *spare)
    try:
        await target.wait_ready()
        async with Asker(target.url) as asker:
            asked = await _accepted(target, asker, known)
            inflight = await target.metric("fivescore_inflight_pairs")
            for _ in range(2):
                target.send(signal.SIGTERM)
                await target.until("it drains", lambda: _not(target.ready()))
            began = time.monotonic()
            tally = total(answer.tally for answer in await asyncio.gather(*asked))
        status = await target.exit_status()
        took = time.monotonic() - began
    finally:
        await target.stop()
    return Result(
        f"SIGTERM twice with {len(known)} pairs accepted, --shutdown-grace-seconds {GRACE_SECONDS}",
        tally,
        [
            only(tally, "draining"),
            at_least("pairs in flight at the signal", inflight, 1),
            at_least("told that they cannot be finished", tally.errors["draining"], 1),
            at_most("until the exit, x the grace period,", took / GRACE_SECONDS, HASTE),
            at_most("exit status", abs(status), 0),
        ],
        numbers={"from the second signal to the exit, s": took},
    )


async def rolled(bench: Bench) -> Result:
    """Restart replicas one after the other while the client sends at a constant rate."""
    await bench.close()
    backend = bench.scale.spare_backend
    targets = [bench.start(*FLAGS, "--backend", backend) for _ in range(REPLICAS)]
    counting = Counting()
    urls = [target.url for target in targets]
    try:
        await asyncio.gather(*(target.wait_ready() for target in targets))
        async with AsyncRewardClient(urls, transport=counting, concurrency=CONCURRENCY) as client:
            known = await _known(bench, client)
            counting.requests = 0
            quiet = await _constantly(
                client, known, asyncio.sleep(bench.scale.rolling_quiet_seconds)
            )
            statuses: list[int] = []
            load = await _constantly(client, known, _restart_all(targets, statuses))
    finally:
        await asyncio.gather(*(target.stop() for target in targets))
    tally = total(answer.tally for answer in [*quiet, *load])
    tally.requests = counting.requests
    return Result(
        f"{REPLICAS} replicas ({backend} engine) restarted one by one,"
        f" {RESPONSES / EVERY_SECONDS:.0f} pairs/s meanwhile",
        tally,
        [only(tally), at_most("exit statuses other than 0", sum(map(bool, statuses)), 0)],
        numbers={
            "p99 of a call before, s": quantile([answer.seconds for answer in quiet], 0.99),
            "p99 of a call meanwhile, s": quantile([answer.seconds for answer in load], 0.99),
        },
    )


async def _accepted(
    target: Target, asker: Asker, known: Sequence[Known]
) -> list[asyncio.Task[Answer]]:
    """Requests for all of these, on their way and admitted."""
    before = await target.metric(ADMITTED)
    batches = batches_of(known, len(known) // REQUESTS)
    asked = [asyncio.create_task(asker.ask(batch)) for batch in batches]

    async def admitted() -> bool:
        return await target.metric(ADMITTED) >= before + len(batches)

    await target.until(f"{len(batches)} requests are admitted", admitted)
    return asked


async def _not(condition: Coroutine[Any, Any, bool]) -> bool:
    return not await condition


async def _restart_all(targets: Sequence[Target], statuses: list[int]) -> None:
    for target in targets:
        statuses.append(await target.restart())
        await target.wait_ready()


async def _constantly(
    client: AsyncRewardClient, known: Sequence[Known], until: Coroutine[Any, Any, None]
) -> list[Answer]:
    """A call every so often, whatever became of those before, until something else has ended."""
    other = asyncio.create_task(until)
    batches = batches_of(known, RESPONSES)
    calls: list[asyncio.Task[Answer]] = []
    due = time.monotonic()
    while not other.done():
        calls.append(asyncio.create_task(_call(client, batches[len(calls) % len(batches)], due)))
        due += EVERY_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await other
    return await asyncio.gather(*calls)


async def _call(client: AsyncRewardClient, known: Batch, due: float) -> Answer:
    results = await client.score([(p.prompt, p.response) for p in known], errors="return")
    ended = time.monotonic()
    return Answer(counted(results, known), ended, ended - due)


async def _known(bench: Bench, client: AsyncRewardClient) -> Sequence[Known]:
    """The pairs; with the fake engine's scores, from before anything is restarted, where it is."""
    known = await bench.known(bench.scale.drained_pairs)
    if bench.scale.spare_backend != "fake":
        return known
    scores: list[Score] = await client.score([(pair.prompt, pair.response) for pair in known])
    return [Known(p.prompt, p.response, score) for p, score in zip(known, scores, strict=True)]
