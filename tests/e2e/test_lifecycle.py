"""From the first line of output to the last process: start, drain, stop, and starts that fail."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from fivescore.engine.vllm.forkserver import METHOD
from fivescore.settings import DEMO
from tests.checkpoints import three_outputs
from tests.e2e.server import START_SECONDS, command, environment, free_port, running
from tests.e2e.test_engine import large_request

DRAINED_PAIRS = 300
ENGINE, FORK_SERVER = "VLLM::EngineCore", "fivescore::ForkServer"


def children(pid: int) -> list[int]:
    """Every process below ``pid``, by the kernel's own lists."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a short one may end meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *children(child)]
    return found


def has(pid: int, title: str) -> bool:
    """Whether a process with this title runs below ``pid``."""
    return any(title in command_line(child) for child in children(pid))


def title(pid: int) -> str:
    """What a process calls itself."""
    return command_line(pid).rstrip("\0")


def command_line(pid: int) -> str:
    """What ``ps`` shows of it; empty when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextmanager
def all_ending(pid: int) -> Iterator[None]:
    """Assert that what runs below ``pid`` now has ended when the body has."""
    with ExitStack() as stack:
        descriptors = []
        for child in children(pid):
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(child))
                stack.callback(os.close, descriptors[-1])
        assert descriptors, "vLLM's engine runs in a process of its own"
        yield
        # The kernel hands exits on one after the other, so allow for that, not for more.
        assert not any(outlives(descriptor, 5.0) for descriptor in descriptors)


def outlives(descriptor: int, seconds: float) -> bool:
    """Whether the process of a pidfd still runs after so long; returns early when it ends."""
    ended, _, _ = select.select([descriptor], [], [], seconds)
    return not ended


def test_loading_serving_draining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One server from start to end, since each costs a start of vLLM; with no caches, as in a new
    container."""
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.delenv(METHOD, raising=False)
    started: set[str] = set()
    pair = {"prompt": "What is a dog?", "response": "An animal."}
    with running(tmp_path / "server.log") as server:
        server.until("it listens", lambda: server.status("/health/live") is not None)
        assert server.status("/health/live") == 200
        assert server.status("/health/ready") == 503
        assert server.status("/health") == 503
        assert server.metric("fivescore_engine_state", 'state="loading"') == 1
        refused = server.post(pair)
        assert refused.status_code == 503
        assert refused.json()["code"] == "loading"
        assert int(refused.headers["retry-after"]) >= 1

        def ready() -> bool:
            started.update(map(command_line, children(server.process.pid)))
            return server.status("/health/ready") == 200

        server.until("ready", ready, START_SECONDS)
        assert not [line for line in started if "registry" in line], "none imports vLLM for itself"
        assert server.status("/health") == 200
        assert server.metric("fivescore_engine_state", 'state="ready"') == 1
        (parent,) = (pid for pid in children(server.process.pid) if has(pid, ENGINE))
        assert FORK_SERVER in command_line(parent), "vLLM was imported beforehand"
        assert server.post(pair).status_code == 200

        client = http.client.HTTPConnection("127.0.0.1", server.port)
        with closing(client), all_ending(server.process.pid):
            client.request("POST", "/score", json.dumps(large_request("drained", DRAINED_PAIRS)))
            server.until(
                "the large request is in the engine",
                lambda: (
                    server.metric("fivescore_inflight_pairs") == DRAINED_PAIRS
                    and server.metric("vllm:num_requests_running") > 0
                ),
            )
            server.terminate()
            server.until("it drains", lambda: server.status("/health/ready") == 503)
            refused = server.post(pair)
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            answer = client.getresponse()
            scores = json.loads(answer.read())["scores"]
            assert server.process.wait(60) == 0, server.tail()
        assert answer.status == 200
        assert len(scores) == DRAINED_PAIRS
        assert [entry for entry in scores if "reward" not in entry] == []
        assert "Traceback" not in server.tail(1000)


@pytest.mark.parametrize("forked", [True, False])
def test_sigterm_while_loading(
    forked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a model that nobody will use; an operator may choose how engines begin."""
    monkeypatch.delenv(METHOD, raising=False)
    if not forked:
        monkeypatch.setenv(METHOD, "spawn")
    with running(tmp_path / "server.log") as server:
        server.until("vLLM starts its engine", lambda: has(server.process.pid, ENGINE))
        assert has(server.process.pid, FORK_SERVER) == forked
        with all_ending(server.process.pid):
            server.terminate()
            assert server.process.wait(60) == 0, server.tail()
        assert "Traceback" not in server.tail(1000)


@dataclass(frozen=True)
class Failure:
    """A start that fails: its flags, and what its one line must name."""

    name: str
    flags: Sequence[str]
    named: Sequence[str]
    variables: tuple[tuple[str, str], ...] = ()


FAILURES = (
    Failure("missing folder", ("--model", "/no/such/folder"), ("/no/such/folder",)),
    Failure("folder without a model", ("--model", "/proc"), ("/proc", "config.json")),
    Failure("unknown flag", ("--no-such-flag", "1"), ("--no-such-flag",)),
    Failure("bad port", ("--port", "http"), ("port", "http")),
    Failure(
        "unknown variable",
        (),
        ("FIVESCORE_MAX_TOKEN", "FIVESCORE_MAX_TOKENS"),
        (("FIVESCORE_MAX_TOKEN", "5"),),
    ),
    Failure("unknown engine setting", ("--engine.no-such-thing", "1"), ("no-such-thing",)),
    Failure("bad engine value", ("--engine.dtype", "float33"), ("dtype", "float33")),
    Failure(
        "too little memory for the KV cache",
        ("--engine.kv-cache-memory-bytes", "1000"),
        ("KV cache", "memory"),
    ),
)


def broken_demo(folder: Path, **config: object) -> Path:
    """A copy of the demo whose config.json says something else."""
    shutil.copytree(DEMO, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["NoSuchModel"]}, ("NoSuchModel", "config.json")),
        ({"head_dim": 40}, ("head_dim=40", "attention cannot run the model")),
    ],
)
def test_a_model_that_cannot_load_is_reported_by_its_root_cause(
    config: dict[str, object], named: Sequence[str], tmp_path: Path
) -> None:
    folder = broken_demo(tmp_path / "model", **config)
    if "head_dim" in config:  # weights that fit config.json pass the checks before the engine's
        read = AutoConfig.from_pretrained(folder)
        AutoModelForSequenceClassification.from_config(read).save_pretrained(folder)
    last = fail_to_start(Failure("", ("--model", str(folder)), named))
    assert len(last) <= len("fivescore: error: ") + 300
    assert "root cause" not in last


def fail_to_start(failure: Failure) -> str:
    """Assert that a start fails with one line that names the cause; returns the line."""
    port = () if "--port" in failure.flags else ("--port", str(free_port()))
    ended = subprocess.run(
        command(*port, *failure.flags),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        env=environment(dict(failure.variables)),
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2), output
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("fivescore: error: "), output
    for word in failure.named:
        assert word in last
    assert "Traceback" not in output
    assert output.count("fivescore: error: ") == 1
    return last


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_start_that_fails_says_why_in_one_line(failure: Failure) -> None:
    fail_to_start(failure)


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        fail_to_start(Failure("", ("--port", port), (port, "in use")))


def test_three_outputs_need_a_manifest(tmp_path: Path) -> None:
    folder = three_outputs(tmp_path / "three")
    fail_to_start(Failure("", ("--model", str(folder)), ("3 outputs", "reward.json")))
