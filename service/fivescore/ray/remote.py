"""The engine of an HTTP replica: it asks engine replicas."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextvars import Context
from dataclasses import replace
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from fivescore.errors import EngineDead, EngineError, Loading, NoGate, first_line
from fivescore.ray.wire import Answer, Failed, Sequence
from fivescore.types import ModelInfo, Output

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long a sequence waits for an engine: longer than most replicas take to load."""
PAUSE_SECONDS = (0.05, 2.0)
"""Before a sequence is asked for again, doubled each time, and the most."""

_Waiting = tuple[Sequence, asyncio.Future[Output]]


class RemoteEngine:
    """Sequences of one prompt that come at once go to one replica in one call.

    A replica that cannot answer is passed over. What was in an engine that died waits for that
    engine, though: only there is it known as what may have killed it.

    Args:
        handle: of the deployment of ``EngineReplica``.
        replicas: the most that there may be.
    """

    def __init__(self, handle: Any, replicas: int) -> None:
        self._handle = handle
        self._replicas = replicas
        self._groups: dict[int, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> ModelInfo:
        """The model of any replica, once there is one that has loaded."""
        info: ModelInfo = await self._handle.describe.remote()
        # All of them together take so many sequences in a step.
        return replace(info, ranks=1, step_sequences=info.step_sequences * self._replicas)

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Output] = loop.create_future()
        sequence = Sequence(token_ids, request_id, trace_headers, priority, prefix)
        group = self._groups.get(prefix)
        if group is None:
            group = self._groups[prefix] = []
            loop.call_soon(self._send, prefix)
        group.append((sequence, answer))
        return await answer

    def _send(self, prefix: int) -> None:
        group = self._groups.pop(prefix)
        # In Ray's eyes a call belongs to the request in whose context it is made: it would end with
        # it, although others may wait for it, and two of one request would share an id.
        task = asyncio.create_task(self._answer(str(prefix), group), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for _, answer in group:
            answer.add_done_callback(lambda _: _all_done(group) and task.cancel())

    async def _answer(self, prefix: str, group: list[_Waiting]) -> None:
        try:
            await self._ask(prefix, group)
        finally:
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(EngineDead("the service stops asking its engines"))

    async def _ask(self, prefix: str, group: list[_Waiting]) -> None:
        """Ask until every sequence of a group has its answer, or nobody waits for it."""
        began, pause = time.monotonic(), PAUSE_SECONDS[0]
        session, passed, why = prefix, 0, ""
        while group := [one for one in group if not one[1].done()]:
            if time.monotonic() - began > PATIENCE_SECONDS:
                _give_up(group, why)
                return
            answers = await self._asked_once(session, [sequence for sequence, _ in group])
            kinds = {_settle(answer, one[1]) for answer, one in zip(answers, group, strict=True)}
            why = next((one.detail for one in answers if isinstance(one, Failed)), why)
            if "away" in kinds and "died" not in kinds:
                passed += 1
                session = f"{prefix}.{passed}"  # elsewhere on the ring
            if kinds & {"away", "died"}:
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS[1])

    async def _asked_once(self, session: str, sequences: list[Sequence]) -> list[Answer]:
        call = self._handle.options(session_id=session).encode.remote(sequences)
        try:
            answers: list[Answer] = await call
        except asyncio.CancelledError:
            call.cancel()
            raise
        except (RayError, RayServeException) as error:
            log.warning("an engine replica did not answer: %s", first_line(error))
            return [Failed("away", first_line(error))] * len(sequences)
        return answers

    @property
    def alive(self) -> bool:
        return True

    def kill(self) -> None:
        """The replicas are Ray's; whoever waits for them is told."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.kill()


def _settle(answer: Answer, waiting: asyncio.Future[Output]) -> str:
    """Pass an answer on if it is one; returns what kind it is."""
    kind = answer.kind if isinstance(answer, Failed) else "output"
    if waiting.done():
        return "output"
    if isinstance(answer, Output):
        waiting.set_result(answer)
    elif kind in ("no_gate", "error"):
        waiting.set_exception((NoGate if kind == "no_gate" else EngineError)(answer.detail))
    return kind


def _all_done(group: list[_Waiting]) -> bool:
    return all(answer.done() for _, answer in group)


def _give_up(group: list[_Waiting], why: str) -> None:
    for _, answer in group:
        answer.set_exception(
            Loading(
                f"no engine replica could answer for {PATIENCE_SECONDS:g} s ({why}): retry after"
                " 5 seconds",
                retry_after=5,
            )
        )
