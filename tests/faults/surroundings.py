"""Scenarios 12 to 17: a machine that is not as usual while a real engine serves.

Each one starts a server of its own under the conditions, asks for pairs, does its fault while they
are scored, kills the engine in the middle (what starts under the conditions must start again under
them), and stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from tests.e2e.server import Server, command, environment
from tests.faults.asking import score_all
from tests.faults.bench import FLAGS, Bench
from tests.faults.cgroup import MemoryGroup
from tests.faults.known import Known
from tests.faults.result import NotRun, Result, Tally, at_least, at_most, only, total
from tests.faults.startup import faults_of
from tests.faults.target import PATIENCE_SECONDS, Target

PAIRS = 400
BATCH = 16
HOUR = 3600
USER = 12345
"""A user id that no account has."""
RESTARTS = "fivescore_engine_restarts_total"
PRIVATE = ("unshare", "--mount", "--propagation", "private")
SMALL_DISK = """mount -t tmpfs -o size=8m small "$0" || exit 99
cd "$0"
exec "$@" >> "$0/server.log" 2>&1
"""
"""A small disk that only the command sees, with its working directory and its log."""
SMALL_MEMORY_DISK = """mount -t tmpfs -o size=64m small /dev/shm || exit 99
[ -z "$filled" ] || cat /dev/zero > /dev/shm/fill 2>/dev/null
exec "$@"
"""
"""A container's ``/dev/shm``."""
FILLED = "filled=yes\n"
TRACEBACK = "Traceback (most recent call last)"
NOBODY_LISTENS = "http://127.0.0.1:9"
CLOCK = Path(__file__).parent / "clock.c"
SECONDS = struct.Struct("l")
"""Of a C long: what ``clock.c`` adds to the wall clock."""
Doing = Callable[[Target, Sequence[Known]], Awaitable[list[Tally]]]


async def clock_jumps(bench: Bench) -> Result:
    """The wall clock goes an hour forwards, then two back, while pairs are scored."""
    offset = bench.folder.absolute() / "clock"
    offset.write_bytes(SECONDS.pack(0))
    library = await asyncio.to_thread(_clock, bench.folder.absolute() / "clock.so")
    variables = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    shown: list[float] = []

    async def jump(target: Target, known: Sequence[Known]) -> list[Tally]:
        tallies = []
        for seconds in (HOUR, -HOUR, 0):
            call = asyncio.create_task(_call(target, known))
            await asyncio.to_thread(_set, offset, seconds)
            tallies.append(await call)
            shown.append(await _date(target) - time.time() - seconds)
        return tallies

    result = await _under(
        bench, "the clock an hour forwards, two back, and right again", jump, variables=variables
    )
    result.bounds.append(at_most("clock as set, s off", max(map(abs, shown), default=HOUR), 5))
    return result


async def nameless_user(bench: Bench) -> Result:
    """A user id without an account and without a home, as containers give one."""
    ids = (f"--map-user={USER}", f"--map-group={USER}")
    before = ("unshare", "--user", *ids, "env", "--chdir=/",
              *(f"--unset={name}" for name in ("HOME", "USER", "LOGNAME")))  # fmt: skip
    _need(("unshare", "--user", *ids), "no user namespaces here")
    return await _under(bench, f"user id {USER} without account and home", _once, before)


async def optimised(bench: Bench) -> Result:
    """Without assertions it serves; without docstrings it says that it cannot."""
    variables = {"PYTHONOPTIMIZE": "1", "PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode")}
    result = await _under(bench, "PYTHONOPTIMIZE=1", _once, variables=variables)
    said = await asyncio.to_thread(_refused, {"PYTHONOPTIMIZE": "2"})
    result.done += "; refused with PYTHONOPTIMIZE=2"
    result.notes += faults_of("PYTHONOPTIMIZE=2", ("PYTHONOPTIMIZE=2",), *said)
    return result


