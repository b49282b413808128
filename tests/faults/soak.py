"""Scenario 9: mixed traffic for a long time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from tests.faults.asking import Answer, Asker
from tests.faults.bench import Bench
from tests.faults.known import SEED, Known
from tests.faults.load import batches_of, closed_loop, quantile
from tests.faults.result import Bound, Result, Tally, at_most, only, total
from tests.faults.target import Target, Usage

Value = TypeVar("Value")

SHARE = 0.4
"""Of the capacity: much, and not so much that a queue grows."""
SIZES = (1, 1, 1, 4, 4, 16, 64)
"""Pairs of a request, one as likely as the other."""
POOL = 512
CONCURRENCY = 8
WINDOWS = 3
"""The first third is compared with the last."""
SLOWER = 1.5
MUCH_SLOWER = 3.0
"""How many times as long the slowest one in a hundred may take."""
MORE = 8
"""Open files and threads that may be more in the last third."""
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
            _usages(target, scale.soak_seconds), _mixed(asker, known, rate, scale.soak_seconds)
        )
    tally = total([calm.tally, left, *(answer.tally for answer in answers)])
    singles = [answer.seconds for answer in answers if answer.tally.pairs == 1]
    return Result(
        f"{scale.soak_seconds:.0f} s of mixed requests at {SHARE:.0%} of the capacity, one in"
        " twenty without waiting for its answer",
        tally,
        [only(tally), *_flat(samples, singles, scale.growth)],
        numbers={
            "seconds": scale.soak_seconds,
            "requests a second": rate,
            "p99, s": quantile(singles, 0.99),
        },
        series=_series(samples, singles),
    )


def _flat(samples: Sequence[Usage], singles: Sequence[float], growth: float) -> list[Bound]:
    """The last third is held to the first one."""

    def grown(value: Callable[[Usage], int]) -> float:
        first, last = (median(map(value, part)) for part in _ends(samples))
        return last / first

    def more(value: Callable[[Usage], int]) -> float:
        first, last = (median(map(value, part)) for part in _ends(samples))
        return last - first

    def slower(share: float) -> float:
        first, last = (quantile(part, share) for part in _ends(singles))
        return last / first

    return [
        at_most("memory, x the first third's,", grown(lambda one: one.memory), growth),
        at_most("the service's own, x the first third's,", grown(lambda one: one.own), growth),
        at_most("more open files than in the first third", more(lambda one: one.files), MORE),
        at_most("more threads than in the first third", more(lambda one: one.threads), MORE),
        at_most("p50 of single pairs, x the first third's,", slower(0.5), SLOWER),
        at_most("p99 of single pairs, x the first third's,", slower(0.99), MUCH_SLOWER),
    ]


def _ends(values: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value]]:
    """The first and the last third."""
    part = len(values) // WINDOWS
    return values[:part], values[-part:]


def _series(samples: Sequence[Usage], singles: Sequence[float]) -> dict[str, list[float]]:
    """What was seen over the time, each in ``SAMPLES`` steps: megabytes, counts, seconds."""
    step = max(1, len(singles) // SAMPLES)
    parts = [singles[start : start + step] for start in range(0, len(singles), step)]
    return {
        "memory, MB": [round(one.memory / 1e6, 1) for one in samples],
        "the service's own, MB": [round(one.own / 1e6, 1) for one in samples],
        "open files": [one.files for one in samples],
        "threads": [one.threads for one in samples],
        "p50 of single pairs, s": [round(quantile(part, 0.5), 4) for part in parts],
        "p99 of single pairs, s": [round(quantile(part, 0.99), 4) for part in parts],
    }


async def _usages(target: Target, seconds: float) -> list[Usage]:
    samples = []
    for _ in range(SAMPLES):
        samples.append(await asyncio.to_thread(target.usage))
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
