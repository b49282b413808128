"""One server per checkpoint for the whole session, started when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.checkpoints import MAKERS
from tests.e2e.server import Server

_started: dict[str, Server] = {}


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

    def start(name: str) -> Server:
        if name not in _started:
            flags = () if name == "demo" else ("--model", str(checkpoint(name)))
            _started[name] = Server(logs / f"{name}.log", *flags)
        _started[name].until_ready()
        return _started[name]

    yield start
    for server in _started.values():
        server.stop()
    _started.clear()


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
    """Show the end of every running server's output beside a failure."""
    report = yield
    if report.failed:
        for name, server in _started.items():
            report.sections.append((f"output of the {name} server", server.tail()))
    return report
