"""A process is dead when it has ended itself, and what is killed ends with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import cast

import pytest

from fivescore.engine.vllm import processes
from fivescore.engine.vllm.processes import Group, Handle

pytest.importorskip("psutil")  # vLLM's extras bring it
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def registered(pid: int) -> Handle | None:
    return processes.register(cast("BaseProcess", SimpleNamespace(pid=pid)))


@pytest.fixture(autouse=True)
def _none_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_known", [])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process with one of its own, whose pid it has printed."""
    found = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with found:
        yield found
        found.kill()


@pytest.fixture(params=[True, False], ids=["pidfd", "start time"])
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(pid: int) -> int:
        os.kill(pid, 0)
        raise OSError("a sandbox")

    if not request.param:
        monkeypatch.setattr(os, "pidfd_open", missing)


@pytest.mark.usefixtures("_ways")
def test_one_that_is_stopped_has_not_ended_and_one_that_nobody_has_waited_for_has(
    process: subprocess.Popen[str],
) -> None:
    handle = Handle(process.pid)
    process.send_signal(signal.SIGSTOP)
    assert not handle.ended(0.05)
    handle.kill()
    assert handle.ended(10)
    assert process.returncode is None
    process.wait()
    handle.send(signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        Handle(process.pid)


@pytest.mark.usefixtures("_ways")
def test_a_pid_that_is_used_again_is_another_process(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Handle(process.pid)
    if handle.descriptor is None:
        monkeypatch.setattr(handle, "_began", 1.0)
        handle.kill()
        assert process.poll() is None
        assert handle.ended()


def test_a_group_is_killed_with_what_its_processes_started_and_what_it_starts_afterwards(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout is not None
    below = Handle(int(process.stdout.readline()))
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    group = Group()
    with other:
        with group.started():
            registered(process.pid)
        process.send_signal(signal.SIGSTOP)
        group.kill()
        assert below.ended(10)
        assert processes.left(10) == []
        with group.started():
            late = registered(other.pid)
        assert late is not None
        assert late.ended(10)


def test_what_was_killed_and_does_not_end_is_named_and_others_are_not(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, killed = registered(os.getpid()), registered(process.pid)
    assert running is not None
    assert killed is not None
    monkeypatch.setattr(killed, "send", lambda number: None)  # as one that waits for a device
    killed.kill()
    assert processes.left(0.01) == [process.pid]
    process.kill()
    assert killed.ended(10)
    assert processes.left(0) == []
