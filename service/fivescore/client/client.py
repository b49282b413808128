"""Clients of running servers: they send pairs and return scores in the same order."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal, Self, overload

import httpx
from tqdm import tqdm

from fivescore.client.batches import encoded_options
from fivescore.client.call import Call, Limits, Pool
from fivescore.client.defaults import BATCH_SIZE, CONCURRENCY, MOST_PRIORITY, RETRY_SECONDS
from fivescore.client.exchange import connect
from fivescore.client.loop import LoopThread
from fivescore.client.replicas import Replicas, addresses
from fivescore.client.retry import Clock
from fivescore.client.rows import Pairs, rows_of
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.types import Score

Truncate = Literal["never", "prompt_start"]
Errors = Literal["raise", "none", "return"]

# Shared by all clients: reading the certificates takes longer than scoring a pair.
_tls = functools.cache(httpx.create_ssl_context)


class AsyncRewardClient:
    """Scores pairs on one or more running fivescore servers.

    ``async with`` keeps its connections open; outside of it every call opens its own. It can be
    used in any event loop and can be pickled.

    Args:
        urls: address or addresses of replicas; one string may hold several, separated by commas
            [FIVESCORE_URL, else http://127.0.0.1:8000]. ``http://user:KEY@host`` includes a key.
        api_key: the servers' key [the first of FIVESCORE_API_KEY].
        batch_size: pairs per request; a request that the server finds too large is halved.
        concurrency: concurrent requests.
        deadline_seconds: time limit of one request with all its tries and waits; 0 tries every
            replica once.
        timeout_seconds: time limit of one try; with several replicas choose less than the
            deadline, so that another one can replace one that hangs.
        priority: which requests the server runs first, from -1000 to 1000: lower numbers do.
        transport: httpx's transport, if not the usual one; it cannot be pickled.
        clock: replaced in tests.

    Raises:
        ConfigurationError: an argument is out of range, or an address is not a server's.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        deadline_seconds: float = RETRY_SECONDS,
        timeout_seconds: float = RETRY_SECONDS,
        priority: int = 0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        if min(batch_size, concurrency) < 1:
            raise ConfigurationError(
                f"batch_size {batch_size}, concurrency {concurrency}: both must be at least 1"
            )
        if not (deadline_seconds >= 0 and timeout_seconds > 0):
            raise ConfigurationError(
                f"deadline_seconds {deadline_seconds} must be at least 0, timeout_seconds"
                f" {timeout_seconds} above 0"
            )
        if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
            raise ConfigurationError(
                f"priority {priority} must be from {-MOST_PRIORITY} to {MOST_PRIORITY}"
            )
        self._limits = Limits(batch_size, concurrency, deadline_seconds, timeout_seconds)
        self._addresses = addresses(urls, api_key)
        self._priority = priority
        self._transport = transport
        self._clock = clock or Clock()
        self._start()

    def _start(self) -> None:
        self._replicas = Replicas(self._addresses, self._priority)
        self._pool: Pool | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The replicas' times are this process's clock, and the pool belongs to this event loop.
        fresh = ("_replicas", "_pool")
        return {name: value for name, value in vars(self).items() if name not in fresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(address.url for address in self._addresses)})"

    async def __aenter__(self) -> Self:
        self._pool = self._new_pool()
        return self

    async def __aexit__(self, *exception: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.connections.aclose()

    def _new_pool(self) -> Pool:
        # ``slots`` bounds the wait for a connection, and each try has its own timeout.
        connections = connect(self._limits.concurrency, _tls(), self._transport)
        slots = asyncio.Semaphore(self._limits.concurrency)
        return Pool(connections, slots, asyncio.get_running_loop())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Pool]:
        if self._pool is not None and self._pool.loop is asyncio.get_running_loop():
            yield self._pool
            return
        pool = self._new_pool()
        async with aclosing(pool.connections):
            yield pool

    @overload
    async def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["raise"] = "raise", progress: bool = False,
    ) -> list[Score]: ...  # fmt: skip
    @overload
    async def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["none"], progress: bool = False,
    ) -> list[Score | None]: ...  # fmt: skip
    @overload
    async def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["return"], progress: bool = False,
    ) -> list[Score | FivescoreError]: ...  # fmt: skip
    async def score(
        self,
        pairs: Pairs,
        *,
        weights: Mapping[str, float] | None = None,
        principle: str | None = None,
        truncate: Truncate = "never",
        errors: Errors = "raise",
        progress: bool = False,
    ) -> Sequence[Score | FivescoreError | None]:
        """One score per pair, in the order of the pairs.

        Args:
            pairs: an iterable of (prompt, response), of dicts as ``POST /score`` takes them, or of
                rows with the columns of common data sets (``messages``, ``instruction`` and
                ``output``, ...); one dict; a dict of columns; or a pandas, polars or Arrow table.
                What else a row has, such as an id, is not sent; ``scores_to_frame`` keeps it.
            weights: ``{attribute: weight}`` of the combined reward, instead of the manifest's.
            principle: what pairs are judged by that have none of their own, such as
                ``correctness``, where the model is asked about one.
            truncate: ``prompt_start`` drops the oldest tokens of a pair that is too long.
            errors: what to do with a pair that failed for good: ``raise`` raises its error at
                once, ``none`` puts None in its place, ``return`` puts the error there.
            progress: show a progress bar.

        Raises:
            RequestError: the key, the address or an option is wrong, so that any pair would fail.
            FivescoreError: with ``errors="raise"``, the first failure: the pair's own, or
                ``Unreachable``, ``BadAnswer`` or the server's when a request has failed for good.
        """
        if errors not in ("raise", "none", "return"):
            raise ConfigurationError(f"errors: {errors!r} must be raise, none or return")
        options = encoded_options(weights=weights, principle=principle, truncate=truncate)
        rows = rows_of(pairs)
        with tqdm(total=len(rows), unit="pair", disable=not progress) as bar:
            async with self._connected() as pool:
                call = Call(
                    pool, self._replicas, self._limits, self._clock, options, errors == "raise", bar
                )
                results = await call.run(rows)
        if errors == "none":
            return [result if isinstance(result, Score) else None for result in results]
        return results


