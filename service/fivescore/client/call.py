"""One call of ``score()``: sends, retries, moves and splits its requests."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from tqdm import tqdm

from fivescore.client import answers, batches
from fivescore.client.answers import Result
from fivescore.client.errors import Unreachable, at_pair
from fivescore.client.exchange import CONNECT_SECONDS, MOST_BYTES, PAIR_BYTES, Connections
from fivescore.client.replicas import Replica, Replicas
from fivescore.client.retry import Clock, Failure, Retry, backoff, exhausted
from fivescore.client.rows import PairLike
from fivescore.errors import FivescoreError
from fivescore.types import Pair


@dataclass(frozen=True)
class Limits:
    """The limits of a client; ``AsyncRewardClient`` documents each."""

    batch_size: int
    concurrency: int
    deadline_seconds: float
    timeout_seconds: float


@dataclass
class Pool:
    """Connections of one event loop; ``slots`` limits the concurrent requests on them."""

    connections: Connections
    slots: asyncio.Semaphore
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True)
class Batch:
    """The pairs of one request, by their places in the call, and the state of its tries."""

    places: list[int]
    replica: Replica
    retry_seconds: float = 0.0
    """Seconds within which it is retried; with 0 every replica is tried once."""
    give_up_at: float = math.inf
    """Time on the clock, in seconds, of the last retry; infinite before the first try."""
    tries: int = 0
    """Tries to which the server answered with an error of its own."""
    tried: frozenset[str] = frozenset()
    """URLs of the replicas that could not take it since it last waited."""
    failure: FivescoreError | None = None


class Call:
    """Scores one list of pairs.

    Args:
        options: the requests' options, as ``batches.encoded_options`` returns them.
        raising: whether the first failure ends the call.
        bar: advances by one per pair that has a result.
    """

    def __init__(
        self,
        pool: Pool,
        replicas: Replicas,
        limits: Limits,
        clock: Clock,
        options: str,
        raising: bool,
        bar: tqdm[Any],
    ) -> None:
        self._pool, self._replicas, self._limits, self._clock = pool, replicas, limits, clock
        self._options, self._raising, self._bar = options, raising, bar
        self._pairs: dict[int, Pair] = {}
        self._prompts: dict[int, str] = {}
        self._results: dict[int, Result] = {}
        self._queue: deque[Batch] = deque()
        self._gave_up = False

    async def run(self, pairs: Sequence[PairLike]) -> list[Result]:
        """One result per pair, in order.

        Raises:
            FivescoreError: the first failure, if ``raising``; in any case an error that holds for
                every request, such as a wrong key.
        """
        parsed = dict(enumerate(map(batches.checked, pairs)))
        self._pairs = {place: pair for place, pair in parsed.items() if isinstance(pair, Pair)}
        bad = {place: error for place, error in parsed.items() if not isinstance(error, Pair)}
        self._settle(list(bad), list(bad.values()))
        self._prompts = {place: batches.prompt_of(pair) for place, pair in self._pairs.items()}
        self._queue.extend(self._planned())
        workers = [
            asyncio.create_task(self._work())
            for _ in range(min(self._limits.concurrency, len(self._queue)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [self._results[place] for place in range(len(pairs))]

    def _planned(self) -> list[Batch]:
        """Batches in which pairs of one prompt are neighbours, each prompt at its own replica."""
        groups: dict[str, list[int]] = {}
        for place, prompt in self._prompts.items():
            groups.setdefault(prompt, []).append(place)
        at: dict[Replica, list[list[int]]] = {}
        for prompt, places in groups.items():
            at.setdefault(self._replicas.ranked(prompt)[0], []).append(places)
        return [
            Batch(places, replica)
            for replica, its_groups in at.items()
            for places in batches.cut(its_groups, self._limits.batch_size)
        ]

    async def _work(self) -> None:
        while self._queue:
            self._queue.extendleft(reversed(await self._advance(self._queue.popleft())))

    async def _advance(self, batch: Batch) -> list[Batch]:
        """Send a batch, move it or wait; returns the batches that are left of it."""
        now = self._clock.now()
        if batch.give_up_at == math.inf:
            seconds = 0.0 if self._gave_up else self._limits.deadline_seconds
            batch = replace(batch, retry_seconds=seconds, give_up_at=now + seconds)
        if batch.replica.is_up(now) and batch.replica.url not in batch.tried:
            return await self._try(batch, now)
        if moved := self._moved(batch, now):
            return moved
        back_at = self._replicas.back_at()
        if batch.retry_seconds and back_at <= batch.give_up_at:
            await self._clock.sleep(max(0.0, back_at - now))
            return self._moved(replace(batch, tried=frozenset()), self._clock.now()) or [batch]
        if batch.failure is None:  # all replicas failed for other batches, maybe not for this one
            return await self._try(batch, now)
        return self._give_up(batch, batch.failure)

    def _moved(self, batch: Batch, now: float) -> list[Batch]:
        """The batch at its prompts' next replicas; empty when no other replica is up."""
        at: dict[Replica, list[int]] = {}
        for place in batch.places:
            for replica in self._replicas.ranked(self._prompts[place]):
                if replica.is_up(now) and replica.url not in batch.tried:
                    at.setdefault(replica, []).append(place)
                    break
        return [replace(batch, places=places, replica=replica) for replica, places in at.items()]

    async def _try(self, batch: Batch, now: float) -> list[Batch]:
        if batch.failure is not None and batch.retry_seconds and now >= batch.give_up_at:
            return self._give_up(batch, batch.failure)
        started = now
        try:
            async with self._pool.slots:
                started = self._clock.now()
                results = await self._send(batch, batch.give_up_at - started)
        except Failure as failure:
            return await self._failed(batch, failure, started)
        batch.replica.succeed(started)
        self._gave_up = False
        self._settle(batch.places, results)
        return []

    async def _send(self, batch: Batch, left: float) -> list[Result]:
        replica, seconds = batch.replica, self._limits.timeout_seconds
        if (
            left > 0
        ):  # otherwise its deadline passed in the queue, and it is tried once all the same
            seconds = min(seconds, left)
        content = batches.body([self._pairs[place] for place in batch.places], self._options)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._pool.connections.post(
                    f"{replica.url}/score", content, replica.headers, _most_bytes(batch)
                )
        except TimeoutError:
            reason = f"no answer within {seconds:.0f} s"
        except httpx.RequestError as error:
            reason = _said(error)
        else:
            return answers.results(answer, replica.url, len(batch.places))
        raise Failure(Unreachable(f"{replica.url}: {reason}"), Retry.ANOTHER_REPLICA)

    async def _failed(self, batch: Batch, failure: Failure, started: float) -> list[Batch]:
        error, now = failure.error, self._clock.now()
        match failure.retry:
            case Retry.FATAL:
                raise error
            case Retry.SPLIT if len(batch.places) > 1:
                half = len(batch.places) // 2
                return [
                    replace(batch, places=batch.places[:half]),
                    replace(batch, places=batch.places[half:]),
                ]
            case Retry.SPLIT:
                self._settle(batch.places, [error])
                return []
            case Retry.ANOTHER_REPLICA:
                batch.replica.fail(started, now, failure.retry_after)
                self._log(batch, error)
                return [replace(batch, failure=error, tried=batch.tried | {batch.replica.url})]
        return await self._retry_here(batch, failure, now)

    async def _retry_here(self, batch: Batch, failure: Failure, now: float) -> list[Batch]:
        """Wait, for another try at the same replica; give up when no further try is due."""
        tries = batch.tries + 1
        wait = backoff(tries, failure.retry_after)
        enough = exhausted(failure.retry, tries)
        if enough or now + wait > batch.give_up_at:
            return self._give_up(batch, failure.error, timed_out=not enough)
        self._log(batch, failure.error)
        await self._clock.sleep(wait)
        return [replace(batch, tries=tries, failure=failure.error)]

    def _log(self, batch: Batch, error: FivescoreError) -> None:
        if batch.retry_seconds:
            batch.replica.log(error, batch.retry_seconds)

    def _give_up(self, batch: Batch, error: FivescoreError, timed_out: bool = True) -> list[Batch]:
        """Fail the request for good; after one that ``timed_out``, the next ones do not wait."""
        if self._raising:
            raise error
        self._gave_up |= timed_out
        self._settle(batch.places, [error] * len(batch.places))
        return []

    def _settle(self, places: Sequence[int], results: Sequence[Result]) -> None:
        self._results.update(zip(places, results, strict=True))
        self._bar.update(len(places))
        failed = [(place, result) for place, result in zip(places, results, strict=True)
                  if isinstance(result, FivescoreError)]  # fmt: skip
        if failed and self._raising:
            place, error = min(failed, key=lambda one: one[0])
            raise at_pair(error, place, len(failed), len(self._results))


def _said(error: httpx.RequestError) -> str:
    """What the error says, or else what the system said before: httpx keeps no words of that."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    said, cause = str(error), error.__context__
    while cause is not None and not said:
        said = str(cause) if isinstance(cause, OSError) else ""
        cause = cause.__cause__ or cause.__context__
    return said or type(error).__name__


def _most_bytes(batch: Batch) -> int:
    return MOST_BYTES + PAIR_BYTES * len(batch.places)
