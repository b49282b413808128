"""Requests that wait while the model loads or the engine starts again.

Some trainers' clients try a few times within seconds, or once, and then end the run. Their requests
are read, and answered when the service can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import Response

from fivescore.errors import EngineDead, Loading
from fivescore.http.body import Body, read_body
from fivescore.http.disconnect import until_gone
from fivescore.scoring.lifecycle import Service
from fivescore.settings import Settings

MOST_HELD = 4096
"""The most requests that are kept to be answered again: four of OpenRLHF's rollout batches."""
MOST_HELD_BYTES = 256 * 2**20
"""The most bytes of their bodies, in sum."""


class Holding:
    """Keeps the bodies of requests until they are answered, within bounds.

    What does not fit is answered at once, with 503 while there is no engine.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._kept = self._bytes = self._waiting = 0
        service.metrics.held.set_function(lambda: self._waiting)

    async def answer(
        self, request: Request, respond: Callable[[Body], Awaitable[Response]]
    ) -> Response:
        """What ``respond`` makes of the request's body, once there is an engine for it.

        Raises:
            ServiceUnavailable: there is none within ``hold_seconds``, or there will not be any.
            FivescoreError: what ``read_body`` and ``respond`` raise.
        """
        body = await read_body(request, self._settings)
        give_up_at = time.monotonic() + self._settings.hold_seconds
        with self._keep(len(body)) as kept:
            while True:
                if kept:
                    await self._until_available(request, give_up_at)
                self._service.check_available()
                try:
                    return await respond(body)
                except (Loading, EngineDead):
                    if not kept or time.monotonic() >= give_up_at:
                        raise

    @contextmanager
    def _keep(self, size: int) -> Iterator[bool]:
        """Whether a body of so many bytes is kept; takes room for it until the end."""
        kept = self._kept < MOST_HELD and self._bytes + size <= MOST_HELD_BYTES
        if not kept:
            yield False
            return
        self._kept, self._bytes = self._kept + 1, self._bytes + size
        try:
            yield True
        finally:
            self._kept, self._bytes = self._kept - 1, self._bytes - size

    async def _until_available(self, request: Request, give_up_at: float) -> None:
        """Wait for an engine, or until it is given up, or the client goes."""
        if not self._service.is_coming:
            return
        self._waiting += 1
        seconds = max(0.0, give_up_at - time.monotonic())
        try:
            await until_gone(request, _at_most(self._service.settled(), seconds))
        finally:
            self._waiting -= 1


async def _at_most(waiting: Awaitable[None], seconds: float) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return
