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

    def pass_by(self, sequences: int) -> None:
        """Go in without waiting: the first few of a request, which must not wait for others'."""
        self.inside += sequences

    async def enter(self, sequences: int, priority: int) -> None:
        """Wait until there is room; of those that wait, the lowest ``priority`` goes first."""
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
        """So many are answered, or were never submitted."""
        self.inside -= sequences
        while self._waiting and self.inside < self.limit:
            _, _, entering, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self.inside += entering
