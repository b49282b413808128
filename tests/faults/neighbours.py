"""Scenario 10: one very large job beside clients that ask for single pairs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from tests.faults.asking import Answer, Asker
from tests.faults.bench import Bench
from tests.faults.known import SEED, Known
from tests.faults.load import quantile
from tests.faults.result import Result, at_least, at_most, only, total

LARGEST = 10_000
"""Pairs a request, the default of ``--max-pairs``: the job comes in as few requests as it can."""
SINGLES = 64
RATE = 3.0
"""Single pairs a second."""
SLOWER = 5.0
ENOUGH = 10


async def noisy(bench: Bench) -> Result:
    """Latency of single pairs alone, and while the job is in the service."""
    target, count = await bench.server(), bench.scale.job_pairs
    known = await bench.known(SINGLES + count)
    singles, job = known[:SINGLES], known[SINGLES:]
    async with Asker(target.url) as asker:
        await asker.one_by_one(singles)
        quiet = asyncio.create_task(asyncio.sleep(bench.scale.quiet_seconds))
        alone = await _singles_until(asker, singles, quiet)
        began = time.monotonic()
        parts = [job[start : start + LARGEST] for start in range(0, count, LARGEST)]
        working = asyncio.gather(*(asker.ask(part) for part in parts))
        beside = await _singles_until(asker, singles, working)
        answers = await working
    took = max(answer.ended for answer in answers) - began
    tally = total(answer.tally for answer in [*alone, *answers, *beside])
    before, during = (quantile([a.seconds for a in some], 0.5) for some in (alone, beside))
    return Result(
        f"a job of {count} pairs in {len(parts)} requests; single pairs beside it",
        tally,
        [
            only(tally),
            at_least("single pairs during the job", len(beside), ENOUGH),
            at_most("p50 of single pairs, x alone,", during / before, SLOWER),
        ],
        numbers={
            "p50 alone, s": before,
            "p50 beside, s": during,
            "p99 beside, s": quantile([answer.seconds for answer in beside], 0.99),
            "the job, s": took,
        },
    )


async def _singles_until(
    asker: Asker,
    singles: Sequence[Known],
    other: asyncio.Future[None] | asyncio.Future[list[Answer]],
) -> list[Answer]:
    """Poisson arrivals from a fixed seed, until ``other`` has ended; all are waited for."""
    rng = random.Random(SEED)
    asked: list[asyncio.Task[Answer]] = []
    due = time.monotonic()
    while True:
        due += rng.expovariate(RATE)
        await asyncio.wait([other], timeout=max(0.0, due - time.monotonic()))
        if other.done():
            return await asyncio.gather(*asked)
        pair = singles[len(asked) % len(singles)]
        asked.append(asyncio.create_task(asker.ask([pair], due)))
