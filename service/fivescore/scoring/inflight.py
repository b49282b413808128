"""Identical sequences in flight are computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fivescore.engine.suspects import digest
from fivescore.types import Output

Headers = Mapping[str, str] | None
Encode = Callable[[list[int], str, Headers, int], Coroutine[Any, Any, Output]]


class Flight:
    """One sequence in the engine and the number of pairs that wait for it."""

    __slots__ = ("key", "task", "waiters")

    def __init__(self, key: bytes, task: asyncio.Task[Output]) -> None:
        self.key = key
        self.task = task
        self.waiters = 1

    async def wait(self) -> Output:
        """The engine's answer. A waiter that is cancelled leaves the others' work alone."""
        return self.task.result() if self.task.done() else await asyncio.shield(self.task)


class Flights:
    """The sequences in flight, by their token ids. Every ``join`` needs its ``leave``.

    Args:
        landed: called once for each that is out of the engine, answered or not.
    """

    def __init__(self, encode: Encode, landed: Callable[[], object] = lambda: None) -> None:
        self._encode = encode
        self._on_landed = landed
        self._flights: dict[bytes, Flight] = {}

    def join(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
    ) -> Flight:
        """Submit a sequence, or wait with those who submitted the same one."""
        key = digest(token_ids)
        flight = self._flights.get(key)
        if flight is not None:
            flight.waiters += 1
            return flight
        work = self._encode(token_ids, request_id, trace_headers, priority)
        flight = Flight(key, asyncio.create_task(work))
        self._flights[key] = flight
        flight.task.add_done_callback(lambda task: self._landed(flight))
        return flight

    def leave(self, flight: Flight) -> None:
        """Stop waiting; the last to leave an unfinished flight aborts it in the engine."""
        flight.waiters -= 1
        if flight.waiters == 0:
            self._forget(flight)
            flight.task.cancel()

    def _landed(self, flight: Flight) -> None:
        self._on_landed()
        # An answer is there to be shared until the last has left: a request's own later chunks may
        # have the same pair.
        if flight.task.cancelled() or flight.task.exception() is not None:
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
