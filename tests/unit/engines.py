"""Small engines for what the fake engine cannot show: order, waiting, aborts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fivescore.scoring.inflight import Headers
from fivescore.types import ModelInfo, Output

DEMO_INFO = ModelInfo(
    name="demo",
    outputs=5,
    max_tokens=4096,
    vocab_size=6144,
    dtype="float32",
    device="none",
    engine="test",
    simulated=True,
)


async def turns(count: int = 5) -> None:
    """Let tasks that were started or cancelled take so many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # it is looked at from outside
            await asyncio.sleep(0.005)


class RecordingEngine:
    """Answers at once with the length of each sequence; remembers what it was given, in order."""

    def __init__(self) -> None:
        self.submitted: list[list[int]] = []
        self.request_ids: list[str] = []
        self.priorities: list[int] = []
        self.closed = False

    async def load(self) -> ModelInfo:
        return DEMO_INFO

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        self.submitted.append(token_ids)
        self.request_ids.append(request_id)
        self.priorities.append(priority)
        return Output([float(len(token_ids))] * 5, cached_tokens=1)

    def unfinished(self) -> int:
        return 0

    @property
    def alive(self) -> bool:
        return not self.closed

    def kill(self) -> None:
        self.closed = True

    async def close(self) -> None:
        self.closed = True


class HeldEngine(RecordingEngine):
    """Answers only once ``gate`` is set; counts the sequences that were cancelled before."""

    def __init__(self, sequences: int = 1) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.busy = asyncio.Event()
        """Set once ``sequences`` have been submitted."""
        self.aborted = 0
        self._sequences = sequences
        self._unfinished = 0

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        output = await super().encode(token_ids, request_id, trace_headers, priority, rank, prefix)
        self._unfinished += 1
        if len(self.submitted) >= self._sequences:
            self.busy.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self._unfinished -= 1
        return output

    def unfinished(self) -> int:
        return self._unfinished


class SlowToLoad(RecordingEngine):
    """Loads only once ``loaded`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    async def load(self) -> ModelInfo:
        await self.loaded.wait()
        return DEMO_INFO
