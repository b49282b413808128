"""Room for bodies: who gives way when there is none."""

from __future__ import annotations

import asyncio

import pytest

from fivescore.errors import Overloaded
from fivescore.http.budget import OTHERS, SMALL, Budget

LIMIT = OTHERS * 2 * SMALL


async def drip(budget: Budget, size: int) -> None:
    with budget.lease() as lease:
        lease.grow(size)
        await asyncio.sleep(60)


async def started(*drips: asyncio.Task[None]) -> None:
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in drips)


@pytest.mark.parametrize("fails", [False, True])
async def test_room_is_counted_and_given_back(fails: bool) -> None:
    budget = Budget(LIMIT)
    with pytest.raises(KeyError) if fails else budget.lease(), budget.lease() as lease:
        lease.grow(3)
        lease.grow(4)
        assert budget.held == 7
        if fails:
            raise KeyError
    assert budget.held == 0


async def test_the_body_that_holds_the_most_for_the_longest_gives_way() -> None:
    refusals: list[int] = []
    budget = Budget(LIMIT, lambda: refusals.append(1))
    sizes = (9, 5 * SMALL, 8 * SMALL)
    drips = [asyncio.create_task(drip(budget, size)) for size in sizes]
    await started(*drips)
    with budget.lease() as newest:
        newest.grow(4 * SMALL)
        assert budget.held == 9 + 9 * SMALL
        with pytest.raises(Overloaded, match="max_receiving_bytes") as refused:
            await drips[2]
        assert (refused.value.reason, refused.value.facts) == ("bytes", {"limit": LIMIT})
        assert drips[2].cancelling() == 0
    assert refusals == [1]
    for task in drips[:2]:
        task.cancel()


async def test_a_body_that_holds_the_most_itself_is_refused() -> None:
    budget = Budget(LIMIT)
    with pytest.raises(Overloaded), budget.lease() as lease:
        lease.grow(LIMIT - LIMIT // OTHERS + 1)
    assert budget.held == 0


async def test_large_bodies_leave_small_ones_an_eighth() -> None:
    budget = Budget(LIMIT)
    large = asyncio.create_task(drip(budget, LIMIT - LIMIT // OTHERS))
    await started(large)
    with budget.lease() as first, budget.lease() as second:
        first.grow(SMALL)
        second.grow(SMALL)
        await started(large)
    large.cancel()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    budget = Budget(LIMIT)
    dripping = asyncio.create_task(drip(budget, LIMIT // 2))
    await started(dripping)
    dripping.cancel()
    with budget.lease() as lease:
        lease.grow(LIMIT // 2)
        with pytest.raises(asyncio.CancelledError):
            await dripping
    assert budget.held == 0
