"""Is there room? Bounds the pairs and tokens in flight; the engine's queue is the queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fivescore.errors import Overloaded
from fivescore.types import ModelInfo

RETRY_SECONDS = (1, 30)
"""Bounds of the advice in Retry-After."""
STEPS_OF_SEQUENCES, STEPS_OF_TOKENS = 512, 32768
"""Steps of the engine that the default limits hold: trainers send in bursts, and wait."""
HALF_LIFE_SECONDS = 10.0
"""How fast the measured drain rate forgets."""


class Admission:
    """Counts the pairs and tokens in flight and refuses what would pass a limit.

    A request that finds nothing in flight is always admitted, so that no limit can lock out a
    request that the other limits allow. A text's tokens are only known once it is tokenised, and
    are estimated until then: a request is refused while those of others reach ``token_limit``, and
    its own come on top.
    """

    def __init__(self, limit: int | None = None, token_limit: int | None = None) -> None:
        self._given = limit, token_limit
        self.limit = limit or 0
        self.token_limit = token_limit or 0
        self.inflight = 0
        self.tokens = 0
        self.expected = 0
        """Tokens of texts that are not tokenised yet, by estimate."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._rate = 0.0
        self._measured = time.monotonic()

    def fit(self, info: ModelInfo) -> None:
        """Take the limits that were not given from the engine's capacity."""
        limit, token_limit = self._given
        self.limit = limit or STEPS_OF_SEQUENCES * info.step_sequences
        self.token_limit = token_limit or STEPS_OF_TOKENS * info.step_tokens

    @contextmanager
    def admit(self, pairs: int) -> Iterator[Admitted]:
        """Hold room for ``pairs`` while the body runs, and for the tokens that it counts.

        Raises:
            Overloaded: there is no room; says when to come again, from the measured drain rate.
        """
        self._check_room(pairs)
        admitted = Admitted(self)
        self.inflight += pairs
        self.idle.clear()
        try:
            yield admitted
        finally:
            self.inflight -= pairs
            self.tokens -= admitted.tokens
            self.expected -= admitted.expected
            if not self.inflight:
                self.idle.set()
            self._drained(pairs)

    def _check_room(self, pairs: int) -> None:
        if self.inflight and self.inflight + pairs > self.limit:
            raise Overloaded(
                f"{self.inflight} pairs are in flight and the limit is {self.limit}"
                f" (max_inflight_pairs): send these {pairs} again later",
                retry_after=self._retry_after(),
                reason="pairs",
                limit=self.limit,
            )
        if (tokens := self.tokens + self.expected) >= self.token_limit:
            raise Overloaded(
                f"{tokens} tokens are in flight and the limit is {self.token_limit}"
                f" (max_inflight_tokens): send these {pairs} pairs again later",
                retry_after=self._retry_after(),
                reason="tokens",
                limit=self.token_limit,
            )

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


class Admitted:
    """A request's room; its tokens are added as they become known, and leave with it."""

    __slots__ = ("_admission", "expected", "tokens")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.tokens = 0
        self.expected = 0

    def expect(self, tokens: int) -> None:
        """Count what its texts may have, until they are tokenised."""
        self.expected += tokens
        self._admission.expected += tokens

    def add_tokens(self, tokens: int, expected: int = 0) -> None:
        """Count the tokens of one of its sequences, of which so many were expected."""
        self.expect(-expected)
        self.tokens += tokens
        self._admission.tokens += tokens
