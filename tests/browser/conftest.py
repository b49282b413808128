"""A browser, and the services that it looks at, each started when a test first wants it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.integration.process import ServerProcess, server
from tests.tools import tool

if TYPE_CHECKING:
    from playwright.async_api import Browser

KEY = "s3cret-Key+/=:1"
HOSTILE_NAME = "<img src=x onerror=alert(1)>"
LIMIT = 200
"""Tokens a pair of ``odd``."""
ODD_MANIFEST = {
    "version": 1,
    "outputs": 9,
    "attributes": {
        "verbosity": {"output": 8, "scale": 3.0, "offset": -7.0},
        "safety": {"output": 3, "scale": -0.5},
        "correctness": {"output": 5},
    },
    "reward": {"weights": {"safety": 2.0, "verbosity": -0.25}, "bias": -1.5},
}
"""Nine outputs, attributes in no known order, values below 0 and above 4."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")
    from tests.browser.chromium import chromium

    async with chromium(tool("chromium")) as running:
        yield running


@pytest.fixture(scope="session")
def plain() -> Iterator[str]:
    """The address of a ready service, as ``fivescore serve`` starts it."""
    yield from _address()


@pytest.fixture(scope="session")
def scalar() -> Iterator[str]:
    """One output, read as the reward; no attributes."""
    yield from _address("--manifest", "scalar", "--engine.outputs", "1")


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    manifest = tmp_path_factory.mktemp("odd") / "reward.json"
    manifest.write_text(json.dumps(ODD_MANIFEST))
    yield from _address(
        "--manifest", str(manifest), "--engine.outputs", "9", "--name", HOSTILE_NAME,
        "--max-tokens", str(LIMIT),
    )  # fmt: skip


@pytest.fixture(scope="session")
def keyed() -> Iterator[str]:
    """It wants ``KEY``."""
    yield from _address("--api-key", KEY)


@pytest.fixture(scope="session")
def slow() -> Iterator[ServerProcess]:
    """One pair at a time, each for a minute; the last test of its file ends it."""
    with server("--max-inflight-pairs", "1", "--engine.latency-seconds", "60") as process:
        yield process.ready()


@pytest.fixture(scope="session")
def loading() -> Iterator[ServerProcess]:
    """It listens and never becomes ready."""
    with server("--engine.load-seconds", "3600") as process:
        yield process


def _address(*flags: str) -> Iterator[str]:
    with server(*flags) as process:
        yield process.ready().url


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    package = pytest.importorskip(
        "axe_playwright_python",
        reason="NOT CHECKED: 'make install' installs axe-playwright-python, which has axe-core",
    )
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