class RewardClient:
    """Scores pairs on one or more running fivescore servers, from any thread.

    Its requests run on a daemon thread that the first call starts, so it works where an event loop
    is running and after a fork. ``close`` or ``with`` ends the thread early. It can be pickled.

    Takes the arguments of ``AsyncRewardClient``, which describes them.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        deadline_seconds: float = RETRY_SECONDS,
        timeout_seconds: float = RETRY_SECONDS,
        priority: int = 0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._core = AsyncRewardClient(
            urls,
            api_key=api_key,
            batch_size=batch_size,
            concurrency=concurrency,
            deadline_seconds=deadline_seconds,
            timeout_seconds=timeout_seconds,
            priority=priority,
            transport=transport,
            clock=clock,
        )
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        _clients.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_core": self._core}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        return repr(self._core).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and close its connections; the next call starts them again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def _running(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread(self._core)
                # Garbage collection may run in that thread, which cannot join itself.
                weakref.finalize(self, self._thread.end).atexit = False
            return self._thread

    def after_fork(self) -> None:
        """Forget the parent's thread in a forked child; called by the interpreter."""
        if self._thread is not None:
            self._thread.abandon()
        self._start()

    @overload
    def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["raise"] = "raise", progress: bool = False,
    ) -> list[Score]: ...  # fmt: skip
    @overload
    def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["none"], progress: bool = False,
    ) -> list[Score | None]: ...  # fmt: skip
    @overload
    def score(
        self, pairs: Pairs, *, weights: Mapping[str, float] | None = None,
        principle: str | None = None, truncate: Truncate = "never",
        errors: Literal["return"], progress: bool = False,
    ) -> list[Score | FivescoreError]: ...  # fmt: skip
    def score(
        self,
        pairs: Pairs,
        *,
        weights: Mapping[str, float] | None = None,
        principle: str | None = None,
        truncate: Truncate = "never",
        errors: Errors = "raise",
        progress: bool = False,
    ) -> Any:
        """``AsyncRewardClient.score``, blocking; an interrupt of the caller cancels it."""
        future = self.submit(
            pairs, weights=weights, principle=principle, truncate=truncate, errors=errors,
            progress=progress,
        )  # fmt: skip
        try:
            return future.result()
        finally:
            future.cancel()

    def submit(
        self,
        pairs: Pairs,
        *,
        weights: Mapping[str, float] | None = None,
        principle: str | None = None,
        truncate: Truncate = "never",
        errors: Errors = "raise",
        progress: bool = False,
    ) -> Future[Any]:
        """``score`` without blocking: returns a future of its result."""
        rows = rows_of(pairs)  # here, as a generator of the caller belongs to its thread
        thread = self._running()
        work = self._core.score(
            rows, weights=weights, principle=principle, truncate=truncate, errors=errors,
            progress=progress,
        )  # fmt: skip
        return thread.submit(work)


_clients: weakref.WeakSet[RewardClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


def _at_exit() -> None:
    for client in list(_clients):
        client.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
