"""Scenario 9: mixed traffic for a long time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import median

from tests.faults.asking import Answer, Asker
from tests.faults.bench import Bench
from tests.faults.known import SEED, Known
from tests.faults.load import batches_of, closed_loop, quantile
from tests.faults.result import Result, Tally, at_most, only, total
from tests.faults.target import Target

SHARE = 0.4
"""Of the capacity: much, and not so much that a queue grows."""
SIZES = (1, 1, 1, 4, 4, 16, 64)
"""Pairs of a request, one as likely as the other."""
POOL = 512
CONCURRENCY = 8
WINDOWS = 3
"""The first third is compared with the last."""
SLOWER = 1.5
SAMPLES = 60


async def soak(bench: Bench) -> Result:
    """Requests of all sizes, and clients that go away, at a constant part of the capacity."""
    target, scale = await bench.server(), bench.scale
    known = await bench.known(POOL)
    async with Asker(target.url) as asker:
        calm = await closed_loop(asker, batches_of(known, 64), CONCURRENCY, scale.capacity_seconds)
        await target.until("no work", target.idle)
        rate = SHARE * calm.right_per_second / (sum(SIZES) / len(SIZES))
        samples, (answers, left) = await asyncio.gather(
            _memory(target, scale.soak_seconds), _mixed(asker, known, rate, scale.soak_seconds)
        )
    tally = total([calm.tally, left, *(answer.tally for answer in answers)])
    first, last = _ends(samples)
    singles = [answer.seconds for answer in answers if answer.tally.pairs == 1]
    early, late = _ends(singles)
    return Result(
        f"{scale.soak_seconds:.0f} s of mixed requests at {SHARE:.0%} of the capacity, one in"
        " twenty without waiting for its answer",
        tally,
        [
            only(tally),
            at_most("memory, x the first third's,", last / first, scale.growth),
            at_most("p50 of single pairs, x the first third's,", late / early, SLOWER),
        ],
        numbers={
            "memory at the end, MB": last / 1e6,
            "p50 at first, s": early,
            "p50 at the end, s": late,
            "p99, s": quantile(singles, 0.99),
        },
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and of the last part."""
    part = len(values) // WINDOWS
    return median(values[:part]), median(values[-part:])


async def _memory(target: Target, seconds: float) -> list[float]:
    samples = []
    for _ in range(SAMPLES):
        samples.append(float((await asyncio.to_thread(target.usage)).memory))
        await asyncio.sleep(seconds / SAMPLES)
    return samples


async def _mixed(
    asker: Asker, known: Sequence[Known], rate: float, seconds: float
) -> tuple[list[Answer], Tally]:
    """Poisson arrivals from a fixed seed; the answers in order of arrival, and who did not wait."""
    rng = random.Random(SEED)
    began = time.monotonic()
    asked: list[asyncio.Task[Answer]] = []
    left = Tally()
    due = began
    while (due := due + rng.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        size = rng.choice(SIZES)
        start = rng.randrange(len(known) - size)
        task = asyncio.create_task(asker.ask(known[start : start + size], due))
        if rng.random() < 0.05:
            asyncio.get_running_loop().call_later(rng.uniform(0, 0.2), task.cancel)
            left.add(Tally(1, size, left=size))
        else:
            asked.append(task)
    return list(await asyncio.gather(*asked)), left
