"""Finds the sequence that kills the engine, so that it can be refused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from fivescore.errors import EngineError
from fivescore.model.token_ids import digest

DEATHS_BEFORE_ALONE = 2
"""A sequence that was present at this many deaths runs alone, so that another proves something."""
DEATHS_ALONE = 2
"""A sequence that was alone at this many deaths is refused: one may be the machine's fault."""
MOST = 100_000
"""Suspected sequences that are remembered; the oldest are forgotten first."""


class Gate:
    """Lets many sequences in together, or one alone; one that waits to be alone goes first."""

    def __init__(self) -> None:
        self.inside: set[Turn] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.empty = asyncio.Event()
        self.exclusive = asyncio.Lock()


class Turn:
    """A sequence's stay behind the gate, together with others: an ``async with``."""

    __slots__ = ("_gate", "token_ids")

    def __init__(self, gate: Gate, token_ids: list[int]) -> None:
        self._gate = gate
        self.token_ids = token_ids

    async def __aenter__(self) -> None:
        gate = self._gate
        while not gate.open.is_set():
            await gate.open.wait()
        gate.inside.add(self)

    async def __aexit__(self, *error: object) -> None:
        gate = self._gate
        gate.inside.remove(self)
        if not gate.inside:
            gate.empty.set()


class TurnAlone(Turn):
    """A stay without others: it closes the gate, and waits until those inside have left."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        gate = self._gate
        await gate.exclusive.acquire()
        gate.open.clear()
        try:
            while gate.inside:
                gate.empty.clear()
                await gate.empty.wait()
        except BaseException:
            self._reopen()
            raise
        gate.inside.add(self)

    async def __aexit__(self, *error: object) -> None:
        self._gate.inside.remove(self)
        self._reopen()

    def _reopen(self) -> None:
        self._gate.open.set()
        self._gate.exclusive.release()


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
        self._gate = Gate()
        self.present = self._gate.inside
        """The turns of the sequences that are in the engine."""

    def turn(self, token_ids: list[int]) -> Turn:
        """A sequence's turn in the engine: an ``async with`` that waits for it to begin.

        Raises:
            EngineError: the sequence has stopped the engine before and is refused.
        """
        record = self._records.get(digest(token_ids)) if self._records else None
        if record is None or record.deaths < DEATHS_BEFORE_ALONE:
            return Turn(self._gate, token_ids)
        if record.alone < DEATHS_ALONE:
            return TurnAlone(self._gate, token_ids)
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
        alone = len(self.present) == 1
        for turn in self.present:
            key = digest(turn.token_ids)
            record = self._records.setdefault(key, _Record())
            record.deaths += 1
            record.alone += alone
            self._records.move_to_end(key)
        while len(self._records) > MOST:
            self._records.popitem(last=False)
