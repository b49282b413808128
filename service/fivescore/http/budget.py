"""Bounds the bytes of all bodies together that are being received."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from fivescore.errors import Overloaded

SMALL = 2**16
"""Bytes of a body that may use the part of the limit that larger ones leave."""
OTHERS = 8
"""Bodies larger than ``SMALL`` leave an eighth of the limit."""
RETRY_SECONDS = 1


class Budget:
    """Bytes of bodies, up to a limit.

    When it is reached, the body gives way that has held the most bytes for the longest time: a
    client that sends at once is done before that, and one that drips is not.

    Args:
        refused: called for each body that gives way or finds no room.
    """

    def __init__(self, limit: int, refused: Callable[[], object] = lambda: None) -> None:
        self.limit = limit
        self.held = 0
        self._refused = refused
        self._receiving: set[Lease] = set()

    def lease(self) -> Lease:
        """The room of one body, empty at first: a ``with`` that gives it back."""
        return Lease(self, self._receiving)

    def make_room(self, newest: Lease) -> None:
        """End the receiving of other bodies until the limit is kept.

        Raises:
            Overloaded: ``newest`` itself has to give way.
        """
        limit = self.limit if newest.size <= SMALL else self.limit - self.limit // OTHERS
        while self.held > limit:
            now = time.monotonic()
            loser = max(self._receiving, key=lambda one: (one.size * (now - one.began), one.size))
            if loser is newest:
                raise self.refusal()
            loser.end()

    def refusal(self) -> Overloaded:
        """The error of a body that there is no room for."""
        self._refused()
        return Overloaded(
            f"the bodies that are being received have {self.limit} bytes together"
            f" (max_receiving_bytes): send this one at once, after {RETRY_SECONDS} second",
            retry_after=RETRY_SECONDS,
            reason="bytes",
            limit=self.limit,
        )


class Lease:
    """The room of one body. The task that enters it is cancelled if the body has to give way."""

    def __init__(self, budget: Budget, receiving: set[Lease]) -> None:
        self._budget, self._receiving = budget, receiving
        self._task: asyncio.Task[None] | None = None
        self.size = 0
        self.began = time.monotonic()
        self._ended = False

    def __enter__(self) -> Lease:
        self._task = asyncio.current_task()
        self._receiving.add(self)
        return self

    def grow(self, size: int) -> None:
        """Take room for more bytes.

        Raises:
            Overloaded: there is none.
        """
        self.size += size
        self._budget.held += size
        self._budget.make_room(self)

    def end(self) -> None:
        """Stop the task that receives, and give the room back."""
        self._ended = True
        self._give_back()
        if self._task is not None:
            self._task.cancel()

    def _give_back(self) -> None:
        self._receiving.discard(self)
        self._budget.held -= self.size
        self.size = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the room back.

        Raises:
            Overloaded: another body took the room.
        """
        self._give_back()
        # The shutdown cancels requests too, and its cancellation is not this one's to take.
        if self._ended and self._task is not None and not self._task.uncancel():
            raise self._budget.refusal() from None
