"""Scenarios 2 and 3: processes are killed, or stand still, in the middle of work."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import psutil

from tests.faults.asking import score_all
from tests.faults.bench import HANG_SECONDS, Bench
from tests.faults.load import quantile
from tests.faults.result import Result, Tally, at_least, at_most, only
from tests.faults.target import FORK_SERVER, LOOK_SECONDS, Target, is_there

OK = ("fivescore_pairs_total", 'outcome="ok"')
RESTARTS = "fivescore_engine_restarts_total"
BATCH = 16
"""Pairs a request: small, so that some are done whenever a fault comes."""
END_SECONDS = 10.0
"""For processes to end that were killed: the kernel takes their memory from one after the other."""
SLOWER = 4.0
"""How many times a first start a new one may take; it waits up to 30 s before that."""


async def killed(bench: Bench) -> Result:
    """``kill -9`` of the engine in the middle of one long call of the retrying client, again and
    again: each time when it has scored some more and has work."""
    target, scale = await bench.server(), bench.scale
    known = await bench.known(scale.killed_pairs)
    restarts, done = await target.metric(RESTARTS), await target.metric(*OK)
    call = asyncio.create_task(
        score_all(target.url, known, batch_size=BATCH, deadline_seconds=3600)
    )
    recoveries, held = [], []
    for kill in range(1, scale.kills + 1):
        await until_done(target, call, done + kill * len(known) / (scale.kills + 2))
        recovery, inflight = await lose(target, signal.SIGKILL)
        recoveries.append(recovery)
        held.append(inflight)
    tally = await call
    restarted = await target.metric(RESTARTS) - restarts
    most = SLOWER * target.load_seconds + 30
    return Result(
        f"kill -9 of the engine {scale.kills} times during one call of {len(known)} pairs",
        tally,
        [
            only(tally),
            at_least("pairs in flight at a kill", min(held), 1),
            at_least("restarts", restarted, scale.kills),
            at_most("restarts", restarted, scale.kills),
            at_most("longest recovery, s,", max(recoveries), most),
        ],
        max(recoveries),
        {"median recovery, s": quantile(recoveries, 0.5), "load, s": target.load_seconds},
    )


async def orphaned(bench: Bench) -> Result:
    """``kill -9`` of the process that engines are forked from: the engine that runs ends with it,
    before there is another."""
    target = await bench.server()
    known = await bench.known(bench.scale.killed_pairs)
    restarts, done = await target.metric(RESTARTS), await target.metric(*OK)
    call = asyncio.create_task(
        score_all(target.url, known, batch_size=BATCH, deadline_seconds=3600)
    )
    await until_done(target, call, done + len(known) / 4)
    engine, server = target.engine(), target.process(FORK_SERVER)
    beside = asyncio.create_task(asyncio.to_thread(_engines_at_once, target, engine))
    recovery, inflight = await lose(target, signal.SIGKILL, server)
    tally = await call
    restarted = await target.metric(RESTARTS) - restarts
    return Result(
        f"kill -9 of the fork server during one call of {len(known)} pairs",
        tally,
        [
            only(tally),
            at_least("pairs in flight at the kill", inflight, 1),
            at_least("restarts", restarted, 1),
            at_most("restarts", restarted, 1),
            at_most("engines at once", await beside, 1),
            at_most("recovery, s,", recovery, SLOWER * target.load_seconds + 30),
        ],
        recovery,
        {"load, s": target.load_seconds},
    )


def _engines_at_once(target: Target, old: psutil.Process) -> int:
    """The most engines that run at one time, until the one after ``old`` has come."""
    most = 1
    while True:
        engines = [one for one in target.engines() if one != old]
        most = max(most, len(engines) + is_there(old))
        if engines:
            return most
        time.sleep(LOOK_SECONDS)


async def abandoned(bench: Bench) -> Result:
    """``kill -9`` of the service while all that it has started is stopped: nothing of it stays, and
    the service that is started in its place brings what the call still waits for."""
    target = await bench.server()
    known = await bench.known(bench.scale.killed_pairs)
    done = await target.metric(*OK)
    call = asyncio.create_task(
        score_all(target.url, known, batch_size=BATCH, deadline_seconds=3600)
    )
    await until_done(target, call, done + len(known) / 4)
    inflight = await target.metric("fivescore_inflight_pairs")
    below = target.below()
    for process in below:
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    target.send(signal.SIGKILL)
    left = await asyncio.to_thread(_left, below)
    took = time.monotonic() - began
    for process in left:
        process.kill()  # it must not disturb what comes
    await target.restart()
    tally = await call
    return Result(
        f"SIGSTOP of everything below the service, then kill -9 of the service,"
        f" during one call of {len(known)} pairs; it is started again",
        tally,
        [
            only(tally),
            at_least("pairs in flight at the kill", inflight, 1),
            at_least("processes below the service", len(below), 2),
            at_most("processes left", len(left), 0),
        ],
        numbers={"until none was left, s": took},
    )


def _left(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there after ``END_SECONDS``."""
    give_up = time.monotonic() + END_SECONDS
    while (found := [one for one in processes if is_there(one)]) and time.monotonic() < give_up:
        time.sleep(LOOK_SECONDS)
    return found


async def hung(bench: Bench) -> Result:
    """SIGSTOP of the engine in the middle of work: it neither answers nor ends."""
    target = await bench.server()
    known = await bench.known(bench.scale.killed_pairs)
    restarts, done = await target.metric(RESTARTS), await target.metric(*OK)
    call = asyncio.create_task(
        score_all(target.url, known, batch_size=BATCH, deadline_seconds=3600)
    )
    await until_done(target, call, done + len(known) / 4)
    engine = target.engine()
    recovery, inflight = await lose(target, signal.SIGSTOP)
    tally = await call
    restarted = await target.metric(RESTARTS) - restarts
    return Result(
        f"SIGSTOP of the engine, --engine-hang-seconds {HANG_SECONDS},"
        f" during one call of {len(known)} pairs",
        tally,
        [
            only(tally),
            at_least("pairs in flight when it stopped", inflight, 1),
            at_least("restarts", restarted, 1),
            at_most("restarts", restarted, 1),
            at_most("stopped engines left", float(is_there(engine)), 0),
            at_least("recovery, s,", recovery, HANG_SECONDS),
            at_most("recovery, s,", recovery, HANG_SECONDS + SLOWER * target.load_seconds + 30),
        ],
        recovery,
        {"load, s": target.load_seconds},
    )


async def until_done(target: Target, call: asyncio.Task[Tally], pairs: float) -> None:
    """Wait until so many pairs were scored, so that a fault finds others still to do."""

    async def enough() -> bool:
        assert not call.done(), "the call ended before the fault"
        running = await target.metric("vllm:num_requests_running")
        return running > 0 and await target.metric(*OK) >= pairs and await target.ready()

    await target.until(f"{pairs:.0f} pairs scored", enough)


async def lose(
    target: Target, number: signal.Signals, process: psutil.Process | None = None
) -> tuple[float, float]:
    """Send the engine, or another process, a signal; seconds until the service is ready again, and
    the pairs that were in flight."""
    inflight = await target.metric("fivescore_inflight_pairs")
    (process or target.engine()).send_signal(number)
    began = time.monotonic()

    async def not_ready() -> bool:
        return await target.status("/health/ready") == 503

    await target.until("readiness drops", not_ready)
    await target.until("ready again", target.ready)
    return time.monotonic() - began, inflight
