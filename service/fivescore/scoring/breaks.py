"""Gives the event loop turns in the middle of long work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Breaks:
    """Counts work, and lets the event loop do other things after each ``most`` of it."""

    __slots__ = ("_done", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._done = 0

    async def after(self, work: int) -> None:
        """Add to the work that was done."""
        self._done += work
        if self._done >= self._most:
            self._done = 0
            await asyncio.sleep(0)


@contextmanager
def emptied(entries: list[Any]) -> Iterator[None]:
    """Empty a list at the end, whatever else still holds it."""
    try:
        yield
    finally:
        entries.clear()
