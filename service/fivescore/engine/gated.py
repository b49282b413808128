"""An engine whose answers end with the gated sum of the model's outputs.

Of each pair it asks another engine twice: for the outputs at the last token, and for the gate at
the end of the prompt. The second is asked once for all pairs of a prompt, and is a prefix of the
first, so the engine's prefix cache has nearly all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fivescore.engine.base import Engine
from fivescore.errors import ConfigurationError
from fivescore.model import gating
from fivescore.model.head import GatedHead
from fivescore.model.token_ids import digest
from fivescore.types import ModelInfo, Output

REMEMBERED = 2048
"""Prompts whose weights are kept, the most recent ones: about 1 kB each for ArmoRM's 19 outputs."""


@dataclass(slots=True)
class _Asked:
    """A gate that is being computed, and the number of pairs that wait for it."""

    task: asyncio.Task[list[float]]
    waiting: int = 0


class GatedEngine:
    """Engine for a gated head, over one that gives ``[2 * n]`` numbers at a token.

    Args:
        inner: gives the outputs, then the gate's.
        head: of the manifest.
    """

    def __init__(self, inner: Engine, head: GatedHead) -> None:
        self._inner = inner
        self._gate = head.gate
        self._asked: dict[bytes, _Asked] = {}
        self._known: OrderedDict[bytes, list[float]] = OrderedDict()

    async def load(self) -> ModelInfo:
        info = await self._inner.load()
        if info.outputs % 2:
            raise ConfigurationError(
                f"a gated head needs outputs and as many of the gate, the engine has {info.outputs}"
            )
        return replace(info, outputs=info.outputs // 2 + 1)

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        """The outputs ``[n]`` at the last token, then their gated sum; as ``Engine.encode``.

        Raises:
            NoGate: the ids lack those that the gate is computed at.
        """
        until = gating.position(token_ids, self._gate.at) + 1
        if until == len(token_ids):
            output = await self._inner.encode(
                token_ids, request_id, trace_headers, priority, rank, prefix
            )
            return self._with_sum(output, gating.weights(output.values, self._gate))
        key = digest(token_ids[:until])
        weights = self._known.get(key)
        if weights is not None:
            self._known.move_to_end(key)
            output = await self._inner.encode(
                token_ids, request_id, trace_headers, priority, rank, prefix
            )
            return self._with_sum(output, weights)
        # The gate goes first: what it computes of the prompt is the pair's too.
        asked = self._ask(key, token_ids[:until], request_id, trace_headers, priority, rank, prefix)
        pair = asyncio.create_task(
            self._inner.encode(token_ids, request_id, trace_headers, priority, rank, prefix)
        )
        pair.add_done_callback(_look)
        try:
            await _first_error(asked.task, pair)
            return self._with_sum(pair.result(), asked.task.result())
        finally:
            pair.cancel()
            self._leave(key, asked)

    def _with_sum(self, output: Output, weights: list[float]) -> Output:
        return replace(output, values=gating.combined(output.values, weights))

    def _ask(
        self,
        key: bytes,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
        rank: int,
        prefix: int,
    ) -> _Asked:
        asked = self._asked.get(key)
        if asked is None:
            task = asyncio.create_task(
                self._weights(key, token_ids, request_id, trace_headers, priority, rank, prefix)
            )
            task.add_done_callback(_look)
            asked = self._asked[key] = _Asked(task)
        asked.waiting += 1
        return asked

    async def _weights(
        self,
        key: bytes,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
        rank: int,
        prefix: int,
    ) -> list[float]:
        name = f"{request_id}-gate"
        output = await self._inner.encode(token_ids, name, trace_headers, priority, rank, prefix)
        weights = gating.weights(output.values, self._gate)
        if all(map(math.isfinite, weights)):  # what is not may be another sequence's fault
            self._known[key] = weights
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return weights

    def _leave(self, key: bytes, asked: _Asked) -> None:
        """Stop waiting for a gate: the last one to leave aborts it in the engine."""
        asked.waiting -= 1
        if asked.task.done() or not asked.waiting:
            asked.task.cancel()
            if self._asked.get(key) is asked:
                del self._asked[key]

    @property
    def alive(self) -> bool:
        return self._inner.alive

    def kill(self) -> None:
        self._inner.kill()

    async def close(self) -> None:
        await self._inner.close()


def _look(task: asyncio.Task[Any]) -> None:
    """Take note of an error: of two tasks that fail, only the first one's is raised."""
    if not task.cancelled():
        task.exception()


async def _first_error(*tasks: asyncio.Task[Any]) -> None:
    """Wait until all are done or one has failed, and raise its error."""
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
