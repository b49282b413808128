"""The wheel: it holds the package alone, and a typed client program runs on what it installs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="NOT CHECKED: 'make install' installs hatchling")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "fivescore"
PROGRAM = """
import asyncio
import sys
from typing import assert_type

import fivescore
from fivescore.client import AsyncRewardClient, BadAnswer, RewardClient, Unreachable
from fivescore.client.integrations.trl import RewardFunction
from fivescore.errors import FivescoreError
from fivescore.types import Pair, Score


async def ask(url: str) -> list[Score]:
    async with AsyncRewardClient(url, deadline_seconds=0) as client:
        found = await client.score([Pair(prompt="a", response="b")])
        assert_type(await client.score([("a", "b")], errors="none"), list[Score | None])
        assert_type(await client.score(pair for pair in [["a", "b"]]), list[Score])
    return found


def main() -> str:
    try:
        with RewardClient("http://127.0.0.1:9", deadline_seconds=0) as client:
            scores = client.score([{"prompt": "a", "response": "b"}], errors="return")
            assert_type(scores, list[Score | FivescoreError])
            assert all(isinstance(one, Unreachable) for one in scores), scores
        asyncio.run(ask("http://127.0.0.1:9"))
    except (Unreachable, BadAnswer) as error:
        assert_type(error.detail, str)
        return error.code
    return "answered"


assert main() == "unreachable"
RewardFunction("http://127.0.0.1:9")
server = {"fastapi", "torch", "transformers", "uvicorn", "vllm"}
assert not server & sys.modules.keys(), server & sys.modules.keys()
print(fivescore.__file__)
"""
WRONG = """
from fivescore.client import RewardClient

score: int = RewardClient().score([("a", "b")], truncate="middle")[0]
"""


def _run(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command without this checkout on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """An interpreter with the wheel installed; it borrows the dependencies from this one."""
    home = wheel.parent / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    (own,) = home.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(own)  # As pip installs it, but quickly.
    # As a path alone: its .pth files, the editable install of this checkout's among them, stay out.
    (own / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return python


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (file for file in PACKAGE.rglob("*") if file.is_file())
    assert held == {
        str(file.relative_to(PACKAGE.parent)) for file in files if "__pycache__" not in file.parts
    }
    assert {"fivescore/py.typed", "fivescore/http/page.html"} <= held
    # How the demo checkpoint was made is not installed with it.
    demo = {name.split("/")[2] for name in held if name.startswith("fivescore/demo/")}
    assert demo == {"fivescore-demo"}
    assert not [name for name in held if "test" in name]


def test_vllm_finds_its_plugin_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("entry_points.txt"))
        written = opened.read(name).decode()
    assert "[vllm.general_plugins]\nfivescore = fivescore.engine.vllm.heads:register\n" in written


def _checked(python: Path, program: str) -> subprocess.CompletedProcess[str]:
    folder = python.parents[2]
    (folder / "program.py").write_text(program)
    return _run(
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python,
        "--cache-dir", folder / "cache", "program.py", folder=folder,
    )  # fmt: skip


def test_a_typed_client_program_passes_strict_mypy_and_runs_on_it(python: Path) -> None:
    checked = _checked(python, PROGRAM)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ran = _run(python, "program.py", folder=python.parents[2])
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).is_relative_to(python.parents[1])


def test_its_annotations_find_a_wrong_program(python: Path) -> None:
    checked = _checked(python, WRONG)
    assert "[call-overload]" in checked.stdout, checked.stdout
