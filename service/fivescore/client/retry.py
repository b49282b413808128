"""When a request is tried again: after which answers, after how long, and by which clock."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from fivescore.errors import FivescoreError

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

BACKOFF_SECONDS = (0.5, 30.0)
"""First and longest wait between tries; the server's Retry-After counts where it is longer."""
MOST_EXPONENT = 10
"""2^10 first waits are longer than the longest one."""
FEW_TRIES = 3
"""Tries of a request that the server fails on: the next one most likely fails as well."""


class Cure(Enum):
    """What may help after a request failed."""

    ELSEWHERE = auto()
    """Another replica, or this one later."""
    LATER = auto()
    """The same replica, as long as the deadline allows."""
    FEW_TIMES = auto()
    """The same replica, a few times."""
    HALVES = auto()
    """Half of the pairs."""
    NOTHING = auto()
    """Its pairs have failed."""
    CALLER = auto()
    """The caller must change something: no other request would fare better."""


@dataclass
class Failure(Exception):
    """A request failed; ``cure`` says what may help, ``advised`` is Retry-After in seconds."""

    error: FivescoreError
    cure: Cure
    advised: float = 0.0


def cure(status: int, code: str) -> Cure:
    """What may help after an answer other than 2xx."""
    if status in (429, 502, 503):
        return Cure.ELSEWHERE
    if status in (408, 425) or (status == 504 and code != "deadline_exceeded"):
        return Cure.LATER
    if status >= 500:
        return Cure.FEW_TIMES
    return Cure.HALVES if status == 413 else Cure.CALLER


def exhausted(cure: Cure, tries: int) -> bool:
    """Whether another try of the same request to the same server has no use after ``tries``."""
    if cure is Cure.FEW_TIMES:
        return tries >= FEW_TRIES
    return cure not in (Cure.ELSEWHERE, Cure.LATER)


def backoff(failures: int, advised: float = 0.0) -> float:
    """Seconds to wait after the n-th failure in a row; jitter keeps clients apart.

    Args:
        advised: Retry-After, in seconds; never waits less.
    """
    first, longest = BACKOFF_SECONDS
    wait = min(longest, first * 2.0 ** min(failures - 1, MOST_EXPONENT))
    return max(wait * random.uniform(0.5, 1.0), advised * random.uniform(1.0, 1.1))


def persist(ask: Callable[[], Answer], seconds: float) -> Answer:
    """What ``ask`` returns; asks one server again, for up to ``seconds``, while that may help.

    Blocks. ``call.Call`` has a loop of its own: what waits there may move to another replica.

    Raises:
        FivescoreError: the last failure.
    """
    give_up_at, tries = time.monotonic() + seconds, 0
    while True:
        try:
            return ask()
        except Failure as failure:
            tries += 1
            wait = backoff(tries, failure.advised)
            if exhausted(failure.cure, tries) or time.monotonic() + wait > give_up_at:
                raise failure.error from None
            if tries == 1:
                log.warning("%s; trying again", failure.error)
        time.sleep(wait)


class Clock:
    """Seconds and sleep; tests bring their own."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
