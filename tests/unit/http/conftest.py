"""A running app with the fake engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.service import Service, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running
