"""Is there room? Bounds the pairs in flight; the engine's queue is the queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fivescore.errors import Overloaded

RETRY_SECONDS = (1, 30)
"""Bounds of the advice in Retry-After."""
HALF_LIFE_SECONDS = 10.0
"""How fast the measured drain rate forgets."""


class Admission:
    """Counts the pairs in flight and refuses what would pass the limit.

    A request that finds nothing in flight is always admitted, so that no limit can lock out a
    request that the other limits allow.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inflight = 0
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._rate = 0.0
        self._measured = time.monotonic()

    @contextmanager
    def admit(self, pairs: int) -> Iterator[None]:
        """Hold room for ``pairs`` while the body runs.

        Raises:
            Overloaded: there is no room; says when to come again, from the measured drain rate.
        """
        if self.inflight and self.inflight + pairs > self.limit:
            raise Overloaded(
                f"{self.inflight} pairs are in flight and the limit is {self.limit}"
                f" (max_inflight_pairs): send these {pairs} again later",
                retry_after=self._retry_after(),
                limit=self.limit,
            )
        self.inflight += pairs
        self.idle.clear()
        try:
            yield
        finally:
            self.inflight -= pairs
            if not self.inflight:
                self.idle.set()
            self._drained(pairs)

    def _drained(self, pairs: int) -> None:
        now = time.monotonic()
        elapsed = max(now - self._measured, 1e-3)
        keep = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
        self._rate = keep * self._rate + (1 - keep) * pairs / elapsed
        self._measured = now

    def _retry_after(self) -> int:
        least, most = RETRY_SECONDS
        if self._rate <= 0:
            return least
        return min(most, max(least, math.ceil(self.inflight / self._rate)))
