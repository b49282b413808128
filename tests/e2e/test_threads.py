"""A CPU engine whose threads must share a core computes with fewer of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.checkpoints import scalar
from tests.e2e.server import running
from tests.e2e.test_lifecycle import children

PAIRS = [
    {"prompt": f"What is {n} plus {n}?", "response": f"It is {2 * n}. " * 40} for n in range(64)
]


def test_two_threads_on_one_core_become_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with running(tmp_path / "log", "--model", str(scalar(tmp_path / "model"))) as server:
        server.until_ready()
        before = [entry["reward"] for entry in server.score(PAIRS)]
        _pin(server.process.pid, min(os.sched_getaffinity(0)))

        def fewer() -> bool:
            rewards = [entry["reward"] for entry in server.score(PAIRS)]
            assert rewards == before, "the number of threads must not change a score"
            return "computing with 1 of 2 threads" in server.log.read_text()

        server.until("a thread was taken away", fewer)


def _pin(pid: int, core: int) -> None:
    for process in [pid, *children(pid)]:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), [core])
