"""Network namespaces of this process's own threads, joined by a wire that the test holds.

A thread may leave its process's network namespace, and what it starts (threads, processes) begins
in the one that it is in. So a client or a server of a scenario lives in a namespace of its own,
while the scenario stays where it is. Nothing of the machine's network is touched, and a namespace
is gone when its last thread, process and file are.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from tests.faults.result import NotRun

Given = ParamSpec("Given")
Returned = TypeVar("Returned")

TUN = Path("/dev/net/tun")
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Of linux/if_tun.h: a device whose packets are a file's, without a header before them."""
SYSTEM = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with one interface, whose packets are read and written at ``packets``.

    Args:
        address: its IPv4 address; every other one is reached over the interface.
        mounts: it has mounts of its own too.

    Raises:
        NotRun: this machine, or this user, can make none.
    """

    def __init__(self, address: str, mounts: bool = False) -> None:
        self.address = address
        self.packets = -1
        # One thread: whatever is called here is called in the namespace.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"namespace-{address}")
        try:
            self._thread.submit(self._open, mounts).result()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise NotRun(f"no network namespaces here: {error}") from error

    def _open(self, mounts: bool) -> None:
        if SYSTEM.unshare(CLONE_NEWNET | (CLONE_NEWNS if mounts else 0)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
        self.packets = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.packets, TUNSETIFF, struct.pack("16sH14x", b"wire", IFF_TUN | IFF_NO_PI))
        for words in (
            "link set lo up", f"address add {self.address}/24 dev wire", "link set wire up",
        ):  # fmt: skip
            self._command("ip", *words.split())
        if mounts:
            self._command("mount", "--make-rprivate", "/")

    def mount(self, source: Path, target: str) -> None:
        """Show the file ``source`` as ``target`` to what runs in it."""
        self.call(self._command, "mount", "--bind", str(source), target)

    def _command(self, *words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    def call(
        self, function: Callable[Given, Returned], *given: Given.args, **named: Given.kwargs
    ) -> Returned:
        """What ``function`` returns in the namespace; blocks."""
        return self._thread.submit(function, *given, **named).result()

    async def run(
        self, function: Callable[Given, Returned], *given: Given.args, **named: Given.kwargs
    ) -> Returned:
        """The same, without blocking the event loop."""
        return await asyncio.wrap_future(self._thread.submit(function, *given, **named))

    def close(self) -> None:
        self._thread.shutdown()
        if self.packets >= 0:
            os.close(self.packets)
            self.packets = -1
