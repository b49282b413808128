"""A process with keys, and the connections that it can hold."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from fivescore.cli import main
from tests.integration.process import ServerProcess, refused, server
from tests.integration.service import PAIR

KEY, OTHER_KEY = "s3cret-Key+/=:1", "another_key"
SHELLS_FILES = 256
"""An open-file limit as a shell may set it, below what trainers open."""


@pytest.fixture(scope="module")
def process() -> Iterator[ServerProcess]:
    """It inherits a low soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("FIVESCORE_API_KEY", f"{OTHER_KEY}, {KEY}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (SHELLS_FILES, hard))
        try:
            running = stack.enter_context(server("--log-level", "debug"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield running.ready()


async def test_aiohttp_sends_the_key_that_stands_in_the_address(process: ServerProcess) -> None:
    address = process.url.removeprefix("http://")
    body: dict[str, Any] = {"query": [], "prompts": [], "labels": []}
    async with aiohttp.ClientSession() as session:
        for url, status in (
            (f"http://x:{OTHER_KEY}@{address}/get_reward", 200),
            (f"http://{address}/get_reward?api_key={OTHER_KEY}", 200),
            (f"http://x:wrong@{address}/get_reward", 401),
            (f"http://{address}/get_reward", 401),
        ):
            async with session.post(url, json=body) as response:
                assert response.status == status
    assert OTHER_KEY not in process.log
    assert KEY not in process.log


async def test_a_connection_lives_on_after_a_401_with_its_body_unread(
    process: ServerProcess,
) -> None:
    large = "x" * 3_000_000
    async with httpx.AsyncClient(base_url=process.url, timeout=60) as http:
        for _ in range(3):
            body = {"prompt": large, "response": "A"}
            assert (await http.post("/score", json=body)).status_code == 401
            headers = {"Authorization": f"Bearer {OTHER_KEY}"}
            assert (await http.post("/score", json=PAIR, headers=headers)).status_code == 200


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(process: ServerProcess) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SHELLS_FILES
    limits = Path(f"/proc/{process._process.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == [str(hard), str(hard)]


def test_help_shows_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIVESCORE_API_KEY", KEY)
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert KEY not in shown
    assert "--api-key" in shown
    assert "()" not in shown  # the default is told in words


@pytest.mark.parametrize("flags", [("--port", "many"), ("--api-key", f"{KEY},schlüssel-abc")])
def test_a_configuration_error_shows_no_key(
    flags: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIVESCORE_API_KEY", KEY)
    shown = refused(*flags)
    assert flags[0] in shown.splitlines()[-1]
    assert KEY not in shown
    assert "schlüssel" not in shown
