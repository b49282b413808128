"""Work ends when its client goes, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from fivescore.errors import ClientGone
from fivescore.http.disconnect import until_gone


class Client:
    """Sends nothing more, until it goes."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


class Work:
    """Takes until it is let go; tells how it ended."""

    def __init__(self) -> None:
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def asked(client: Client, work: Work) -> asyncio.Task[str]:
    task = asyncio.create_task(until_gone(client.request, work()))
    await work.begun.wait()
    return task


async def test_work_for_a_client_that_stays_is_done_and_nobody_watches_on() -> None:
    client, work = Client(), Work()
    before = asyncio.all_tasks()
    task = await asked(client, work)
    work.gate.set()
    assert await task == "done"
    client.left.set()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_work_for_a_client_that_goes_is_cancelled() -> None:
    client, work = Client(), Work()
    task = await asked(client, work)
    client.left.set()
    with pytest.raises(ClientGone):
        await task
    assert work.cancelled
    assert not task.cancelling()  # it can still answer


async def test_the_works_own_error_is_the_callers() -> None:
    async def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await until_gone(Client().request, fail())


@pytest.mark.parametrize("gone_too", [False, True])
async def test_a_cancelled_request_stays_so_whether_its_client_goes_or_not(gone_too: bool) -> None:
    client, work = Client(), Work()
    task = await asked(client, work)
    if gone_too:
        client.left.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled


async def test_work_that_ends_as_its_client_goes_is_either_done_or_gone() -> None:
    client, work = Client(), Work()
    task = await asked(client, work)
    work.gate.set()
    client.left.set()
    try:
        assert await task == "done"
    except ClientGone:
        assert work.cancelled
    assert not task.cancelling()
