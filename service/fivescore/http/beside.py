"""Work on large bodies, on a thread beside the event loop.

A thread leaves the interpreter to the event loop between two steps of Python, but not within a call
in C. Whatever has the size of a body is therefore done in pieces (``slices``).
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from fivescore.errors import Overloaded
from fivescore.http.budget import RETRY_SECONDS

Result = TypeVar("Result")

SWITCH_SECONDS = 1e-3
"""How long a thread keeps the interpreter that the event loop wants; Python's default is 5 ms, and
an answer needs it several times."""


class Beside:
    """Runs work on one large body at a time, in the order in which they came.

    Several threads would not be faster, as one interpreter runs one at a time.

    Args:
        limit: bytes of the bodies that wait, together.
        refused: called for each body that finds no room.
    """

    def __init__(self, limit: int, refused: Callable[[], object] = lambda: None) -> None:
        self._limit = limit
        self._refused = refused
        self._held = 0
        self._turn = asyncio.Lock()

    async def __call__(self, size: int, work: Callable[[], Result]) -> Result:
        """What ``work`` returns, which needs a body of ``size`` bytes.

        Raises:
            Overloaded: the bodies that wait have too many bytes.
        """
        if self._held and self._held + size > self._limit:
            self._refused()
            raise Overloaded(
                f"the bodies that wait to be read have {self._held} bytes together, the limit is"
                f" {self._limit} (max_receiving_bytes): retry after {RETRY_SECONDS} second",
                retry_after=RETRY_SECONDS,
                reason="bytes",
                limit=self._limit,
            )
        self._held += size
        try:
            async with self._turn:
                return await asyncio.to_thread(_yielding, work)
        finally:
            self._held -= size


def _yielding(work: Callable[[], Result]) -> Result:
    """What ``work`` returns; meanwhile the event loop waits as little as it can.

    Garbage is not looked for: that stops every thread, and millions of new objects are in use.
    """
    collects, seconds = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(min(seconds, SWITCH_SECONDS))
    try:
        return work()
    finally:
        sys.setswitchinterval(seconds)
        if collects:
            gc.enable()


def free_pairs(pairs: list[Any]) -> None:
    """Empty a list of pairs, one by one: each may have thousands of messages."""
    while pairs:
        pairs.pop()
