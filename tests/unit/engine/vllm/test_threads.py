"""How many threads an engine on a CPU computes with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fivescore.engine.vllm import threads
from fivescore.engine.vllm.threads import Sample, Threads, most_threads, sample, usable_count

STEP_SECONDS = 0.02
BUSY = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: pass"


class Machine:
    """Cores, other programs that each keep one busy, and an engine; in the place of the kernel."""

    def __init__(self, cores: int, busy: int = 0) -> None:
        self.cores = cores
        self.busy = busy
        self.now = 1000.0
        self.seen: list[int] = []
        self._waited = 0.0
        self._idle = 0.0

    def look(self) -> Sample:
        return Sample(self.now, {"1": self._waited}, self._idle)

    def compute(self, engine: Threads, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            with engine.step():
                self.pass_time(STEP_SECONDS, engine.number)

    def pass_time(self, seconds: float, computing: int = 0) -> None:
        self.now += seconds
        wanted = computing + self.busy
        self._waited += seconds * min(computing, max(0, wanted - self.cores))
        self._idle += seconds * max(0, self.cores - wanted)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(2)
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    return found


def engine_on(machine: Machine, most: int | None = None) -> Threads:
    return Threads(most or machine.cores, machine.seen.append, machine.look)


@pytest.mark.parametrize("cores", [1, 2, 8, 64])
@pytest.mark.parametrize("busy", [0, 1, 3, 100])
def test_as_many_threads_as_free_cores(machine: Machine, cores: int, busy: int) -> None:
    machine.cores, machine.busy = cores, busy
    engine = engine_on(machine)
    machine.compute(engine, 20)
    assert engine.number == max(1, cores - busy)
    machine.busy = 0
    machine.compute(engine, 20)
    assert engine.number == cores


def test_a_lost_core_is_noticed_within_a_window(machine: Machine) -> None:
    machine.busy = 1
    machine.compute(engine_on(machine), threads.WINDOW_SECONDS + 2 * STEP_SECONDS)
    assert machine.seen == [1]


def test_one_bad_window_is_not_another_program(machine: Machine) -> None:
    engine = engine_on(machine)
    for _ in range(10):
        machine.busy = 1
        machine.compute(engine, 0.6 * threads.WINDOW_SECONDS)
        machine.busy = 0
        machine.compute(engine, 5 * threads.WINDOW_SECONDS)
    assert not machine.seen


def test_never_more_threads_than_the_most(machine: Machine) -> None:
    machine.cores = 8
    engine = engine_on(machine, most=3)
    machine.compute(engine, 5)
    assert engine.number == 3
    assert not machine.seen


def test_pauses_between_steps_say_nothing_about_a_lost_core(machine: Machine) -> None:
    engine = engine_on(machine)
    for _ in range(20):
        machine.compute(engine, STEP_SECONDS)
        machine.pass_time(1.0, computing=2)
        machine.busy = 1  # threads wait, but not while the engine computes
        machine.pass_time(0.1, computing=2)
        machine.busy = 0
    assert not machine.seen


def test_a_thread_is_given_back_after_a_quiet_pause(machine: Machine) -> None:
    engine = engine_on(machine)
    machine.busy = 1
    machine.compute(engine, 1)
    assert engine.number == 1
    machine.busy = 0
    machine.pass_time(30)
    machine.compute(engine, STEP_SECONDS)
    assert engine.number == 2


def test_a_thread_given_back_too_early_costs_ever_less(machine: Machine) -> None:
    """Here a core looks free whenever the engine leaves it: another program takes it at once."""
    engine = engine_on(machine)
    for _ in range(50_000):
        machine.busy = 1 if engine.number == 2 else 0
        machine.compute(engine, STEP_SECONDS)
    given_back = machine.seen.count(2)
    # Of 1,000 seconds; each pause is twice the one before, to a minute.
    assert 5 <= given_back <= 25


def test_what_the_kernel_does_not_say_once_changes_nothing(machine: Machine) -> None:
    engine = engine_on(machine)
    machine.compute(engine, 1)
    look, machine.busy = machine.look, 1

    def fail() -> Sample:
        raise OSError("too many open files")

    engine._look = fail
    machine.compute(engine, 1)
    assert not machine.seen
    engine._look = look
    machine.compute(engine, 1)
    assert machine.seen == [1]


def test_the_kernel_counts_what_threads_wait_for_a_core() -> None:
    """Two processes compute on one core, so one waits while the other runs."""
    core = min(os.sched_getaffinity(0))
    program = (
        "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\n"
        "from fivescore.engine.vllm.threads import sample\n"
        "first = sample([0])\n"
        "while sum(sample([0]).waited.values()) < sum(first.waited.values()) + 0.1: pass"
    )
    command = [sys.executable, "-c", program, str(core)]
    with subprocess.Popen([*command[:1], "-c", BUSY, str(core)]) as busy:
        try:
            subprocess.run(command, check=True, timeout=50)
        finally:
            busy.kill()
    assert sample([core]).idle > 0


ENGINE, V1 = "0::/pod/engine\n", "1:name=systemd:{0}\n4:cpu,cpuacct:{0}\n"


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}", f"{folder}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("group", "files", "wanted"),
    [
        (ENGINE, {"pod/engine/cpu.max": "300000 100000"}, 3),
        (ENGINE, {"pod/engine/cpu.max": "max 100000"}, 8),
        (ENGINE, {"pod/cpu.max": "200000 100000", "pod/engine/cpu.max": "300000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1),
        (ENGINE, {"cpu.max": "50000 100000"}, 1),
        (ENGINE, {"cpu.max": "6400000 100000"}, 8),
        (V1.format("/docker/0a1b"), v1("cpu", 200_000), 2),
        (V1.format("/docker/0a1b"), v1("cpu", -1), 8),
        (V1.format("/kube/pod"), v1("cpu/kube/pod", 400_000), 4),
        ("0::/pod\n", {}, 8),
        (None, {}, 8),
    ],
)
def test_a_quota_counts_as_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: str | None,
    files: Mapping[str, str],
    wanted: int,
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    if group is not None:
        (tmp_path / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(threads, "PROC", tmp_path / "proc")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_count() == wanted


@pytest.mark.parametrize(
    ("given", "running", "ranks", "wanted"),
    [
        ("3", 8, 1, 3),  # the operator's wish
        ("16", 8, 1, 16),
        ("4,2", 8, 1, 4),
        ("", 16, 1, 8),
        ("", 2, 1, 2),
        ("many", 16, 1, 8),
        ("0", 16, 1, 8),
        ("7", 7, 2, 4),  # set by vLLM for each of its ranks
        ("1", 1, 16, 1),
    ],
)
def test_the_most_threads(
    monkeypatch: pytest.MonkeyPatch, given: str, running: int, ranks: int, wanted: int
) -> None:
    monkeypatch.setattr(threads, "usable_count", lambda: 8)
    assert most_threads(given, running, ranks) == wanted
