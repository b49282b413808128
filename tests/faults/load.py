"""Load: closed loops to find the capacity, open ones to offer more than that.

An open loop sends at times that were drawn before, whatever the server does, and counts the time of
each answer from when its request was to be sent: a slow server does not slow its own test down.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.asking import Answer, Asker
from tests.faults.known import SEED, Known
from tests.faults.result import Tally, total

Batch = Sequence[Known]


@dataclass
class Load:
    """What came of one. ``lags`` are seconds that requests were sent after their time."""

    seconds: float
    answers: list[Answer] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    dropped: int = 0
    """Requests that were due when all batches were still on their way: the load's own fault."""
    began: float = field(default_factory=time.monotonic)

    @property
    def tally(self) -> Tally:
        return total(answer.tally for answer in self.answers)

    @property
    def right_per_second(self) -> float:
        """Pairs answered right, until the last answer: what is accepted in the load's last second
        takes its time too."""
        ended = max((answer.ended for answer in self.answers), default=self.began)
        return self.tally.right / max(ended - self.began, self.seconds)

    @property
    def latencies(self) -> list[float]:
        """Of requests that were scored."""
        return [answer.seconds for answer in self.answers if answer.tally.right]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def batches_of(known: Sequence[Known], size: int) -> deque[Batch]:
    """The pairs in requests of ``size``."""
    return deque(known[start : start + size] for start in range(0, len(known), size))


async def closed_loop(
    asker: Asker, batches: deque[Batch], concurrency: int, seconds: float
) -> Load:
    """Always ``concurrency`` requests on their way, for so long."""
    load = Load(seconds)

    async def ask_again() -> None:
        while time.monotonic() < load.began + seconds:
            batch = batches.popleft()
            load.answers.append(await asker.ask(batch))
            batches.append(batch)

    await asyncio.gather(*(ask_again() for _ in range(concurrency)))
    return load


async def open_loop(asker: Asker, batches: deque[Batch], rate: float, seconds: float) -> Load:
    """``rate`` requests a second for so long, Poisson arrivals from a fixed seed.

    A batch is sent again only once it was answered, so that no pair is in the server twice, where
    it would be computed once. Returns when all are answered.
    """
    rng = random.Random(SEED)
    load = Load(seconds)
    asking: set[asyncio.Task[None]] = set()
    due = load.began + rng.expovariate(rate)
    while due < load.began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        load.lags.append(time.monotonic() - due)
        if batches:
            task = asyncio.create_task(_ask_one(asker, batches, due, load))
            asking.add(task)
            task.add_done_callback(asking.discard)
        else:
            load.dropped += 1
        due += rng.expovariate(rate)
    await asyncio.gather(*asking)
    return load


async def _ask_one(asker: Asker, batches: deque[Batch], due: float, load: Load) -> None:
    batch = batches.popleft()
    load.answers.append(await asker.ask(batch, due))
    batches.append(batch)
