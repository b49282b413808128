"""Identical sequences that are in flight at the same time are computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fivescore.model.token_ids import digest
from fivescore.types import Output

Headers = Mapping[str, str] | None
Encode = Callable[[list[int], str, Headers, int, int], Coroutine[Any, Any, Output]]


class Flight:
    """One sequence on its way through the engine, and the number of pairs that wait for it.

    It may be in the engine several times, under different priorities: the first answer counts.
    """

    __slots__ = ("_waiting", "error", "key", "landed", "output", "priority", "tasks", "waiters")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.tasks: list[asyncio.Task[Output]] = []
        self.priority = 0
        self.waiters = 0
        self.landed = False
        """Whether there is an output or an error."""
        self.output: Output | None = None
        self.error: BaseException | None = None
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    async def wait(self) -> Output:
        """The engine's answer. Cancelling one waiter does not affect the others.

        Raises:
            EngineError, EngineDead: as the engine's ``encode``.
        """
        if not self.landed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting += (waiter,)
            await waiter
        if self.error is not None:
            raise self.error
        assert self.output is not None
        return self.output

    def land(self, output: Output | None, error: BaseException | None) -> None:
        """Give all waiters the first answer or error, and abort what is still in the engine."""
        self.landed, self.output, self.error = True, output, error
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        for task in self.tasks:
            task.cancel()


class Flights:
    """The sequences in flight, by the digest of their token ids.

    Args:
        encode: the service's method.
        on_landed: called once per submission when it is out of the engine, answered or not.
    """

    def __init__(self, encode: Encode, on_landed: Callable[[], object] = lambda: None) -> None:
        self._encode = encode
        self._on_landed = on_landed
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
        prefix: int = 0,
        on_submit: Callable[[], object] = lambda: None,
    ) -> Flight:
        """Submit a sequence, or wait together with those who submitted the same one.

        An engine cannot change the priority of a sequence that it has. One that is in flight with
        a worse priority is therefore submitted again with this one. ``on_submit`` is called
        before a submission, and not where there is none.
        """
        key = digest(token_ids)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key)
        elif flight.landed or flight.priority <= priority:
            flight.waiters += 1
            return flight
        on_submit()
        flight.waiters += 1
        flight.priority = priority
        task = asyncio.create_task(
            self._encode(token_ids, request_id, trace_headers, priority, prefix)
        )
        flight.tasks.append(task)
        task.add_done_callback(lambda task: self._ended(flight, task))
        return flight

    def leave(self, flight: Flight) -> None:
        """Stop waiting; the last one to leave an unfinished flight aborts it in the engine."""
        flight.waiters -= 1
        if flight.waiters == 0:
            self._forget(flight)
            for task in flight.tasks:
                task.cancel()

    def _ended(self, flight: Flight, task: asyncio.Task[Output]) -> None:
        self._on_landed()
        flight.tasks.remove(task)
        cancelled = task.cancelled()
        error = asyncio.CancelledError() if cancelled else task.exception()
        if flight.landed or (cancelled and flight.tasks):
            return
        # An answer can be shared until the last waiter has left: later chunks of a request may
        # have the same pair. A failure is not shared with requests that arrive after it.
        if error is None:
            flight.land(task.result(), None)
        else:
            self._forget(flight)
            flight.land(None, error)

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
        prefix: int,
        on_submit: Callable[[], object],
    ) -> Flight:
        """As ``Flights.join``; the group leaves the flight at its end."""
        flight = self._flights.join(
            token_ids, request_id, trace_headers, priority, prefix, on_submit
        )
        self._joined.append(flight)
        return flight

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        for flight in self._joined:
            self._flights.leave(flight)
