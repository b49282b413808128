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
OTHERS = 8
"""One request counts as a limit less an eighth of it at most: alone, none keeps all others out."""
HALF_LIFE_SECONDS = 10.0
"""Seconds after which a measurement of the drain rate counts half."""


class Admission:
    """Counts the pairs and tokens in flight, and refuses requests at the limits.

    A request that finds nothing in flight is always admitted, so that the limits never exclude one
    that ``max_pairs`` allows. While it is answered it leaves others an eighth of each limit.
    Since a text's tokens are estimated until it is tokenised, those in flight may pass
    ``token_limit``.
    """

    def __init__(self, limit: int | None = None, token_limit: int | None = None) -> None:
        self._given = limit, token_limit
        self.limit = limit or 0
        self.token_limit = token_limit or 0
        self.inflight = 0
        self.tokens = 0
        self.expected = 0
        """Estimated tokens of the texts that are not tokenised yet."""
        self._counted = self._counted_tokens = 0
        """Pairs and tokens in flight, each request's at most its share."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._rate = 0.0
        self._measured = time.monotonic()

    def fit(self, info: ModelInfo) -> None:
        """Derive the limits that were not given from the engine's step."""
        limit, token_limit = self._given
        self.limit = limit or STEPS_OF_SEQUENCES * info.ranks * info.step_sequences
        self.token_limit = token_limit or STEPS_OF_TOKENS * info.ranks * info.step_tokens

    @contextmanager
    def admit(self, pairs: int, expected: int = 0) -> Iterator[Admitted]:
        """Hold room for pairs and tokens while the body runs.

        Args:
            expected: the estimated tokens of the pairs, which are not tokenised yet.

        Raises:
            Overloaded: there is no room; ``retry_after`` follows from the measured drain rate.
        """
        self._check_room(pairs, expected)
        admitted = Admitted(self)
        counted = min(pairs, self.limit - self.limit // OTHERS)
        self.inflight += pairs
        self._counted += counted
        admitted.expect(expected)
        self.idle.clear()
        try:
            yield admitted
        finally:
            self.inflight -= pairs
            self._counted -= counted
            admitted.add_tokens(-admitted.tokens, admitted.expected)
            if not self.inflight:
                self.idle.set()
            self._drained(pairs)

    def count(self, admitted: Admitted, tokens: int, expected: int) -> None:
        """Add a request's tokens, known and expected, to those in flight."""
        share = self.token_limit - self.token_limit // OTHERS
        before = min(admitted.tokens + admitted.expected, share)
        admitted.tokens, admitted.expected = admitted.tokens + tokens, admitted.expected + expected
        self.tokens, self.expected = self.tokens + tokens, self.expected + expected
        self._counted_tokens += min(admitted.tokens + admitted.expected, share) - before

    def _check_room(self, pairs: int, expected: int) -> None:
        seconds = self._retry_after()
        if self.inflight and self._counted + pairs > self.limit:
            raise Overloaded(
                f"{self.inflight} pairs are in flight and {pairs} more would pass the limit of"
                f" {self.limit} (max_inflight_pairs): retry after {seconds} seconds",
                retry_after=seconds,
                reason="pairs",
                limit=self.limit,
            )
        counted = self._counted_tokens
        if counted >= self.token_limit or (counted and counted + expected > self.token_limit):
            raise Overloaded(
                f"{self.tokens + self.expected} tokens are in flight and about {expected} more"
                f" would pass the limit of {self.token_limit} (max_inflight_tokens): retry after"
                f" {seconds} seconds",
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
        self._admission.count(self, 0, tokens)

    def add_tokens(self, tokens: int, expected: int = 0) -> None:
        """Add a sequence's tokens; they replace the ``expected`` ones of its text."""
        self._admission.count(self, tokens, -expected)
