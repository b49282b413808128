"""The resources server: ``POST /verify`` is answered by a fivescore server's own ``POST /verify``.

What else NeMo-Gym asks a resources server for is NeMo-Gym's own code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any, ClassVar

import httpx
from nemo_gym.base_resources_server import (
    BaseMultiRewardVerifyResponse,
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    ReverifyMode,
    SimpleResourcesServer,
)
from pydantic import ConfigDict, PrivateAttr

from fivescore.client.replicas import addresses

LATER = frozenset({429, 503})
"""Statuses that say when to ask again."""
REQUEST_SECONDS = 300.0
"""How long one request may take; the server holds it while a model loads."""
PAUSE_SECONDS = (0.5, 30.0)
"""The first and the longest pause before another try."""


class FivescoreConfig(BaseResourcesServerConfig):  # type: ignore[misc]  # NeMo-Gym is Any to mypy
    """What ``configs/fivescore.yaml`` sets."""

    REVERIFY_MODE: ClassVar[ReverifyMode] = ReverifyMode.STATELESS
    url: str
    """The server's address, or several separated by commas: each try asks the next one."""
    retry_seconds: float = 600.0
    """How long a rollout waits for a server that cannot be reached or has too much to do."""


class VerifyRequest(BaseVerifyRequest):  # type: ignore[misc]
    """A rollout; further fields of its row are kept."""

    model_config = ConfigDict(extra="allow")


class VerifyResponse(BaseMultiRewardVerifyResponse):  # type: ignore[misc]
    """The rollout with its reward; the attributes stand beside, which NeMo-Gym's metrics read."""

    model_config = ConfigDict(extra="allow")


class FivescoreResourcesServer(SimpleResourcesServer):  # type: ignore[misc]
    """One reward for each rollout, of its last message that is the assistant's."""

    config: FivescoreConfig
    _clients: list[httpx.AsyncClient] = PrivateAttr()
    _next: Iterator[httpx.AsyncClient] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._clients = [
            httpx.AsyncClient(
                base_url=one.url,
                headers={"Authorization": f"Bearer {one.key}"} if one.key else {},
                timeout=httpx.Timeout(REQUEST_SECONDS, connect=10.0),
                limits=httpx.Limits(max_connections=256),
            )
            for one in addresses(self.config.url, None)
        ]
        self._next = cycle(self._clients)

    async def verify(self, body: VerifyRequest) -> VerifyResponse:
        """Score a rollout.

        Raises:
            httpx.HTTPError: the server refused it, or could not be reached for ``retry_seconds``.
        """
        answer = await self._ask(body.model_dump(mode="json", exclude_none=True))
        return VerifyResponse(**{**body.model_dump(), **answer})

    async def _ask(self, rollout: dict[str, Any]) -> dict[str, Any]:
        give_up_at = time.monotonic() + self.config.retry_seconds
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                response = await next(self._next).post("/verify", json=rollout)
                if response.status_code not in LATER or time.monotonic() >= give_up_at:
                    return _scores(response)
                seconds = float(response.headers.get("Retry-After", pause))
            except httpx.TransportError:
                if time.monotonic() >= give_up_at:
                    raise
                seconds = pause
            await asyncio.sleep(min(seconds, longest))
            pause = min(2 * pause, longest)


def _scores(response: httpx.Response) -> dict[str, Any]:
    """What the server adds to a rollout; its error names the field that it refuses."""
    if response.is_error:
        raise httpx.HTTPStatusError(
            f"{response.status_code}: {response.text[:1000]}",
            request=response.request,
            response=response,
        )
    answer: dict[str, Any] = response.json()
    return {k: v for k, v in answer.items() if k not in ("responses_create_params", "response")}


if __name__ == "__main__":
    FivescoreResourcesServer.run_webserver()
