"""Finds the sequence that kills the engine, so that it can be refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from fivescore.errors import EngineError

DEATHS_BEFORE_ALONE = 2
"""A sequence that was present at this many deaths runs alone, so that another proves something."""
DEATHS_ALONE = 2
"""A sequence that was alone at this many deaths is refused: one may be the machine's fault."""
MOST = 100_000
"""Suspected sequences that are remembered; the oldest are forgotten first."""


class Gate:
    """Lets many in together or one alone; who waits to be alone is not overtaken.

    ``async with gate.shared`` and ``async with gate.exclusive`` may each be entered many times.
    """

    __slots__ = ("_empty", "_exclusive_turn", "_inside", "_open", "exclusive", "shared")

    def __init__(self) -> None:
        self.shared = _Shared(self)
        self.exclusive = _Exclusive(self)
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._exclusive_turn = asyncio.Lock()


class _Shared:
    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __aenter__(self) -> None:
        gate = self._gate
        while not gate._open.is_set():
            await gate._open.wait()
        gate._inside += 1
        gate._empty.clear()

    async def __aexit__(self, *error: object) -> None:
        self._gate._inside -= 1
        if not self._gate._inside:
            self._gate._empty.set()


class _Exclusive:
    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __aenter__(self) -> None:
        await self._gate._exclusive_turn.acquire()
        self._gate._open.clear()
        try:
            await self._gate._empty.wait()
        except BaseException:
            self._reopen()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._reopen()

    def _reopen(self) -> None:
        self._gate._open.set()
        self._gate._exclusive_turn.release()


@dataclass(slots=True)
class _Record:
    deaths: int = 0
    alone: int = 0


class Suspects:
    """Counts the engine's deaths by sequence; costs next to nothing until the first.

    A death blames every sequence that was present, innocent ones too. A sequence that is answered
    is cleared, one that was present at two deaths runs alone, and one that was alone at two is
    refused.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._present: set[_Turn] = set()
        self._gate = Gate()

    def __len__(self) -> int:
        """The number of sequences that are present."""
        return len(self._present)

    def turn(self, token_ids: list[int]) -> _Turn:
        """A sequence's turn in the engine: an ``async with`` that waits for it to begin.

        Raises:
            EngineError: the sequence has stopped the engine before and is refused.
        """
        record = self._records.get(digest(token_ids)) if self._records else None
        if record is None or record.deaths < DEATHS_BEFORE_ALONE:
            return _Turn(token_ids, self._present, self._gate.shared)
        if record.alone < DEATHS_ALONE:
            return _Turn(token_ids, self._present, self._gate.exclusive)
        raise EngineError(
            f"this pair stopped the engine {record.alone} times while nothing else was in it, and"
            f" is refused: do not send it again (sha256 of its token ids {digest(token_ids).hex()})"
        )

    def clear(self, token_ids: list[int]) -> None:
        """Forget what a sequence is suspected of: it was answered."""
        if self._records:
            self._records.pop(digest(token_ids), None)

    def blame(self) -> None:
        """Count a death of the engine against all sequences that are present."""
        alone = len(self._present) == 1
        for turn in self._present:
            key = digest(turn.token_ids)
            record = self._records.setdefault(key, _Record())
            record.deaths += 1
            record.alone += alone
            self._records.move_to_end(key)
        while len(self._records) > MOST:
            self._records.popitem(last=False)


class _Turn:
    """One sequence's stay in the engine: it is present from the gate's opening to the end."""

    __slots__ = ("_gate", "_present", "token_ids")

    def __init__(
        self, token_ids: list[int], present: set[_Turn], gate: _Shared | _Exclusive
    ) -> None:
        self.token_ids = token_ids
        self._present = present
        self._gate = gate

    async def __aenter__(self) -> None:
        await self._gate.__aenter__()
        self._present.add(self)

    async def __aexit__(self, *error: object) -> None:
        self._present.remove(self)
        await self._gate.__aexit__()


def digest(token_ids: list[int]) -> bytes:
    """The sha256 of a sequence's token ids as JSON without spaces."""
    return hashlib.sha256(orjson.dumps(token_ids)).digest()  # half the time of an array's bytes
