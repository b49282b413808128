"""Server processes, started together: each takes seconds to import what tokenizers need."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.integration.process import ServerProcess, server
from tests.integration.service import Service, serving

ANYWHERE = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


@dataclass(frozen=True)
class Servers:
    """``shared`` only answers; the others are ended by tests, ``slow`` by the last in its file."""

    shared: ServerProcess
    slow: ServerProcess
    failing: ServerProcess
    loading: ServerProcess


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(
            shared=stack.enter_context(server()),
            slow=stack.enter_context(
                server("--engine.latency-seconds", "3", "--log-level", "debug")
            ),
            failing=stack.enter_context(server("--engine.load-error", "out of memory")),
            loading=stack.enter_context(
                server("--engine.load-seconds", "3600", "--host", ANYWHERE)
            ),
        )


@pytest.fixture(scope="session")
def url(servers: Servers) -> str:
    """The address of a server with the fake engine, ready."""
    return servers.shared.ready().url


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """An app with the fake engine, ready."""
    async with serving() as running:
        yield running
