"""How many pairs a second each key may send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from starlette.requests import Request

from fivescore.errors import (
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    RateLimited,
    ServiceUnavailable,
    TooManyPairs,
)
from fivescore.http.auth import holder_of
from fivescore.http.context import trace_of
from fivescore.http.disconnect import until_gone
from fivescore.http.health import scorer_of
from fivescore.scoring.scorer import Options
from fivescore.types import Pair, Score

BURST_SECONDS = 60.0
"""How much unused rate a key saves up: a step's rollouts come at once, after a time of none."""


class RateLimit:
    """One bucket a key, of ``BURST_SECONDS`` of its rate; one for all who come without a key.

    A bucket that is not overdrawn lets any request in, which may overdraw it by its own pairs: no
    request is too large ever to be served, none is passed over for smaller ones, and in the long
    run no key gets more than its rate.

    Args:
        pairs_per_second: of each key; None limits nothing.
        clock: seconds, never going back.
    """

    def __init__(
        self, pairs_per_second: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = pairs_per_second
        self._clock = clock
        self._paid_until: dict[bytes | None, float] = {}
        """When a bucket is even again; one that is full is not in here."""

    def take(self, holder: bytes | None, pairs: int) -> None:
        """Take ``pairs`` out of a bucket.

        Raises:
            RateLimited: it is overdrawn; says when it no longer will be.
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
                f"more than {self._rate:g} pairs a second came with this key"
                f" (key_pairs_per_second): send these {pairs} again in {seconds} s",
                retry_after=seconds,
                limit=self._rate,
            )
        self._paid_until[holder] = even + pairs / self._rate

    def give_back(self, holder: bytes | None, pairs: int) -> None:
        """Put back what a request took that was not served."""
        if self._rate is not None and holder in self._paid_until:
            self._paid_until[holder] -= pairs / self._rate


async def score_within_rate(
    request: Request, pairs: Sequence[Pair | InvalidPair], options: Options
) -> list[Score | FivescoreError]:
    """Score a request's pairs within its key's rate, for as long as its client is there.

    Raises:
        RateLimited: the key's pairs come too fast.
        FivescoreError: what ``Scorer.score`` and ``until_gone`` raise.
    """
    scorer, rate = scorer_of(request), request.app.state.rate_limit
    holder = holder_of(request.scope)
    try:
        rate.take(holder, len(pairs))
    except RateLimited as error:
        scorer.service.metrics.rejections.labels(error.code).inc()
        scorer.service.metrics.pairs.labels(error.code).inc(len(pairs))
        raise
    try:
        return await until_gone(request, scorer.score(pairs, options, trace_of(request.scope)))
    except (ServiceUnavailable, InvalidRequest, TooManyPairs):
        rate.give_back(holder, len(pairs))
        raise
