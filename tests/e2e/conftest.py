"""One server of the demo checkpoint for the whole session, started when first asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.e2e.server import Server, running


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("logs") / "demo.log") as server:
        yield server


@pytest.fixture
def demo(demo_server: Server) -> Server:
    """The server of the bundled demo checkpoint, ready and with no work in it."""
    demo_server.until_ready()
    demo_server.until_idle()
    return demo_server


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
