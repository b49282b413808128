"""Keys from a file, changed while the service runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.process import ServerProcess, refused, server
from tests.integration.service import PAIR, serving

OWN, OLD, NEW, NEWER = "own-s3cret", "old-s3cret", "new-s3cret", "newer-s3cret"


def mount(folder: Path, version: str, content: str) -> Path:
    """Put ``content`` where a Kubernetes Secret's volume puts it: the path of the file to read."""
    (folder / version).mkdir(parents=True)
    (folder / version / "keys").write_text(content)
    (folder / "next").symlink_to(version)
    os.replace(folder / "next", folder / "..data")
    if not (folder / "keys").is_symlink():
        (folder / "keys").symlink_to("..data/keys")
    return folder / "keys"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    mount(tmp_path, "..1", f"# of the trainers\n{OLD}\n")
    return tmp_path


@pytest.fixture
def process(secret: Path) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIVESCORE_API_KEY", OWN)
        patch.setenv("FIVESCORE_API_KEY_FILE", str(secret / "keys"))
        with server("--log-level", "debug") as running:
            yield running.ready()


async def takes(http: httpx.AsyncClient, key: str) -> bool:
    response = await http.get("/version", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code in (200, 401)
    return response.status_code == 200


async def until(http: httpx.AsyncClient, key: str, wanted: bool) -> None:
    async with asyncio.timeout(60):
        while await takes(http, key) is not wanted:  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0.05)


async def test_keys_are_changed_without_a_restart_and_never_shown(
    process: ServerProcess, secret: Path
) -> None:
    async with httpx.AsyncClient(base_url=process.url, timeout=60) as http:
        taken = [await takes(http, key) for key in (OWN, OLD, NEW, "none")]
        assert taken == [True, True, False, False]
        mount(secret, "..2", f"{OLD}\n{NEW}\n")
        await until(http, NEW, True)
        assert await takes(http, OLD)
        mount(secret, "..3", f"{NEW}\n")
        await until(http, OLD, False)
        assert await takes(http, NEW)

        mount(secret, "..4", "")
        await asyncio.to_thread(process.wait_for, "(0 keys.*THE KEYS READ BEFORE STAY IN FORCE)")
        mount(secret, "..5", f"{NEWER}\nname {NEWER}\n")
        await asyncio.to_thread(process.wait_for, "(line 2: .*STAY IN FORCE)")
        os.unlink(secret / "keys")
        await asyncio.to_thread(process.wait_for, "(No such file.*STAY IN FORCE)")
        assert [await takes(http, key) for key in (OWN, OLD, NEW)] == [True, False, True]

        mount(secret, "..6", f"{NEWER}\n")
        await until(http, NEWER, True)
        assert [await takes(http, key) for key in (OWN, NEW)] == [True, False]
    assert process.log.count("STAY IN FORCE") == 3
    assert "s3cret" not in process.log


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the file cannot be read: No such file or directory"),
        ("# s3cret\n\n", "the file has 0 keys; 1 to 1000 can be used"),
        ("a\ns3cret two\n", "line 2: a key is 1 to 512 visible ASCII characters without a comma"),
    ],
)
def test_a_file_that_is_wrong_at_the_start_is_one_line_and_exit_1(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "s3cret"
    if content is not None:
        path.write_text(content)
    shown = refused("--api-key-file", str(path))
    assert shown.splitlines()[-1].startswith(f"fivescore: error: --api-key-file: {said}")
    assert "s3cret" not in shown
    assert "ready after" not in shown


async def test_with_a_file_alone_the_page_asks_for_a_key(secret: Path) -> None:
    async with serving(api_key_file=str(secret / "keys")) as service:
        assert 'data-key="required"' in (await service.http.get("/")).text
        assert (await service.score(PAIR)).status_code == 401
        assert (await service.score(PAIR, Authorization=f"Bearer {OLD}")).status_code == 200


async def test_a_key_that_is_gone_keeps_what_it_asked_for_before(secret: Path) -> None:
    """Work that was let in is finished: a key is looked at once."""
    slow = {"latency_seconds": 4}
    async with serving(options=slow, api_key_file=str(secret / "keys")) as service:
        asked = asyncio.create_task(service.score(PAIR, Authorization=f"Bearer {OLD}"))
        await asyncio.sleep(0.05)
        mount(secret, "..2", NEW)
        await until(service.http, OLD, False)
        assert (await asked).status_code == 200
