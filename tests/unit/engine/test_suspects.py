"""The gate that one sequence can have for itself, and who is blamed for the engine's death."""

from __future__ import annotations

import asyncio

import pytest

from fivescore.engine import suspects
from fivescore.engine.suspects import (
    DEATHS_ALONE,
    DEATHS_BEFORE_ALONE,
    Gate,
    Suspects,
    Turn,
    TurnAlone,
)
from fivescore.errors import EngineError
from fivescore.model.token_ids import digest
from tests.unit.engines import turns

GUILTY, INNOCENT = [666], [1]


class Visit:
    """Somebody who has a turn, and stays until ``leave``."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._leaving = asyncio.Event()
        self.inside = False
        self.task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        async with self._turn:
            self.inside = True
            await self._leaving.wait()
        self.inside = False

    async def leave(self) -> None:
        self._leaving.set()
        await turns()


async def visits(*given: Turn) -> list[Visit]:
    made = [Visit(turn) for turn in given]
    await turns()
    return made


async def leave(*made: Visit) -> None:
    for visit in made:
        await visit.leave()


def inside(made: list[Visit]) -> list[bool]:
    return [visit.inside for visit in made]


async def die(suspected: Suspects, *present: list[int]) -> None:
    """The engine dies once with these sequences in it."""
    made = await visits(*(suspected.turn(token_ids) for token_ids in present))
    assert inside(made) == [True] * len(present)
    suspected.blame()
    await leave(*made)
    assert len(suspected.present) == 0


async def test_many_share_the_gate_and_one_has_it_alone() -> None:
    gate = Gate()
    made = await visits(
        *(kind(gate, [n]) for n, kind in enumerate((Turn, Turn, TurnAlone, Turn, TurnAlone)))
    )
    assert inside(made) == [True, True, False, False, False]  # who came later does not overtake
    await made[0].leave()
    assert inside(made) == [False, True, False, False, False]
    await made[1].leave()
    assert inside(made) == [False, False, True, False, False]
    await made[2].leave()
    assert sum(inside(made)) == 1
    await leave(*made[3:])
    assert inside(made) == [False] * 5


@pytest.mark.parametrize("kind", [Turn, TurnAlone])
async def test_who_no_longer_waits_to_be_alone_keeps_nobody_out(kind: type[Turn]) -> None:
    gate = Gate()
    holder, waiting, later = await visits(kind(gate, [1]), TurnAlone(gate, [2]), Turn(gate, [3]))
    waiting.task.cancel()
    await turns()
    assert later.inside == (kind is Turn)
    await holder.leave()
    assert later.inside
    await later.leave()
    (alone,) = await visits(TurnAlone(gate, [9]))
    assert alone.inside
    await alone.leave()


async def test_a_gate_is_left_however_the_stay_ends() -> None:
    gate = Gate()
    for kind in (Turn, TurnAlone):
        (visit,) = await visits(kind(gate, [1]))
        visit.task.cancel()
        await turns()
    (alone,) = await visits(TurnAlone(gate, [9]))
    assert alone.inside
    await alone.leave()


async def test_who_was_present_at_two_deaths_runs_alone() -> None:
    suspected = Suspects()
    for _ in range(DEATHS_BEFORE_ALONE):
        await die(suspected, GUILTY, INNOCENT)
    unknown, alone, second = await visits(*map(suspected.turn, ([2], GUILTY, INNOCENT)))
    assert inside([unknown, alone, second]) == [True, False, False]
    await unknown.leave()
    assert inside([unknown, alone, second]) == [False, True, False]
    assert len(suspected.present) == 1
    await alone.leave()
    assert second.inside
    await second.leave()


async def test_who_was_alone_at_two_deaths_is_refused() -> None:
    suspected = Suspects()
    for _ in range(DEATHS_BEFORE_ALONE):
        await die(suspected, GUILTY, INNOCENT)
    for _ in range(DEATHS_ALONE):
        await die(suspected, GUILTY)
    sha256 = digest(GUILTY).hex()
    with pytest.raises(EngineError, match=rf"stopped the engine 2 times .* refused.*{sha256}"):
        suspected.turn(GUILTY)
    await die(suspected, INNOCENT)  # is not refused


async def test_who_is_answered_is_cleared() -> None:
    suspected = Suspects()
    for _ in range(5):
        await die(suspected, INNOCENT)
        suspected.clear(INNOCENT)
    made = await visits(*map(suspected.turn, (INNOCENT, [2])))
    assert inside(made) == [True, True]
    await leave(*made)


async def test_the_oldest_suspects_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST", 2)
    suspected = Suspects()
    for token_ids in (GUILTY, GUILTY, INNOCENT, [2]):
        await die(suspected, token_ids)
    made = await visits(*map(suspected.turn, (GUILTY, [3])))
    assert inside(made) == [True, True]
    await leave(*made)
