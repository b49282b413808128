"""A process with keys, and the connections that it can hold."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.integration.process import ServerProcess, server
from tests.integration.service import PAIR

KEY, OTHER_KEY = "s3cret-Key+/=:1", "another_key"


SHELLS_FILES = 256
"""An open-file limit as a shell may set it, below what trainers open."""


@contextmanager
def few_files() -> Iterator[None]:
    """Processes that are started meanwhile inherit a low soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SHELLS_FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def process() -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("FIVESCORE_API_KEY", f"{OTHER_KEY}, {KEY}")
        with few_files():
            running = stack.enter_context(server("--log-level", "debug"))
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


def test_help_shows_no_key() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIVESCORE_API_KEY", KEY)
        done = fivescore("--help")
    assert KEY not in done.stdout
    assert "--api-key" in done.stdout
    assert "()" not in done.stdout  # the default is told in words


@pytest.mark.parametrize("flags", [("--port", "many"), ("--api-key", f"{KEY},schlüssel-abc")])
def test_a_configuration_error_shows_no_key(flags: tuple[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIVESCORE_API_KEY", KEY)
        done = fivescore(*flags)
    assert done.returncode == 1
    assert flags[0] in done.stderr.splitlines()[-1]
    assert KEY not in done.stdout + done.stderr
    assert "schlüssel" not in done.stdout + done.stderr


def test_a_policys_tokenizer_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    done = fivescore("--policy-tokenizer", missing)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"fivescore: error: policy_tokenizer {missing}: ")
    assert "Traceback" not in done.stderr


def fivescore(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fivescore", "serve", "--backend", "fake", "--port", "0", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
