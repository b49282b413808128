"""Which sequences were in the engine when it died: one that kills it is found and refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from fivescore.errors import EngineError

DEATHS_BEFORE_ALONE = 2
"""Who was present at so many runs alone from then on, so that another death proves something."""
DEATHS_ALONE = 2
"""Who was alone at so many is refused: once may be the machine's fault."""
MOST = 100_000
"""Sequences remembered; the oldest are forgotten first."""


@dataclass(slots=True)
class _Record:
    deaths: int = 0
    alone: int = 0


class Suspects:
    """Counts deaths by sequence. Costs nothing until the engine has died.

    A death blames all that was present, so the innocent are blamed with the guilty. Whoever is
    answered is cleared; who was present twice runs alone; who died alone twice is refused.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._present: dict[int, list[int]] = {}
        self._turns = 0
        self._alone = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._open = asyncio.Event()
        self._open.set()
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        """How many sequences are present."""
        return len(self._present)

    async def enter(self, token_ids: list[int]) -> int:
        """Wait for its turn in the engine; the number that is answered goes to ``leave``.

        Raises:
            EngineError: it stopped the engine before and is refused.
        """
        record = self._records.get(digest(token_ids)) if self._records else None
        if record is not None and record.alone >= DEATHS_ALONE:
            raise EngineError(
                f"this pair stopped the engine {record.alone} times while nothing else was in it,"
                f" and is refused: sha256 {digest(token_ids).hex()}"
            )
        if record is not None and record.deaths >= DEATHS_BEFORE_ALONE:
            await self._clear_the_engine()
            self._alone = self._turns + 1
        else:
            while not self._open.is_set():
                await self._open.wait()
        self._turns += 1
        self._present[self._turns] = token_ids
        self._empty.clear()
        return self._turns

    async def _clear_the_engine(self) -> None:
        await self._one_at_a_time.acquire()
        self._open.clear()
        try:
            await self._empty.wait()
        except BaseException:
            self._reopen()
            raise

    def _reopen(self) -> None:
        self._open.set()
        self._one_at_a_time.release()

    def leave(self, turn: int) -> None:
        """It is out of the engine, answered or not."""
        del self._present[turn]
        if not self._present:
            self._empty.set()
        if turn == self._alone:
            self._reopen()

    def clear(self, token_ids: list[int]) -> None:
        """It was answered: forget what it was suspected of."""
        if self._records:
            self._records.pop(digest(token_ids), None)

    def blame(self) -> None:
        """The engine died: all that is present was there."""
        alone = len(self._present) == 1
        for token_ids in self._present.values():
            key = digest(token_ids)
            record = self._records.setdefault(key, _Record())
            record.deaths += 1
            record.alone += alone
            self._records.move_to_end(key)
        while len(self._records) > MOST:
            self._records.popitem(last=False)


def digest(token_ids: list[int]) -> bytes:
    """The sha256 of a sequence: of its ids as JSON, without spaces."""
    return hashlib.sha256(orjson.dumps(token_ids)).digest()  # half the time of an array's bytes
