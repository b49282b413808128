"""A local Ray cluster with two engine replicas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application on the demo checkpoint and real engines, ready."""
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    server = Server(log, "engines=2", "cpus=0.5", module="tests.ray.cluster")
    try:
        server.until_ready()
        yield server
    finally:
        server.stop()