def _refused(variables: Mapping[str, str] | None, before: Sequence[str] = ()) -> tuple[int, str]:
    """Exit status and output of a start that fails."""
    ended = subprocess.run(
        [*before, *command("--port", "0")], env=environment(variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


async def shared_memory_full(bench: Bench) -> Result:
    """``/dev/shm`` has no room: at the start, and later, while the engine is killed."""
    _need(PRIVATE, "no private mounts here")
    mounted = (*PRIVATE, "sh", "-c", SMALL_MEMORY_DISK, "sh")
    result = await _under(
        bench, "/dev/shm full for a while", _filling(bench, "/dev/shm"), mounted, kill=False
    )
    full = (*PRIVATE, "sh", "-c", FILLED + SMALL_MEMORY_DISK, "sh")
    said = await asyncio.to_thread(_refused, None, full)
    result.done += "; a start with it full, which names it"
    result.notes += faults_of("/dev/shm full", ("/dev/shm", "--shm-size"), *said)
    return result


async def disk_fills(bench: Bench) -> Result:
    """The disk of the log, the working directory, temporary files and caches becomes full, with
    traces on that nobody takes."""
    _need(PRIVATE, "no private mounts here")
    disk = bench.folder.absolute() / "small disk"
    disk.mkdir()
    before = (*PRIVATE, "sh", "-c", SMALL_DISK, str(disk))
    places = ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VLLM_CACHE_ROOT")
    logged: list[int] = []

    async def fill(target: Target, known: Sequence[Known]) -> list[Tally]:
        tallies = await _filling(bench, str(disk))(target, known)
        log = _inside(target, str(disk)) / "server.log"
        size = log.stat().st_size
        tallies.append(await _call(target, known))
        await target.until("it logs again", lambda: _is(log.stat().st_size > size))
        shutil.copy(log, target.server.log)
        logged.append(log.stat().st_size - size)
        return tallies

    result = await _under(
        bench, "the disk full for a while", fill, before, dict.fromkeys(places, str(disk)),
        ("--otlp-traces-endpoint", NOBODY_LISTENS), kill=False,
    )  # fmt: skip
    result.bounds.append(at_least("logged again, bytes", sum(logged), 1))
    return result


def _filling(bench: Bench, disk: str) -> Doing:
    """Calls while a disk of the server's own becomes full, and while its engine is killed then."""

    async def fill(target: Target, known: Sequence[Known]) -> list[Tally]:
        filled = _inside(target, disk) / "fill"
        tallies = [await _call(target, known)]
        call = asyncio.create_task(_call(target, known))
        await asyncio.to_thread(_fill, filled)
        tallies.append(await call)
        # A new engine may need room of its own: then it waits until there is some.
        killed = asyncio.create_task(_calls_during(target, known, _kill(target)))
        await asyncio.sleep(bench.scale.network_seconds)
        await asyncio.to_thread(filled.unlink)
        return tallies + await killed

    return fill


def _inside(target: Target, place: str) -> Path:
    """A place as the server sees it."""
    return Path(f"/proc/{target.server.process.pid}/root{place}")


async def memory_group(bench: Bench) -> Result:
    """The kernel kills the engine because its cgroup has no memory left."""
    group = MemoryGroup("fivescore-faults")
    try:
        kills: list[int] = []
        told: list[bool] = []

        async def exhaust(target: Target) -> None:
            restarts = await target.metric(RESTARTS)
            await _working(target)
            await asyncio.to_thread(group.exhaust)
            kills.append(group.kills())
            await _again(target, restarts)
            told.append(await asyncio.to_thread(_log_has, target, "ended by SIGKILL"))

        async def squeeze(target: Target, known: Sequence[Known]) -> list[Tally]:
            return await _calls_during(target, known, exhaust(target))

        result = await _under(bench, "the cgroup without memory", squeeze, group.words, kill=False)
        result.bounds.append(at_least("killed by the kernel", sum(kills), 1))
        result.bounds.append(at_least("lines of the log that say so", sum(told), 1))
        return result
    finally:
        await asyncio.to_thread(group.close)


async def _under(
    bench: Bench,
    what: str,
    doing: Doing,
    before: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    kill: bool = True,
) -> Result:
    """The result of ``doing``, and of a killed engine, at a server that is started so."""
    await bench.close()
    known = await bench.known(PAIRS)
    log = bench.folder / f"{what.replace('/', ' ')}.log"
    target = Target(Server(log, *FLAGS, *flags, before=before, variables=variables))
    try:
        await target.wait_ready()
        tallies = await doing(target, known)
        if kill:
            tallies += await _calls_during(target, known, _kill(target))
        restarts = await target.metric(RESTARTS)
        target.send(signal.SIGTERM)
        status = await target.exit_status()
    finally:
        await target.stop()
    tally = total(tallies)
    return Result(
        f"{what}; {len(tallies)} calls of {PAIRS} pairs, the engine killed during one",
        tally,
        [
            only(tally),
            at_least("restarts", restarts, 1),
            at_most("exit status", abs(status), 0),
            at_most("tracebacks in the log", _tracebacks(log), 0),
        ],
        numbers={"load, s": target.load_seconds},
    )


async def _once(target: Target, known: Sequence[Known]) -> list[Tally]:
    return [await _call(target, known)]


async def _call(target: Target, known: Sequence[Known]) -> Tally:
    return await score_all(target.url, known, batch_size=BATCH, deadline_seconds=HOUR)


async def _calls_during(
    target: Target, known: Sequence[Known], doing: Coroutine[Any, Any, None]
) -> list[Tally]:
    """Calls, one after the other, until ``doing`` has ended."""
    other = asyncio.create_task(doing)
    tallies = []
    while not other.done():
        tallies.append(await _call(target, known))
    await other
    return tallies


async def _kill(target: Target) -> None:
    """Kill the engine while it works, and wait until there is another."""
    restarts = await target.metric(RESTARTS)
    await _working(target)
    target.engine().kill()
    await _again(target, restarts)


async def _again(target: Target, restarts: float) -> None:
    """Wait until an engine runs, after more than so many new starts."""

    async def again() -> bool:
        return await target.metric(RESTARTS) > restarts and await target.ready()

    await target.until("the engine runs again", again)


async def _working(target: Target) -> None:
    async def working() -> bool:
        return await target.metric("vllm:num_requests_running") > 0

    await target.until("the engine works", working)


async def _date(target: Target) -> float:
    """The time that its answers are of, in seconds since 1970."""
    answer = await asyncio.to_thread(target.server.http.get, "/health/live")
    return parsedate_to_datetime(answer.headers["date"]).timestamp()


def _tracebacks(log: Path) -> int:
    """How many there are but vLLM's own, of an engine that is killed."""
    lines = log.read_text(errors="replace").splitlines()
    return sum(TRACEBACK in line and '"logger":"vllm.' not in line for line in lines)


def _log_has(target: Target, words: str) -> bool:
    return words in target.server.log.read_text(errors="replace")


def _clock(library: Path) -> Path:
    """What moves the wall clock of a process, compiled."""
    if (compiler := shutil.which("cc")) is None:
        raise NotRun("no C compiler")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK)]
    subprocess.run(words, check=True, capture_output=True)
    return library


def _set(offset: Path, seconds: int) -> None:
    with offset.open("r+b") as file:  # the same file: it is mapped
        file.write(SECONDS.pack(seconds))


def _need(words: Sequence[str], reason: str) -> None:
    """Raise ``NotRun`` where a command that runs another one cannot."""
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        raise NotRun(reason)


def _fill(place: Path) -> None:
    with contextlib.suppress(OSError), place.open("wb", buffering=0) as fill:
        while True:
            fill.write(bytes(4096))


async def _is(found: bool) -> bool:
    return found
