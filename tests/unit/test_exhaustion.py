"""Which errors are the machine's own, and what their one line says."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from fivescore.engine.vllm.failures import startup_failure
from fivescore.exhaustion import plain_reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory: an allocation failed"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "not enough memory: "),
        (OSError(errno.ENOSPC, "No space left", "/a/file"), "not enough room on the disk: "),
        (OSError(errno.EMFILE, "Too many open files"), "not enough open files: "),
        (RuntimeError("can't start new thread"), "not enough memory or processes: "),
        (ImportError("libtorch.so: failed to map segment from shared object"), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
         "not enough memory: "),
        (PermissionError(errno.EACCES, "Permission denied", "/a/file"), "/a/file"),
        (ValueError("a fault of ours"), None),
        (RuntimeError("a fault of ours"), None),
    ],
)  # fmt: skip
def test_what_the_machine_has_too_little_of_is_named(error: Exception, said: str | None) -> None:
    reason = plain_reason(error)
    assert reason is None if said is None else reason is not None and said in reason


def test_the_cause_is_found_behind_other_errors() -> None:
    error = ValueError("it cannot be loaded")
    error.__cause__ = RuntimeError("nor can this")
    error.__cause__.__context__ = MemoryError()
    assert plain_reason(error) == "not enough memory: an allocation failed"


def test_a_place_without_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    for full in (["/elsewhere"], ["/dev/shm"], ["/elsewhere", "/dev/shm"]):
        monkeypatch.setattr(
            shutil, "disk_usage",
            lambda place, full=full: SimpleNamespace(free=0 if place in full else 2**30),
        )  # fmt: skip
        assert str(plain_reason(error)).endswith(f" ({' and '.join(full)}: full)")
        line = startup_failure("m", str(error))
        assert f"({' and '.join(full)}: full); free some" in line
    assert "full" not in str(plain_reason(MemoryError()))
