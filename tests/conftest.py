"""Before any test imports the service: no network, no settings from the developer's shell, and no
test that fails because the machine was busy.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("FIVESCORE_")]:
    del os.environ[_name]

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

GROWTH = 2**29
"""Bytes that a process may grow by before its garbage is collected. Each app that a test makes has
a tokenizer of 50 MB, which is one object to the collector, and several processes test at once."""
_collected_at = 0


def pytest_runtest_logfinish() -> None:
    global _collected_at
    process = psutil.Process()
    if process.memory_info().rss > _collected_at + GROWTH:
        gc.collect()
        _collected_at = process.memory_info().rss


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background and a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command that runs in the test's own process configures the log for good."""
    root, ours = logging.getLogger(), logging.getLogger("fivescore")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
