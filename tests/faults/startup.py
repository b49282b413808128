"""Scenario 8: starts that must fail, in one clear line, and disks that are full."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fivescore.settings import DEMO
from tests.e2e.server import command, environment, free_port
from tests.faults.asking import Asker
from tests.faults.bench import Bench
from tests.faults.known import Known
from tests.faults.result import Result, Tally, at_most, only, total
from tests.faults.target import LOOK_SECONDS, PATIENCE_SECONDS

ERROR = "fivescore: error: "
AT_A_TIME = 2
SLOWER = 4.0
"""How many times a good start a bad one may take."""
PAIRS = 16
NOT_TRIED = " NOT TRIED: no private mounts here"
WEIGHTS = "model.safetensors"
PRIVATE = ("unshare", "--map-root-user", "--mount")
FILL = """mount -t tmpfs -o size=64k full "$0" || exit 99
cat /dev/zero > "$0/fill" 2>/dev/null
exec "$@"
"""
"""Mounts a small disk that only the command sees, fills it, and becomes the command."""


@dataclass(frozen=True)
class Start:
    """One that must fail: what it is given, and what its line must name."""

    name: str
    flags: Callable[[Path], Sequence[str]]
    named: Sequence[str]


async def started(bench: Bench) -> Result:
    """Everything that an operator may get wrong on a disk, and the disk itself."""
    usual = bench.load_seconds or (await bench.server()).load_seconds
    await bench.close()
    known = await bench.known(PAIRS)
    turns = asyncio.Semaphore(AT_A_TIME)

    async def fail(start: Start) -> tuple[list[str], float]:
        async with turns:
            return await asyncio.to_thread(_fail, start, bench.folder / f"{start.name}.start")

    failed = await asyncio.gather(*map(fail, STARTS))
    told = "" if (mounts := await asyncio.to_thread(_can_mount)) else NOT_TRIED
    full = [_with_full_log(known), *([_on_full_disk(bench.folder, known)] if mounts else [])]
    disks = await asyncio.gather(*full)
    tally = total(tally for tally, _ in disks)
    longest = max(seconds for _, seconds in failed)
    return Result(
        f"{len(STARTS)} starts with {', '.join(start.name for start in STARTS)};"
        f" a log on a full disk; a full disk{told}",
        tally,
        [only(tally), at_most("longest failed start, x a good one,", longest / usual, SLOWER)],
        numbers={"longest failed start, s": longest},
        notes=[fault for faults, _ in [*failed, *((f, 0.0) for _, f in disks)] for fault in faults],
    )


def _fail(start: Start, folder: Path) -> tuple[list[str], float]:
    """What is wrong with how it failed, and the seconds it took."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    ended = subprocess.run(
        command("--port", str(free_port()), *start.flags(folder)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment(),
        check=False,
    )
    seconds = time.monotonic() - began
    output = ended.stdout + ended.stderr
    (folder / "output.log").write_text(output)
    return faults_of(start.name, start.named, ended.returncode, output), seconds


def faults_of(name: str, named: Sequence[str], status: int, output: str) -> list[str]:
    """What is wrong with how a start failed: it must be one line, which has the words ``named``."""
    lines = [line for line in output.splitlines() if line.startswith(ERROR)]
    told = lines[-1] if lines else ""
    missing = [word for word in named if word not in told]
    found = {
        f"exit status {status}": status not in (1, 2),
        f"{len(lines)} lines begin with {ERROR!r}": len(lines) != 1,
        "a traceback": "Traceback" in output,
        f"{told!r} does not name {missing}": bool(told and missing),
    }
    return [f"{name}: {what}" for what, true in found.items() if true]


async def _on_full_disk(folder: Path, known: Sequence[Known]) -> tuple[Tally, list[str]]:
    """Temporary files and caches have no room: it serves, or says so in one line."""
    full, log = folder / "full", folder / "full-disk.log"
    full.mkdir()
    places = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(full))
    port = free_port()
    words = [*PRIVATE, "sh", "-c", FILL, str(full), *command("--port", str(port))]
    process = _start(words, log, places)
    tally = await _served(process, port, known)
    if tally is not None:
        return tally, []
    status = process.returncode
    return Tally(), faults_of("a full disk", ("space",), status, log.read_text(errors="replace"))


async def _with_full_log(known: Sequence[Known]) -> tuple[Tally, list[str]]:
    """Its log has no room: it serves all the same."""
    port = free_port()
    process = _start(command("--port", str(port)), Path("/dev/full"))
    tally = await _served(process, port, known)
    if tally is not None:
        return tally, []
    return Tally(), [f"a log on a full disk: exit status {process.returncode}"]


def _can_mount() -> bool:
    return not subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode


def _start(
    words: Sequence[str], log: Path, variables: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(variables),
        )


async def _served(
    process: subprocess.Popen[bytes], port: int, known: Sequence[Known]
) -> Tally | None:
    """How the pairs ended there; None if it ended before it was ready. It has ended afterwards."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    try:
        async with Asker(f"http://127.0.0.1:{port}") as asker:
            while process.poll() is None and time.monotonic() < give_up:
                if await asker.ready():
                    return (await asker.ask(known)).tally
                await asyncio.sleep(LOOK_SECONDS)
        return None
    finally:
        await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            for one in (psutil.Process(process.pid), *below):
                one.kill()
            process.wait()


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(DEMO, folder / "model"))


def _garbage_header(folder: Path) -> Sequence[str]:
    """The weights' header is no JSON any more: a block of the disk went bad."""
    model = _copy(folder)
    with (model / WEIGHTS).open("r+b") as weights:
        weights.seek(8)
        weights.write(b"\xff" * 64)
    return ("--model", str(model))


def _truncated_weights(folder: Path) -> Sequence[str]:
    """A copy that was cut off."""
    model = _copy(folder)
    os.truncate(model / WEIGHTS, (model / WEIGHTS).stat().st_size * 6 // 10)
    return ("--model", str(model))


def _garbage_config(folder: Path) -> Sequence[str]:
    model = _copy(folder)
    (model / "config.json").write_text('{"architectures": [')
    return ("--model", str(model))


def _manifest(content: str) -> Callable[[Path], Sequence[str]]:
    def write(folder: Path) -> Sequence[str]:
        manifest = folder / "manifest.json"
        manifest.write_text(content)
        return ("--manifest", str(manifest))

    return write


def _binary_keys(folder: Path) -> Sequence[str]:
    keys = folder / "keys"
    keys.write_bytes(bytes(range(256)))
    return ("--api-key-file", str(keys))


ELSEWHERE = {
    "version": 1,
    "outputs": 9,
    "attributes": {"helpfulness": {"output": 8}},
    "reward": {"output": 8},
    "prompt": {"format": "chat_template"},
}
"""A manifest of another model: it has outputs that the demo has not."""
STARTS = (
    Start("corrupt weights", _garbage_header, ("model", "header", "damaged")),
    Start("truncated weights", _truncated_weights, ("model",)),
    Start("corrupt config.json", _garbage_config, ("config.json",)),
    Start("another model's manifest", _manifest(json.dumps(ELSEWHERE)), ("manifest", "9", "5")),
    Start("a manifest that is no JSON", _manifest('{"version": 1,'), ("manifest.json",)),
    Start("a key file that is a folder", lambda folder: ("--api-key-file", str(folder)),
          ("--api-key-file", "no regular file")),
    Start("a key file that is not there", lambda folder: ("--api-key-file", str(folder / "none")),
          ("--api-key-file", "No such file")),
    Start("a key file that is no text", _binary_keys, ("--api-key-file", "Unicode")),
)  # fmt: skip
