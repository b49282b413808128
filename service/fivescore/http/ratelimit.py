"""How many pairs per second each key may send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from fivescore.errors import RateLimited

BURST_SECONDS = 60.0
"""How much unused rate a key saves up: a trainer sends a whole step at once, then pauses."""


class RateLimit:
    """One token bucket per key, and one for all requests without a key.

    A bucket holds ``BURST_SECONDS`` of the rate. A request is let in unless the bucket is
    overdrawn, and may then overdraw it by all its pairs: no request is too large to be served,
    large ones do not starve, and in the long run no key gets more than its rate.

    Args:
        pairs_per_second: the rate of each key; None limits nothing.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, pairs_per_second: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = pairs_per_second
        self._clock = clock
        self._paid_until: dict[bytes | None, float] = {}
        """The time at which each bucket is no longer overdrawn; full buckets are absent."""

    def take(self, holder: bytes | None, pairs: int) -> None:
        """Take ``pairs`` out of a key's bucket.

        Raises:
            RateLimited: the bucket is overdrawn; ``retry_after`` says for how long.
        """
        if self._rate is None or not pairs:
            return
        now = self._clock()
        full = now - BURST_SECONDS
        self._paid_until = {one: until for one, until in self._paid_until.items() if until > full}
        even = self._paid_until.get(holder, full)
        if even > now:
            seconds = math.ceil(even - now)
            raise RateLimited(
                f"this key has sent more than {self._rate:g} pairs per second"
                f" (key_pairs_per_second): retry these {pairs} pairs after {seconds} s",
                retry_after=seconds,
                limit=self._rate,
            )
        self._paid_until[holder] = even + pairs / self._rate

    def give_back(self, holder: bytes | None, pairs: int) -> None:
        """Put back the pairs of a request that was not served."""
        if self._rate is not None and holder in self._paid_until:
            self._paid_until[holder] -= pairs / self._rate
