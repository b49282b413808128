"""Bounds the pairs and tokens in flight. Nothing queues here: the engine has the queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fivescore.errors import Overloaded
from fivescore.types import ModelInfo

RETRY_SECONDS = (1, 30)
"""The least and the most seconds that Retry-After advises."""
STEPS_OF_SEQUENCES, STEPS_OF_TOKENS = 512, 32768
"""The default limits, in engine steps; they are large, since trainers send in bursts and wait."""
HALF_LIFE_SECONDS = 10.0
"""Seconds after which a measurement of the drain rate counts half."""


class Admission:
    """Counts the pairs and tokens in flight, and refuses requests at the limits.

    A request that finds nothing in flight is always admitted, so that the limits never exclude one
    that ``max_pairs`` allows. Since a text's tokens are estimated until it is tokenised, a request
    is refused when those of the others reach ``token_limit``; its own may then pass the limit.
    """

    def __init__(self, limit: int | None = None, token_limit: int | None = None) -> None:
        self._given = limit, token_limit
        self.limit = limit or 0
        self.token_limit = token_limit or 0
        self.inflight = 0
        self.tokens = 0
        self.expected = 0
        """Estimated tokens of the texts that are not tokenised yet."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._rate = 0.0
        self._measured = time.monotonic()

    def fit(self, info: ModelInfo) -> None:
        """Derive the limits that were not given from the engine's step."""
        limit, token_limit = self._given
        self.limit = limit or STEPS_OF_SEQUENCES * info.step_sequences
        self.token_limit = token_limit or STEPS_OF_TOKENS * info.step_tokens

    @contextmanager
    def admit(self, pairs: int) -> Iterator[Admitted]:
        """Hold room for ``pairs``, and for the tokens that are added, while the body runs.

        Raises:
            Overloaded: there is no room; ``retry_after`` follows from the measured drain rate.
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
        seconds = self._retry_after()
        if self.inflight and self.inflight + pairs > self.limit:
            raise Overloaded(
                f"{self.inflight} pairs are in flight and {pairs} more would pass the limit of"
                f" {self.limit} (max_inflight_pairs): retry after {seconds} seconds",
                retry_after=seconds,
                reason="pairs",
                limit=self.limit,
            )
        if (tokens := self.tokens + self.expected) >= self.token_limit:
            raise Overloaded(
                f"{tokens} tokens are in flight, the limit is {self.token_limit}"
                f" (max_inflight_tokens): retry after {seconds} seconds",
                retry_after=seconds,
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
    """One request's room. Tokens are added when they are known, and given back with the room."""

    __slots__ = ("_admission", "expected", "tokens")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.tokens = 0
        self.expected = 0

    def expect(self, tokens: int) -> None:
        """Add the estimated tokens of texts that are not tokenised yet."""
        self.expected += tokens
        self._admission.expected += tokens

    def add_tokens(self, tokens: int, expected: int = 0) -> None:
        """Add a sequence's tokens; they replace the ``expected`` ones of its text."""
        self.expect(-expected)
        self.tokens += tokens
        self._admission.tokens += tokens
