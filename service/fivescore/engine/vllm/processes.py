"""Processes that this one starts: none outlives it, and none counts as dead before it is.

A process ends with its parent by the kernel's own hand (prctl(2), PR_SET_PDEATHSIG), whatever state
it is in: a thread or a pipe that it had to look at would do nothing while it is stopped (SIGSTOP).
So it can have a process group of its own: the signals of a terminal (Ctrl-C), and whatever else is
sent to all of a group, are for the service, which decides when its engine may end.

Its death is that of the process itself (pidfd_open(2)), not of what it was started by or wrote to.
Where there is no such call, it is that of the process with this pid and this start time.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from fivescore.engine.vllm import internals

PR_SET_PDEATHSIG = 1
"""``linux/prctl.h``."""
LOOK_SECONDS = 0.02
"""Between two looks at a process that has no pidfd."""

_Start = Callable[[bytes, Sequence[str], Sequence[int]], int]


def bind_children() -> None:
    """Let every process that ``multiprocessing`` starts from now on end with this one."""
    if sys.platform == "linux" and internals.usable(internals.BIND):
        internals.wrap("multiprocessing.util", "spawnv_passfds", _start_bound)


def _start_bound(start: _Start, path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
    """Start a Python process whose program (``-c``) binds it to this one before anything else."""
    place = list(args).index("-c") + 1
    # The tracker unlinks what the others leave, and then ends: it only must not stand still.
    tracker = "multiprocessing.resource_tracker" in args[place]
    program = _bound(signal.SIGCONT if tracker else signal.SIGKILL) + args[place]
    return _on_lasting_thread(
        partial(start, path, [*args[:place], program, *args[place + 1 :]], passfds)
    )


def _bound(number: signal.Signals) -> str:
    """``end_with_parent`` as the beginning of a program, which finds nothing of ours yet."""
    return (
        "import ctypes, os; os.setpgid(0, 0);"
        f" ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {number:d}, 0, 0, 0);"
        f" os.getppid() == {os.getpid()} or os._exit(1); "
    )


def _on_lasting_thread(start: Callable[[], int]) -> int:
    """Start a child on a thread that lasts as long as the child: to the kernel, the parent that
    ends is the thread. Returns its pid."""
    if threading.current_thread() is threading.main_thread():
        return start()
    started: Future[int] = Future()

    def last() -> None:
        try:
            started.set_result(start())
        except BaseException as error:
            started.set_exception(error)
            return
        with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
            os.waitid(os.P_PID, started.result(), os.WEXITED | os.WNOWAIT)

    threading.Thread(target=last, name="parent", daemon=True).start()
    return started.result()


def end_with_parent(parent: int) -> None:
    """Let this process end when the thread that started it does; at once, if it has already.

    Args:
        parent: the pid of the process of that thread.
    """
    os.setpgid(0, 0)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        threading.Thread(target=_end_after_parent, name="parent-watch", daemon=True).start()
    elif os.getppid() != parent:
        os._exit(1)


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def has_pidfd() -> bool:
    """Whether kernel and sandbox let this process open one."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class Handle:
    """One process, and no other that gets its pid later.

    Raises:
        ProcessLookupError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.killed = False
        try:
            self.descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except (AttributeError, OSError):
            self.descriptor = None
            self._began = _began(pid)
            if self._began is None:
                raise ProcessLookupError(pid) from None
        else:
            closing = weakref.finalize(self, os.close, self.descriptor)
            closing.atexit = False  # functions that run at the exit may still wait for it

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended within so long: it holds no memory and no device any more."""
        if self.descriptor is not None:
            return bool(connection.wait([self.descriptor], seconds))
        give_up = time.monotonic() + seconds
        while _began(self.pid) == self._began:
            if time.monotonic() >= give_up:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.descriptor is not None:
                signal.pidfd_send_signal(self.descriptor, number)
            elif not self.ended():
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.killed = True
        self.send(signal.SIGKILL)


def _began(pid: int) -> float | None:
    """When a process began, in seconds since the epoch; None where it has ended."""
    import psutil  # the server alone, without vLLM, has none

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


class Group:
    """The processes of one engine, and those that they started."""

    def __init__(self) -> None:
        self.children: list[BaseProcess] = []
        """Those that this process has started: it alone knows with which status they end."""
        self._handles: dict[int, Handle] = {}
        self._killed = False

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """The processes that the body starts on this thread are this group's."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._look()

    def add(self, handle: Handle) -> None:
        self._handles[handle.pid] = handle
        _known.append(handle)
        if self._killed:
            handle.kill()

    def _look(self) -> None:
        """Add what vLLM has started without asking us, and what its processes have started."""
        import psutil

        for child in multiprocessing.active_children():
            if child.pid is not None and not hasattr(child, "starter"):
                self._add_if(psutil.Process(child.pid))
        for handle in list(self._handles.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(handle.pid)
                for one in [] if handle.ended() else process.children(recursive=True):
                    self._add_if(one)

    def _add_if(self, process: Any) -> None:
        """Add psutil's ``process``, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            handle = Handle(process.pid)
            if process.is_running() and process.pid not in self._handles:
                self.add(handle)

    def kill(self) -> None:
        """Kill them all, also one that is being started; ``left`` says when they have ended."""
        self._killed = True
        self._look()
        for handle in list(self._handles.values()):
            handle.kill()


_current: ContextVar[Group | None] = ContextVar("group", default=None)
_known: list[Handle] = []


def register(process: BaseProcess) -> Handle | None:
    """A handle of a process that has just been started, for the group that starts it; None where
    it has ended already."""
    assert process.pid is not None
    group = _current.get()
    if group:
        group.children.append(process)
    try:
        handle = Handle(process.pid)
    except ProcessLookupError:
        return None
    if group:
        group.add(handle)
    else:
        _known.append(handle)
    return handle


def kill_all() -> None:
    """Kill every engine's processes."""
    for handle in _known[:]:
        handle.kill()


def left(seconds: float) -> list[int]:
    """The pids of killed processes that have not ended within so long, which holds for all."""
    give_up = time.monotonic() + seconds
    found = [
        handle.pid
        for handle in list(_known)
        if handle.killed and not handle.ended(max(0.0, give_up - time.monotonic()))
    ]
    _known[:] = [handle for handle in _known if not handle.ended()]
    return found
