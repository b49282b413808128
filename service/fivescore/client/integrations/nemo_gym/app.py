"""The resources server: ``POST /verify`` is answered by a fivescore server's own ``POST /verify``.

What else NeMo-Gym asks a resources server for is NeMo-Gym's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
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

from fivescore.client.answers import failure
from fivescore.client.errors import BadAnswer, Unreachable
from fivescore.client.exchange import MOST_BYTES, Answer, Connections, connect
from fivescore.client.replicas import Replica, Replicas, addresses
from fivescore.client.retry import Failure, Retry

OF_ROLLOUTS = frozenset({"responses_create_params", "response"})
"""Fields of an answer that only repeat the rollout."""
MOST_CONNECTIONS = 256
"""Concurrent requests to all servers together; NeMo-Gym verifies hundreds of rollouts at once."""
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
    _connections: Connections = PrivateAttr()
    _next: Iterator[Replica] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._connections = connect(MOST_CONNECTIONS)
        self._next = cycle(Replicas(addresses(self.config.url, None)).all)

    async def verify(self, body: VerifyRequest) -> VerifyResponse:
        """Score a rollout.

        Raises:
            FivescoreError: the server refused it, naming the field; or it could not be reached for
                ``retry_seconds``.
        """
        rollout = body.model_dump(mode="json", exclude_none=True)
        answer = await self._ask(json.dumps(rollout).encode())
        return VerifyResponse(**{**body.model_dump(), **answer})

    async def _ask(self, content: bytes) -> dict[str, Any]:
        give_up_at = time.monotonic() + self.config.retry_seconds
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                return await self._try(next(self._next), content)
            except Failure as failed:
                late = time.monotonic() >= give_up_at
                if late or failed.retry is not Retry.ANOTHER_REPLICA:
                    raise failed.error from None
                seconds = failed.retry_after or pause
            await asyncio.sleep(min(seconds, longest))
            pause = min(2 * pause, longest)

    async def _try(self, replica: Replica, content: bytes) -> dict[str, Any]:
        url, most = f"{replica.url}/verify", MOST_BYTES + 2 * len(content)  # it has the rollout too
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._connections.post(url, content, replica.headers, most)
        except (TimeoutError, httpx.RequestError) as error:
            reason = f"{replica.url}: {error or type(error).__name__}"
            raise Failure(Unreachable(reason), Retry.ANOTHER_REPLICA) from error
        if not answer.is_success:
            raise failure(answer)
        return _scores(answer)


def _scores(answer: Answer) -> dict[str, Any]:
    """What the server adds to a rollout."""
    with contextlib.suppress(ValueError):
        if not answer.fault and isinstance(found := answer.json(), dict):
            return {k: v for k, v in found.items() if k not in OF_ROLLOUTS}
    raise Failure(BadAnswer(f"{answer.url} answered no rollout with a reward"), Retry.NEVER)


if __name__ == "__main__":
    FivescoreResourcesServer.run_webserver()
