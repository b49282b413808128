"""Work for a client that may go away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from fivescore.errors import ClientGone

Result = TypeVar("Result")


async def until_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` while the client is there; cancel it when the connection closes.

    Raises:
        ClientGone: the client closed the connection; the work was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or task.uncancel():  # the service's own end cancels requests too
            raise
        told = "the client closed the connection; its work was aborted"
        raise ClientGone(told) from None
    finally:
        watching.cancel()
