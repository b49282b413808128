"""Bounds how many sequences are tokenised and in the engine: enough to keep it busy, not all.

The token ids of a waiting pair take tens of times the memory of its text, in this process and in
the engine's; and sequences that are in the engine delay whatever comes later, at any priority.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

LEAST, STEPS = 512, 2
"""The window in sequences where the engine's steps are small, and in steps where they are large."""


class Window:
    """Lets chunks of large requests in while the engine has fewer than ``limit`` sequences."""

    def __init__(self) -> None:
        self.limit = LEAST
        self.inside = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def fit(self, step_sequences: int) -> None:
        """Derive the limit from the engine's step, in sequences."""
        self.limit = max(LEAST, STEPS * step_sequences)

    def room(self, sequences: int, priority: int | None = None) -> Room:
        """Room for a chunk: an ``async with`` that takes it.

        With a ``priority`` it waits until there is room, and the lowest number goes first. Without
        one it does not wait: a request's first few sequences need not wait for those of others.
        """
        return Room(self, sequences, priority)

    async def enter(self, sequences: int, priority: int) -> None:
        """Wait for room and take it; ``leave`` gives it back."""
        await asyncio.sleep(0)  # the request's last chunk goes to the engine, others have a turn
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
        """Give back the room of so many sequences, and let in the chunks that it is enough for."""
        self.inside -= sequences
        while self._waiting and self.inside < self.limit:
            _, _, entering, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self.inside += entering


class Room:
    """A chunk's places in the window. Those that no sequence has taken over are given back."""

    __slots__ = ("_places", "_priority", "_window")

    def __init__(self, window: Window, places: int, priority: int | None) -> None:
        self._window = window
        self._places = places
        self._priority = priority

    async def __aenter__(self) -> Room:
        if self._priority is None:
            self._window.inside += self._places
        else:
            await self._window.enter(self._places, self._priority)
        return self

    def hand_over(self) -> None:
        """Leave one place to a sequence that goes to the engine; ``Window.leave`` gives it back."""
        self._places -= 1

    async def __aexit__(self, *error: object) -> None:
        self._window.leave(self._places)
