"""Requests the scores that a store lacks, and stores each as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from tqdm import tqdm

from fivescore.client.errors import Unreachable
from fivescore.errors import (
    DeadlineExceeded,
    FivescoreError,
    RequestError,
    ScoringError,
    ServiceUnavailable,
)
from fivescore.evaluation.store import Failure, Result, Store
from fivescore.types import Score

Truncate = Literal["never", "prompt_start"]
MOST_UNAVAILABLE = 3
"""Requests in a row that fail because the server is unavailable, after which a run stops."""
_UNAVAILABLE = (Unreachable, ServiceUnavailable, DeadlineExceeded)


class Client(Protocol):
    """The part of ``AsyncRewardClient`` that is used here."""

    async def score(
        self,
        pairs: Sequence[dict[str, Any]],
        *,
        truncate: Truncate,
        errors: Literal["return"],
    ) -> Sequence[Score | FivescoreError]: ...


class Requests:
    """Sends pairs in batches and stores the results.

    A server that becomes unavailable leaves pairs unscored, for the next run; ``unavailable`` is
    its last error. A request that fails in another way is sent again pair by pair, so that no pair
    fails because of its neighbours.
    """

    def __init__(
        self, client: Client, store: Store, truncate: Truncate, batch_size: int, bar: tqdm[Any]
    ) -> None:
        self._client, self._store, self._truncate = client, store, truncate
        self._batch_size, self._bar = batch_size, bar
        self._pairs: Mapping[str, dict[str, Any]] = {}
        self._queue: deque[list[str]] = deque()
        self._failures_in_a_row = 0
        self.unavailable: FivescoreError | None = None

    async def run(self, pairs: Mapping[str, dict[str, Any]], concurrency: int) -> None:
        """Score ``{key: pair}``, ``concurrency`` requests at a time.

        Raises:
            RequestError: every request would fail, for example because of a wrong key.
        """
        keys, size = list(pairs), self._batch_size
        self._pairs = pairs
        self._queue.extend(keys[start : start + size] for start in range(0, len(keys), size))
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(self._queue))):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while self._queue and self._failures_in_a_row < MOST_UNAVAILABLE:
            keys = self._queue.popleft()
            results = await self._client.score(
                [self._pairs[key] for key in keys], truncate=self._truncate, errors="return"
            )
            self._settle(dict(zip(keys, results, strict=True)))

    def _settle(self, results: Mapping[str, Score | FivescoreError]) -> None:
        final: dict[str, Result] = {}
        temporary: dict[str, Result] = {}
        unavailable = []
        for key, result in results.items():
            if isinstance(result, Score):
                final[key] = result
            elif isinstance(result, _UNAVAILABLE):
                unavailable.append(result)
            elif isinstance(result, RequestError):  # the same pair will be refused again
                final[key] = Failure(result.code, result.detail)
            elif isinstance(result, ScoringError) or len(results) == 1:
                temporary[key] = Failure(result.code, result.detail)
            else:
                self._queue.append([key])
        self._store.add(final)
        self._store.add_temporary(temporary)
        self._bar.update(len(final) + len(temporary))
        self.unavailable = unavailable[0] if unavailable else self.unavailable
        all_failed = len(unavailable) == len(results)
        self._failures_in_a_row = self._failures_in_a_row + 1 if all_failed else 0
