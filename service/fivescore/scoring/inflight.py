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
    """One sequence on its way through the engine, and the number of pairs that wait for it.

    It may be in the engine more than once, under different priorities: the first answer counts.
    """

    __slots__ = ("answer", "key", "priority", "tasks", "waiters")

    def __init__(self, key: bytes, answer: asyncio.Future[Output]) -> None:
        self.key = key
        self.answer = answer
        self.tasks: list[asyncio.Task[Output]] = []
        self.priority = 0
        self.waiters = 0

    async def wait(self) -> Output:
        """The engine's answer. Cancelling one waiter does not disturb the others.

        Raises:
            EngineError, EngineDead: as the engine's ``encode``.
        """
        return self.answer.result() if self.answer.done() else await asyncio.shield(self.answer)

    def abort(self) -> None:
        """Stop all of its work in the engine that has not ended."""
        for task in self.tasks:
            task.cancel()


class Flights:
    """The sequences in flight, by their token ids.

    Args:
        encode: the engine's.
        landed: called once per submission that is out of the engine, answered or not.
    """

    def __init__(self, encode: Encode, landed: Callable[[], object] = lambda: None) -> None:
        self._encode = encode
        self._on_landed = landed
        self._flights: dict[bytes, Flight] = {}

    def group(self) -> Group:
        """The flights of one request: a ``with`` that leaves at its end all that it joined."""
        return Group(self)

    def join(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
        submitting: Callable[[], object] = lambda: None,
    ) -> Flight:
        """Submit a sequence, or wait with those who submitted the same one.

        A sequence that is in flight with a worse priority is submitted again with this one, since
        an engine cannot change the priority of what it has. ``submitting`` is called per
        submission, before it.
        """
        key = digest(token_ids)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key, asyncio.get_running_loop().create_future())
        elif flight.answer.done() or flight.priority <= priority:
            flight.waiters += 1
            return flight
        submitting()
        flight.waiters += 1
        flight.priority = priority
        task = asyncio.create_task(self._encode(token_ids, request_id, trace_headers, priority))
        flight.tasks.append(task)
        task.add_done_callback(lambda task: self._landed(flight, task))
        return flight

    def leave(self, flight: Flight) -> None:
        """Stop waiting; the last to leave an unfinished flight aborts it in the engine."""
        flight.waiters -= 1
        if flight.waiters == 0:
            self._forget(flight)
            flight.abort()

    def _landed(self, flight: Flight, task: asyncio.Task[Output]) -> None:
        self._on_landed()
        flight.tasks.remove(task)
        error = None if task.cancelled() else task.exception()  # so that it counts as retrieved
        if flight.answer.done():
            return
        if task.cancelled():
            if not flight.tasks:
                self._forget(flight)
                flight.answer.cancel()
            return
        # An answer can be shared until the last waiter has left: a request's own later chunks may
        # have the same pair. A failure is not shared with those who come later.
        if error is None:
            flight.answer.set_result(task.result())
        else:
            self._forget(flight)
            flight.answer.set_exception(error)
            flight.answer.exception()  # retrieved, even where nobody waits any more
        flight.abort()

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


class Group:
    """The flights that one request has joined."""

    __slots__ = ("_flights", "_joined")

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._joined: list[Flight] = []

    def join(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers,
        priority: int,
        submitting: Callable[[], object],
    ) -> Flight:
        """As ``Flights.join``; the group leaves it at its end."""
        flight = self._flights.join(token_ids, request_id, trace_headers, priority, submitting)
        self._joined.append(flight)
        return flight

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        for flight in self._joined:
            self._flights.leave(flight)
