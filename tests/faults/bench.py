"""What scenarios share: how large they are, pairs with known scores, and the server that runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fivescore.settings import DEMO
from tests.e2e.server import Server
from tests.faults.known import Known, Pairs
from tests.faults.target import Target

HANG_SECONDS = 15
"""Of ``--engine-hang-seconds`` here: many times what the demo takes for its longest silence."""
SLOW_SECONDS = 5
"""What a slow client gets here for its headers, and for each part of its body."""
FLAGS = (
    "--engine-hang-seconds", str(HANG_SECONDS),
    # Scenarios share a server, and each kill counts for ten minutes.
    "--engine-restarts", "1000",
    "--shutdown-grace-seconds", "300",
    "--header-timeout-seconds", str(SLOW_SECONDS),
    "--client-timeout-seconds", str(SLOW_SECONDS),
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How large the scenarios are; seconds are of load, not of their whole time."""

    name: str
    overload_seconds: float
    capacity_seconds: float
    inflight_pairs: int
    kills: int
    killed_pairs: int
    drained_pairs: int
    undone_pairs: int
    spare_backend: str
    """Of servers beside the one that scenarios share."""
    rolling_quiet_seconds: float
    clients: int
    rounds: int
    abandoned_pairs: int
    idle_connections: int
    slow_connections: int
    traffic_seconds: float
    soak_seconds: float
    quiet_seconds: float
    job_pairs: int
    network_seconds: float
    cut_seconds: float
    growth: float
    """Of memory, as a ratio that may not be passed."""


FULL = Scale(
    name="full",
    overload_seconds=60, capacity_seconds=20, inflight_pairs=1024,
    kills=5, killed_pairs=2000,
    drained_pairs=500, undone_pairs=4000,
    spare_backend="vllm", rolling_quiet_seconds=10,
    clients=1000, rounds=20, abandoned_pairs=4000,
    idle_connections=2000, slow_connections=200, traffic_seconds=30,
    soak_seconds=1800,
    quiet_seconds=15, job_pairs=50_000,
    network_seconds=24, cut_seconds=30,
    growth=1.05,
)  # fmt: skip
SHORT = Scale(
    name="short",
    overload_seconds=12, capacity_seconds=6, inflight_pairs=512,
    kills=1, killed_pairs=400,
    drained_pairs=500, undone_pairs=500,
    spare_backend="fake", rolling_quiet_seconds=2,
    clients=150, rounds=4, abandoned_pairs=1000,
    idle_connections=500, slow_connections=50, traffic_seconds=4,
    soak_seconds=24,
    quiet_seconds=6, job_pairs=2500,
    network_seconds=3, cut_seconds=3,
    growth=1.15,
)  # fmt: skip


class Bench:
    """Holds one server at a time: two engines would slow each other down.

    Args:
        folder: where the servers' logs go.
    """

    def __init__(self, scale: Scale, folder: Path) -> None:
        self.scale = scale
        self.folder = folder
        self.pairs = Pairs(Path(DEMO))
        self._target: Target | None = None
        self._flags: tuple[str, ...] = ()
        self._started = 0
        self.load_seconds = 0.0
        """How long the first server took to be ready; 0 before there was one."""

    async def known(self, count: int) -> list[Known]:
        """Pairs with known scores; computed now if they were not before."""
        return await asyncio.to_thread(self.pairs.known, count)

    async def server(self, *flags: str) -> Target:
        """A ready server of the demo checkpoint with no work in it; the one that runs, if it can
        be that one."""
        if self._target is not None and (self._flags != flags or not self._target.running):
            await self.close()
        if self._target is None:
            self._target, self._flags = self.start(*FLAGS, *flags), flags
            await self._target.wait_ready()
            self.load_seconds = self.load_seconds or self._target.load_seconds
        await self._target.until("ready", self._target.ready)
        await self._target.until("no work", self._target.idle)
        return self._target

    def start(self, *flags: str) -> Target:
        """Another server, which the caller stops. It is not ready yet."""
        self._started += 1
        return Target(Server(self.folder / f"server-{self._started}.log", *flags))

    async def close(self) -> None:
        """Stop the server that runs, if one does."""
        target, self._target = self._target, None
        if target is not None:
            await target.stop()
