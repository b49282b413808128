"""Keeps an engine running: replaces one that died or hangs, and gives up after a limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fivescore.engine.base import Engine
from fivescore.engine.ranks import Ranks
from fivescore.engine.suspects import Suspects
from fivescore.errors import EngineDead, ModelChanged, ScoringError, first_line
from fivescore.types import ModelInfo, Output

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
"""Seconds between two looks at the engine; work in flight notices a death by itself."""
BACKOFF_SECONDS = (0.5, 30.0)
"""Seconds to wait before the first new start, doubled before each further one, and the most."""
CLOSE_SECONDS = 10.0
"""Seconds that a lost engine's ``close`` may take; its processes are killed before it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When the supervisor replaces an engine, and when it gives up."""

    restarts: int
    """The most new starts within ``window_seconds``; at one more the supervisor gives up."""
    window_seconds: float
    hang_seconds: float
    """An engine is lost if one of its ranks has work and answers none of it for so long."""


Check = Callable[[Engine, ModelInfo], Awaitable[None]]


async def _accept(engine: Engine, info: ModelInfo) -> None:
    """Accept every engine that has loaded."""


class Supervisor:
    """Encodes with one engine at a time, and replaces it when it is lost.

    Args:
        make: returns an engine that is not loaded; called on a thread, since it may block.
        changed: called with False when the engine is lost and with True when the next one runs.
        failed: called once, with the last error, when the supervisor gives up.
        before: called on a thread before each engine is made; what it raises stops that start.
        check: awaited with each engine that has loaded, and its description, before it is used.
            It has ``Limits.hang_seconds``; what it raises stops that start.
        escaped: called for each sequence that does not go to the rank of its prompt.

    A start that fails is tried again, except the first one, and except with ``ModelChanged``: what
    the engine would serve is not what was served, and no new start can change that.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        limits: Limits,
        changed: Callable[[bool], None],
        failed: Callable[[Exception], None],
        before: Callable[[], None] = lambda: None,
        check: Check = _accept,
        escaped: Callable[[], object] = lambda: None,
    ) -> None:
        self._escaped = escaped
        self._before = before
        self._check = check
        self._make = make
        self._limits = limits
        self._changed = changed
        self._failed = failed
        self._engine: Engine | None = None
        self._loading: Engine | None = None
        self._suspects = Suspects()
        self.ranks = Ranks()
        """Those of the engine that runs."""
        self._restarts: deque[float] = deque()
        self._load_seconds = 5.0
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def load(self) -> ModelInfo:
        """Load the first engine and begin to watch it.

        Raises:
            ConfigurationError: as ``before``, ``check`` and the engine's ``load``; it is not tried
                again.
        """
        info = await self._start()
        self._tasks.append(asyncio.create_task(self._watch()))
        return info

    async def _start(self) -> ModelInfo:
        began = time.monotonic()
        await asyncio.to_thread(self._before)
        self._loading = await asyncio.to_thread(self._make)
        try:
            info = await self._loading.load()
            await self._checked(self._loading, info)
            if not self._closed:
                self.ranks = Ranks(info.ranks, info.step_tokens, self._escaped)
                self._engine = self._loading
                self._load_seconds = time.monotonic() - began
            return info
        except BaseException:
            await self._loading.close()
            raise
        finally:
            self._loading = None

    async def _checked(self, engine: Engine, info: ModelInfo) -> None:
        try:
            async with asyncio.timeout(self._limits.hang_seconds) as limit:
                await self._check(engine, info)
        except TimeoutError as error:
            if not limit.expired():
                raise
            engine.kill()  # it may hang, and would not close
            raise EngineDead(
                f"the new engine was not checked within {self._limits.hang_seconds:g} s"
                " (engine_hang_seconds)"
            ) from error

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        prefix: int = 0,
    ) -> Output:
        """The head's outputs at the last token, as ``Engine.encode``.

        Args:
            prefix: the same number for sequences that begin alike; they share a rank.

        Raises:
            EngineError: this sequence failed, or it has stopped the engine before and is refused.
            NoGate: the sequence lacks the tokens of the model's gate.
            EngineDead: the engine stopped; another is being started.
        """
        suspects = self._suspects
        async with suspects.turn(token_ids):
            engine, rank = self._engine, self.ranks.of(prefix, len(token_ids))
            rank.enter(len(token_ids))
            try:
                if engine is None:
                    raise EngineDead("there is no engine")
                output = await engine.encode(
                    token_ids, request_id, trace_headers, priority, rank.number, prefix
                )
                rank.answered()
                suspects.clear(token_ids)
                return output
            except EngineDead as error:
                self._lost(engine, "it stopped")
                raise self.restarting() from error
            except ScoringError:
                rank.answered()
                suspects.clear(token_ids)
                raise
            finally:
                rank.leave(len(token_ids))

    def tokens_in(self, rank: int) -> int:
        """Tokens of the sequences that are in a rank; 0 while no engine runs."""
        ranks = self.ranks.all
        return ranks[rank].tokens if rank < len(ranks) else 0

    def restarting(self) -> EngineDead:
        """The error of a request that arrives while no engine runs."""
        seconds = max(1, round(self._load_seconds))
        return EngineDead(
            "the engine stopped and is being started again: retry after"
            f" {seconds} seconds, or send this to another replica",
            retry_after=seconds,
        )

    def _lost(self, engine: Engine | None, how: str) -> None:
        if engine is None or engine is not self._engine or self._closed:
            return
        self._engine = None
        self.ranks = Ranks()
        log.error(
            "the engine is lost (%s) with %d sequences in it", how, len(self._suspects.present)
        )
        self._suspects.blame()
        self._changed(False)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._replace(engine)))

    async def _watch(self) -> None:
        while not self._closed:
            await asyncio.sleep(WATCH_SECONDS)
            engine = self._engine
            if engine is None:
                continue
            if not engine.alive:
                self._lost(engine, "its process ended")
            elif (silent := self.ranks.silent) > self._limits.hang_seconds:
                self._lost(engine, f"no answer for {silent:.0f} s")

    async def _replace(self, old: Engine) -> None:
        await _end(old)
        error: Exception = EngineDead("the engine keeps stopping")
        while not self._closed:
            if (attempt := self._count_restart()) > self._limits.restarts:
                log.error(
                    "the engine is given up: it was started again %d times in %.0f s, the limit"
                    " is %d (engine_restarts)",
                    attempt - 1, self._limits.window_seconds, self._limits.restarts,
                )  # fmt: skip
                self._failed(error)
                return
            first, most = BACKOFF_SECONDS
            await asyncio.sleep(min(most, first * 2 ** (attempt - 1)))
            try:
                await self._start()
            except ModelChanged as failure:
                log.error("the engine is given up: %s", first_line(failure))
                self._failed(failure)
                return
            except Exception as failure:
                error = failure
                log.error("the engine could not be started again: %s", first_line(failure))
            else:
                log.warning("the engine runs again")
                self._changed(True)
                return

    def _count_restart(self) -> int:
        """Count a new start; returns how many there were within the window, with this one."""
        now = time.monotonic()
        self._restarts.append(now)
        while now - self._restarts[0] > self._limits.window_seconds:
            self._restarts.popleft()
        return len(self._restarts)

    async def close(self) -> None:
        """Stop the watch and the engine, whether it is loading or running."""
        self._closed = True
        for engine in (self._engine, self._loading):
            if engine is not None:
                await engine.close()
        self._engine = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _end(engine: Engine) -> None:
    """Kill a lost engine's processes, which hold memory and devices, and clean up after it."""
    try:
        engine.kill()
        await asyncio.wait_for(engine.close(), CLOSE_SECONDS)
    except Exception:
        log.warning(
            "the lost engine could not be cleaned up; the next one is started", exc_info=True
        )
