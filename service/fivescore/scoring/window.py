"""How much of what waits is tokenised and in the engine: enough that it never runs dry, not all.

Token ids of a pair that waits take tens of times the memory of its text, in this process and in the
engine's; and what is in the engine is in the way of what comes later, whatever its priority.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

LEAST, STEPS = 512, 2
"""Sequences of an engine with small steps, and steps of one with large ones."""


class Window:
    """Lets chunks of large requests in while the engine has fewer than ``limit`` sequences."""

    def __init__(self) -> None:
        self.limit = LEAST
        self.inside = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def fit(self, step_sequences: int) -> None:
        """Take the limit from the engine's step size."""
        self.limit = max(LEAST, STEPS * step_sequences)

    def room(self, sequences: int, priority: int | None = None) -> Room:
        """Room for a chunk, taken when the ``async with`` is entered.

        With a ``priority`` it waits for the room, and the lowest number goes first. Without one it
        does not wait: a request's first few sequences need not wait for those of others.
        """
        return Room(self, sequences, priority)

    async def _enter(self, sequences: int, priority: int) -> None:
        if not self._waiting and self.inside < self.limit:
            self.inside += sequences
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), sequences, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was let in at that very moment
                self.leave(sequences)
            raise

    def leave(self, sequences: int = 1) -> None:
        """Give back the room of so many sequences, and let in whoever waits for it."""
        self.inside -= sequences
        while self._waiting and self.inside < self.limit:
            _, _, entering, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self.inside += entering


class Room:
    """One chunk's places in the window; those that no sequence has taken over are given back."""

    __slots__ = ("_places", "_priority", "_window")

    def __init__(self, window: Window, places: int, priority: int | None) -> None:
        self._window = window
        self._places = places
        self._priority = priority

    async def __aenter__(self) -> Room:
        if self._priority is None:
            self._window.inside += self._places
        else:
            await self._window._enter(self._places, self._priority)
        return self

    def hand_over(self) -> None:
        """A sequence takes one place with it into the engine; ``Window.leave`` gives it back.

        A chunk may hand over more places than it has: of a pair that is submitted twice.
        """
        self._places -= 1

    async def __aexit__(self, *error: object) -> None:
        self._window.leave(self._places)
