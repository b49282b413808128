"""Scenarios 2e and 3b: of two ranks one is killed, or stands still, in the middle of work."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.asking import score_all
from tests.faults.bench import HANG_SECONDS, Bench
from tests.faults.lost_engine import BATCH, OK, RESTARTS, SLOWER, lose, until_done
from tests.faults.result import Result, at_least, at_most, only
from tests.faults.target import is_there

RANKS = 2
TWO_RANKS = ("--engine.data-parallel-size", str(RANKS))


async def killed(bench: Bench) -> Result:
    """``kill -9`` of one rank: the other ends with it, before there are two again."""
    return await _lost(bench, signal.SIGKILL, "kill -9", 0.0)


async def hung(bench: Bench) -> Result:
    """SIGSTOP of one rank, while the other goes on to answer."""
    return await _lost(bench, signal.SIGSTOP, "SIGSTOP", HANG_SECONDS)


async def _lost(bench: Bench, number: signal.Signals, how: str, silence: float) -> Result:
    target = await bench.server(*TWO_RANKS)
    known = await bench.known(bench.scale.killed_pairs)
    restarts, done = await target.metric(RESTARTS), await target.metric(*OK)
    call = asyncio.create_task(
        score_all(target.url, known, batch_size=BATCH, deadline_seconds=3600)
    )
    await until_done(target, call, done + len(known) / 4)
    before = target.engines()
    recovery, inflight = await lose(target, number, before[-1])
    after = target.engines()
    tally = await call
    restarted = await target.metric(RESTARTS) - restarts
    return Result(
        f"{how} of one of {RANKS} ranks during one call of {len(known)} pairs",
        tally,
        [
            only(tally),
            at_least("ranks before", len(before), RANKS),
            at_least("pairs in flight at that time", inflight, 1),
            at_least("restarts", restarted, 1),
            at_most("restarts", restarted, 1),
            at_most("old ranks left", sum(map(is_there, before)), 0),
            at_least("ranks after", len(after), RANKS),
            at_most("ranks after", len(after), RANKS),
            at_least("recovery, s,", recovery, silence),
            at_most("recovery, s,", recovery, silence + SLOWER * target.load_seconds + 30),
        ],
        recovery,
        {"load, s": target.load_seconds},
    )
