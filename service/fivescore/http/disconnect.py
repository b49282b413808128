"""Work that ends when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from fivescore.errors import ClientGone

Result = TypeVar("Result")


async def until_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``, which is cancelled when the client closes the connection.

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
        if not gone or task.uncancel():  # the service's shutdown cancels requests too
            raise
        detail = "the client closed the connection: its work was aborted"
        raise ClientGone(detail) from None
    finally:
        watching.cancel()
