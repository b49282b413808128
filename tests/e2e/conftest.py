"""One server per checkpoint for the whole session, started when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.checkpoints import MAKERS
from tests.e2e.server import Server


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint, made when first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.exists() else MAKERS[name](path)

    return folder


@pytest.fixture(scope="session")
def server_of(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """The ready server of a checkpoint by its name; ``demo`` is what runs without ``--model``."""
    logs = tmp_path_factory.mktemp("logs")
    started: dict[str, Server] = {}

    def start(name: str) -> Server:
        if name not in started:
            flags = () if name == "demo" else ("--model", str(checkpoint(name)))
            started[name] = Server(logs / f"{name}.log", *flags)
        started[name].until_ready()
        return started[name]

    yield start
    for server in started.values():
        server.terminate()
    for server in started.values():
        server.stop()


@pytest.fixture
def demo(server_of: Callable[[str], Server]) -> Server:
    """The server of the bundled demo checkpoint, with no work in it."""
    server = server_of("demo")
    server.until_idle()
    return server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of a server's output beside the failure of a test that used it."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Server):
                report.sections.append(("output of the server", value.tail()))
    return report
