"""When a failed request is retried: after which answers, after how long, by which clock."""

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
"""First and longest wait between tries, in seconds; a longer Retry-After replaces them."""
MOST_EXPONENT = 10
"""Limit of the exponent of 2, against overflow: 2^10 first waits exceed the longest wait."""
FEW_TRIES = 3
"""Tries of a request that the server answers with 5xx: further ones most likely fail too."""


class Retry(Enum):
    """How to retry a failed request."""

    ANOTHER_REPLICA = auto()
    """At another replica, or at this one later."""
    SAME_REPLICA = auto()
    """At the same replica, until the deadline."""
    FEW_TIMES = auto()
    """At the same replica, ``FEW_TRIES`` times."""
    SPLIT = auto()
    """In halves."""
    NEVER = auto()
    """Not at all: its pairs have failed."""
    FATAL = auto()
    """Not at all, and no other request either: the caller must change something."""


@dataclass
class Failure(Exception):
    """A request failed; ``retry_after`` is the response's Retry-After, in seconds."""

    error: FivescoreError
    retry: Retry
    retry_after: float = 0.0


def retry_for(status: int, code: str) -> Retry:
    """How to retry after a response whose status is not 2xx."""
    if status in (429, 502, 503):
        return Retry.ANOTHER_REPLICA
    if status in (408, 425) or (status == 504 and code != "deadline_exceeded"):
        return Retry.SAME_REPLICA
    if status >= 500:
        return Retry.FEW_TIMES
    return Retry.SPLIT if status == 413 else Retry.FATAL


def exhausted(retry: Retry, tries: int) -> bool:
    """Whether the same request is not sent to the same server again after ``tries``."""
    if retry is Retry.FEW_TIMES:
        return tries >= FEW_TRIES
    return retry not in (Retry.ANOTHER_REPLICA, Retry.SAME_REPLICA)


def backoff(failures: int, retry_after: float = 0.0) -> float:
    """Seconds to wait after ``failures`` in a row; random, so that clients do not retry together.

    Args:
        retry_after: the least wait, in seconds.
    """
    first, longest = BACKOFF_SECONDS
    wait = min(longest, first * 2.0 ** min(failures - 1, MOST_EXPONENT))
    return max(wait * random.uniform(0.5, 1.0), retry_after * random.uniform(1.0, 1.1))


def with_retries(send: Callable[[], Answer], seconds: float) -> Answer:
    """Returns what ``send`` returns; calls it again for up to ``seconds`` after a ``Failure``.

    Blocks, and knows one server. ``call.Call`` retries too, and can move to another replica.

    Raises:
        FivescoreError: the error of the last failure.
    """
    give_up_at, tries = time.monotonic() + seconds, 0
    while True:
        try:
            return send()
        except Failure as failure:
            tries += 1
            wait = backoff(tries, failure.retry_after)
            if exhausted(failure.retry, tries) or time.monotonic() + wait > give_up_at:
                raise failure.error from None
            if tries == 1:
                log.warning("%s; retrying", failure.error)
        time.sleep(wait)


class Clock:
    """The time in seconds (``time.monotonic``) and sleep; tests replace it."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
