"""How many OpenMP threads an engine on a CPU computes with, decided again while it runs.

The threads of a parallel region wait for the slowest of them, and a layer of a model has a dozen
regions. One thread that shares its core with another program therefore holds up all of them: on two
cores beside one busy program, two threads are slower than one. So while the engine computes, this
module counts how long its threads wait for a core and how many cores nobody uses. It takes a thread
away for each core that is lost, and gives it back when a core is free.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WINDOW_SECONDS = 0.25
"""The least time before a decision: 25 of the ticks in which the kernel counts idle time."""
LOST_CORES, FREE_CORES = 0.5, 0.75
"""Averages at which a thread is taken away and given back. Measured on two cores: 0.1 to 0.5 cores
are lost in a window alone and 1.2 beside a busy program; 0.9 are free to one thread alone, and none
beside a busy program."""
TRIAL_SECONDS = 2.0
"""A thread that is taken away within this time was given back too early."""
LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.5, 60.0
"""How long no thread is given back after a change; doubled when one was given back too early."""
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def usable_cores() -> set[int]:
    """The cores that this process may run on, by their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def usable_count() -> int:
    """How many threads can run at once: the usable cores, or fewer where a cgroup has a quota."""
    quota = _quota()
    cores = len(usable_cores())
    return cores if quota is None else max(1, min(cores, int(quota)))


def most_threads(given: str, running: int, ranks: int) -> int:
    """The threads of an engine's process while no core is lost.

    Args:
        given: OMP_NUM_THREADS: numbers, one a level of nesting (OpenMP 5.2, 21.2), or nothing.
        running: threads that the OpenMP library would take.
        ranks: processes that compute beside each other.
    """
    first = given.split(",")[0].strip()
    if ranks == 1 and first.isdecimal() and int(first):
        return int(first)
    return max(1, min(running, usable_count() // ranks))


def _quota() -> float | None:
    """The tightest CPU quota, in cores, of this process's cgroup and of those above it.

    Reads ``cpu.max`` of cgroup v2 and ``cpu.cfs_quota_us`` of v1 (Linux documentation, cgroup-v2
    and sched-bwc). In a container the topmost folder is the container's own group, whatever path
    the kernel names.
    """
    quotas = []
    with contextlib.suppress(OSError):
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                quotas += [_quota_v2(each) for each in _upwards(CGROUPS, path)]
            elif "cpu" in controllers.split(","):
                quotas += [_quota_v1(each) for each in _upwards(CGROUPS / "cpu", path)]
    return min((quota for quota in quotas if quota), default=None)


def _upwards(top: Path, path: str) -> Iterator[Path]:
    folder = top / path.lstrip("/")
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _quota_v2(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        if quota > 0:  # -1 where there is none
            return quota / int((folder / "cpu.cfs_period_us").read_text())
    return None


@dataclass(frozen=True)
class Sample:
    """What the kernel has counted until now, in seconds.

    Attributes:
        time: of the monotonic clock.
        waited: how long each thread of this process, by its id, was ready to run and had no core
            (Linux documentation, sched-stats: ``schedstat``, second field).
        idle: summed over the cores that this process may run on (proc(5): ``stat``).
    """

    time: float
    waited: dict[str, float]
    idle: float


def sample(cores: Collection[int]) -> Sample:
    """
    Raises:
        OSError: the kernel does not count this.
    """
    waited = {}
    tasks = PROC / "self/task"
    for task in os.listdir(tasks):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
            waited[task] = int((tasks / task / "schedstat").read_text().split()[1]) / 1e9
    if not waited:
        raise FileNotFoundError(f"{tasks}/*/schedstat")
    names = {f"cpu{core}" for core in cores}
    lines = [line.split() for line in (PROC / "stat").read_text().splitlines()]
    ticks = sum(
        int(idle) + int(iowait)
        for name, *_, idle, iowait in (line[:6] for line in lines if line[0] in names)
    )
    return Sample(time.monotonic(), waited, ticks / os.sysconf("SC_CLK_TCK"))


class Threads:
    """The number of threads that compute, from 1 to ``most``.

    Args:
        most: the number while no core is lost.
        use: called with each new number.
        look: what the kernel has counted.
    """

    def __init__(self, most: int, use: Callable[[int], None], look: Callable[[], Sample]) -> None:
        self.number = self._most = most
        self._use = use
        self._look = look
        self._window: Sample | None = None
        self._computed = self._lost = 0.0
        self._changed = time.monotonic()
        self._pause = LEAST_PAUSE_SECONDS

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step of the engine; before and after it the number of threads may change."""
        begun = time.monotonic()
        self._judge(begun)  # after a pause between steps
        yield
        now = time.monotonic()
        self._computed += now - begun
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Decide by what happened since the window began, and begin another."""
        if self._window is not None and now - self._window.time < WINDOW_SECONDS:
            return
        first, computed = self._window, self._computed
        self._window, self._computed = self._look_again(), 0.0
        if first is None or self._window is None:
            return
        last, seconds = self._window, self._window.time - first.time
        # Between steps the engine's own cores are idle, which says nothing about a step, and its
        # other threads may wait.
        between = self.number * (seconds - computed)
        waited = sum(total - first.waited.get(task, 0.0) for task, total in last.waited.items())
        lost = waited / computed if computed > seconds / 4 else 0.0
        self._decide(last.time, lost, free=(last.idle - first.idle - between) / seconds)

    def _look_again(self) -> Sample | None:
        try:
            return self._look()
        except OSError:  # too many open files, perhaps: a step must not fail for that
            return None

    def _decide(self, now: float, lost: float, free: float) -> None:
        # Half of it counts for the next window too: one bad window in many is not another program.
        self._lost = (self._lost + lost) / 2
        since = now - self._changed
        if self._lost >= LOST_CORES and self.number > 1:
            early = since < TRIAL_SECONDS
            self._pause = min(2 * self._pause, MOST_PAUSE_SECONDS) if early else LEAST_PAUSE_SECONDS
            self._change(now, max(1, self.number - max(1, round(lost))))
        elif free >= FREE_CORES and self.number < self._most and since >= self._pause:
            self._change(now, min(self._most, self.number + max(1, int(free))))

    def _change(self, now: float, number: int) -> None:
        self.number, self._changed, self._lost = number, now, 0.0
        self._use(number)
