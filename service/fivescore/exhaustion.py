"""What a process has too little of, said in one line: memory, threads, files, room on a disk."""

from __future__ import annotations

import errno
import math
import os
import resource
import shutil
from collections.abc import Iterator

from fivescore.errors import ConfigurationError, first_line

GIB = 2**30
LEAST_ADDRESSES = 2 * GIB
"""Bytes of addresses that torch, transformers and tokenizers take in one process. Measured on two
cores: with 1.4 GiB they work; with less they cannot be imported, abort or wait for ever."""
LEAST_ADDRESSES_OF_VLLM = 4 * GIB
"""The same with vLLM, in its engine's process."""

LEAST_ROOM = 2**16
"""Bytes below which a file system counts as full: a semaphore or a socket's name takes a page."""
TEMPORARY = "/tmp"  # noqa: S108  # it is looked at, not written to
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the same
"""64 MB in a container, unless it is told otherwise."""

_SHORT_OF = {
    errno.ENOMEM: "memory", errno.ENOSPC: "room on the disk", errno.EDQUOT: "room on the disk",
    errno.EMFILE: "open files", errno.ENFILE: "open files", errno.EAGAIN: "processes",
    errno.EFBIG: "room in a file",
}  # fmt: skip
_MEMORY = ("failed to map segment", "cannot allocate memory", "can't allocate memory",
           "out of memory", "cannot mmap")  # fmt: skip
"""What messages of the loader (ld.so), torch and safetensors say, in lower case."""
_THREADS = ("can't start new thread",)
_LIMITS = {
    "memory": (resource.RLIMIT_AS, "ulimit -v", 1024, "kB"),
    "open files": (resource.RLIMIT_NOFILE, "ulimit -n", 1, "files"),
    "processes": (resource.RLIMIT_NPROC, "ulimit -u", 1, "processes and threads"),
    "room in a file": (resource.RLIMIT_FSIZE, "ulimit -f", 1024, "kB"),
}


def check_addresses(least: int) -> None:
    """Refuse limits on memory (RLIMIT_AS, RLIMIT_DATA) at which libraries abort or wait for ever.

    Args:
        least: in bytes.

    Raises:
        ConfigurationError: a limit is lower.
    """
    for number, command in ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")):
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY and limit < least:
            raise ConfigurationError(
                f"{command} allows this process {limit // 1024} kB, and its libraries alone need"
                f" {least // 1024} kB: raise that limit, or limit memory by a cgroup instead"
            )


def plain_reason(error: BaseException) -> str | None:
    """One line for an error that the machine or its limits are the cause of; None for others."""
    for cause in _chain(error):
        if (short := _short_of(cause)) is not None:
            return f"not enough {short}: {_said(cause)}{_limit(short)}{_where(short)}"
    return _said(error) if isinstance(error, OSError) else None


def full_places() -> list[str]:
    """The places that libraries write to, whatever the settings, and that have no room left."""
    return [
        place
        for place in dict.fromkeys((os.environ.get("TMPDIR", TEMPORARY), SHARED_MEMORY))
        if _free_bytes(place) < LEAST_ROOM
    ]


def _free_bytes(place: str) -> float:
    try:
        return shutil.disk_usage(place).free
    except OSError:  # it is not there
        return math.inf


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised because of; each once."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _short_of(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError):
        return _SHORT_OF.get(error.errno or 0)
    said = str(error).lower() if isinstance(error, ImportError | RuntimeError) else ""
    if any(words in said for words in _THREADS):
        return "memory or processes"
    return "memory" if any(words in said for words in _MEMORY) else None


def _said(error: BaseException) -> str:
    return first_line(error) if str(error) else "an allocation failed"


def _where(short: str) -> str:
    full = full_places() if short == _SHORT_OF[errno.ENOSPC] else []
    return f" ({' and '.join(full)}: full)" if full else ""


def _limit(short: str) -> str:
    """The limits of this process on it, where there are any."""
    found = []
    for what, (number, command, unit, name) in _LIMITS.items():
        limit = resource.getrlimit(number)[0]
        if what in short and limit != resource.RLIM_INFINITY:
            found.append(f"{command} allows {limit // unit} {name}")
    return f" ({', '.join(found)})" if found else ""
