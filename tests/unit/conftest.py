"""Fixtures of the unit tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping

import pytest


@pytest.fixture
def environment() -> Iterator[MutableMapping[str, str]]:
    """The process's environment, put back as it was after the test."""
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)
