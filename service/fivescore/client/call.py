"""Carries one ``score()`` to its end: requests out, retried, moved and halved, results in order."""

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
from fivescore.client.replicas import Replica, Replicas
from fivescore.client.retry import Clock, Cure, Failure, backoff, exhausted
from fivescore.errors import FivescoreError
from fivescore.types import Pair


@dataclass(frozen=True)
class Limits:
    """``RewardClient`` says what each means."""

    batch_size: int
    concurrency: int
    deadline_seconds: float
    timeout_seconds: float


@dataclass
class Pool:
    """Connections of one event loop; ``slots`` bounds the requests on them."""

    http: httpx.AsyncClient
    slots: asyncio.Semaphore
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True)
class Batch:
    """Pairs of one request, by their places, and what has become of it so far."""

    places: list[int]
    replica: Replica
    patience: float = 0.0
    """Seconds that it may be tried for; with 0 every replica is asked once."""
    give_up_at: float = math.inf
    """By the clock; infinite until it is first looked at."""
    tries: int = 0
    """Tries that the server failed on."""
    asked: frozenset[str] = frozenset()
    """Replicas that could not take it since it last waited."""
    failure: FivescoreError | None = None


class Call:
    """One list of pairs on its way.

    Args:
        options: the request's, as ``batches.encoded_options`` gives them.
        raising: whether the first failure ends the call.
        bar: advances with every pair that is done.
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

    async def run(self, pairs: Sequence[batches.PairLike]) -> list[Result]:
        """One result per pair, in order.

        Raises:
            FivescoreError: the first failure, if ``raising``; what the caller must change, always.
        """
        found = [batches.checked(pair) for pair in pairs]
        self._pairs = {place: pair for place, pair in enumerate(found) if isinstance(pair, Pair)}
        bad = {place: error for place, error in enumerate(found) if not isinstance(error, Pair)}
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
        """Pairs of one prompt side by side, each prompt at its own replica."""
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
        """Bring a batch one step further; returns what is left of it to do."""
        now = self._clock.now()
        if batch.give_up_at == math.inf:
            patience = 0.0 if self._gave_up else self._limits.deadline_seconds
            batch = replace(batch, patience=patience, give_up_at=now + patience)
        if batch.replica.is_up(now) and batch.replica.url not in batch.asked:
            return await self._try(batch, now)
        if moved := self._moved(batch, now):
            return moved
        back_at = self._replicas.back_at()
        if batch.patience and back_at <= batch.give_up_at:
            await self._clock.sleep(max(0.0, back_at - now))
            return self._moved(replace(batch, asked=frozenset()), self._clock.now()) or [batch]
        if batch.failure is None:  # another request found them all away: it may be over
            return await self._try(batch, now)
        return self._give_up(batch, batch.failure)

    def _moved(self, batch: Batch, now: float) -> list[Batch]:
        """The batch at its prompts' next choices; empty when no other replica is there."""
        at: dict[Replica, list[int]] = {}
        for place in batch.places:
            for replica in self._replicas.ranked(self._prompts[place]):
                if replica.is_up(now) and replica.url not in batch.asked:
                    at.setdefault(replica, []).append(place)
                    break
        return [replace(batch, places=places, replica=replica) for replica, places in at.items()]

    async def _try(self, batch: Batch, now: float) -> list[Batch]:
        if batch.failure is not None and batch.patience and now >= batch.give_up_at:
            return self._give_up(batch, batch.failure)
        started = now
        try:
            async with self._pool.slots:
                started = self._clock.now()
                found = await self._ask(batch, batch.give_up_at - started)
        except Failure as failure:
            return await self._failed(batch, failure, started)
        batch.replica.succeed(started)
        self._gave_up = False
        self._settle(batch.places, found)
        return []

    async def _ask(self, batch: Batch, left: float) -> list[Result]:
        replica, seconds = batch.replica, self._limits.timeout_seconds
        if left > 0:  # every batch is tried once, however long it waited for its turn
            seconds = min(seconds, left)
        content = batches.body([self._pairs[place] for place in batch.places], self._options)
        try:
            async with asyncio.timeout(seconds):
                response = await self._pool.http.post(
                    f"{replica.url}/score", content=content, headers=replica.headers
                )
        except TimeoutError:
            reason = f"no answer within {seconds:.0f} s"
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
        else:
            return answers.results(response, replica.url, len(batch.places))
        raise Failure(Unreachable(f"{replica.url}: {reason}"), Cure.ELSEWHERE)

    async def _failed(self, batch: Batch, failure: Failure, started: float) -> list[Batch]:
        error, now = failure.error, self._clock.now()
        match failure.cure:
            case Cure.CALLER:
                raise error
            case Cure.HALVES if len(batch.places) > 1:
                half = len(batch.places) // 2
                return [
                    replace(batch, places=batch.places[:half]),
                    replace(batch, places=batch.places[half:]),
                ]
            case Cure.HALVES:
                self._settle(batch.places, [error])
                return []
            case Cure.ELSEWHERE:
                batch.replica.fail(started, now, failure.advised)
                self._log(batch, error)
                return [replace(batch, failure=error, asked=batch.asked | {batch.replica.url})]
        return await self._again(batch, failure, now)

    async def _again(self, batch: Batch, failure: Failure, now: float) -> list[Batch]:
        """The same request to the same replica a little later, unless it was tried enough."""
        tries = batch.tries + 1
        pause = backoff(tries, failure.advised)
        enough = exhausted(failure.cure, tries)
        if enough or now + pause > batch.give_up_at:
            return self._give_up(batch, failure.error, patient=not enough)
        self._log(batch, failure.error)
        await self._clock.sleep(pause)
        return [replace(batch, tries=tries, failure=failure.error)]

    def _log(self, batch: Batch, error: FivescoreError) -> None:
        if batch.patience:
            batch.replica.log(error, batch.patience)

    def _give_up(self, batch: Batch, error: FivescoreError, patient: bool = True) -> list[Batch]:
        """The request has failed for good; if ``patient``, the ones after it wait no more."""
        if self._raising:
            raise error
        self._gave_up |= patient
        self._settle(batch.places, [error] * len(batch.places))
        return []

    def _settle(self, places: Sequence[int], found: Sequence[Result]) -> None:
        self._results.update(zip(places, found, strict=True))
        self._bar.update(len(places))
        failed = [(place, result) for place, result in zip(places, found, strict=True)
                  if isinstance(result, FivescoreError)]  # fmt: skip
        if failed and self._raising:
            place, error = min(failed, key=lambda one: one[0])
            raise at_pair(error, place, len(failed), len(self._results))
