"""How long probes and single pairs wait beside one large body: ``python -m loadtest.large_bodies``.

Each body is as large as the limits allow, and is sent while one connection asks ``/health/live``
and another scores one pair, over and over. The result is the longest wait of either per body, in
the round where it was shortest, because other programs only make waits longer; and the most CPU
time that the service's process used during one wait for a probe, which is what a wait would take on
an idle machine. Beside nothing the waits are what the machine itself takes away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx

from fivescore.settings import DEMO
from loadtest.processes import Running, fivescore_command, server
from loadtest.report import RESULTS, save, surroundings

SIZE = 64 * 2**20 - 2**10
"""Bytes of a body: the default limit, less what stands around what fills it."""
PAIRS, TURNS, IDS = 10_000, 10_000, 2**20
BETWEEN_SECONDS = 0.01
"""Wait between an answer and the next request, so that the questions do not load the service."""
QUIET_SECONDS = 3
ROUNDS = 3
PAIR = b'{"prompt":"Name a prime.","response":"7"}'
Body = tuple[str, Callable[[], bytes]]
"""A route, and what makes the body for it."""


def main() -> int:
    arguments = _arguments()
    found: dict[str, Any] = {}
    for backend in arguments.backends:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "server.log"
            command = fivescore_command(str(DEMO), "--backend", backend, "--log-format", "json")
            with server(command, "/health/ready", log) as running:
                found[backend] = {
                    name: _measure(running, name, arguments.rounds)
                    for name in ("nothing", *(arguments.bodies or BODIES))
                }
    result = {"longest_ms": found, **surroundings("large_bodies")}
    save(result, arguments.output, "longest_ms")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["fake", "vllm"], help="[fake vllm]")
    parser.add_argument("--bodies", nargs="+", choices=BODIES, help="[all]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"[{ROUNDS}]")
    parser.add_argument("--output", type=Path, help=f"JSON, such as {RESULTS}/large_bodies.json")
    return parser.parse_args()


def _measure(running: Running, name: str, rounds: int) -> dict[str, Any]:
    """The longest waits beside one body, in the best of some rounds, and how it was answered."""
    path, make = BODIES.get(name, ("", bytes))
    body = make()
    found = [asyncio.run(_beside(running, path, body)) for _ in range(rounds)]
    row: dict[str, Any] = {
        who: round(1e3 * min(waits[who] for _, _, waits in found), 1) for who in found[0][2]
    }
    if path:
        status, seconds, _ = min(found, key=itemgetter(1))
        row |= {"status": status, "seconds": round(seconds, 2), "bytes": len(body)}
    print(f"{name}: {json.dumps(row)}", flush=True)
    return row


async def _beside(running: Running, path: str, body: bytes) -> tuple[int, float, dict[str, float]]:
    """Send a body, and ask beside it until a moment after its answer.

    Returns its status, the seconds until its answer, and the longest waits, in seconds.
    """
    over = threading.Event()
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as http:
        asking = [
            asyncio.create_task(_ask(lambda: http.get("/health/live"), running, over)),
            asyncio.create_task(_ask(lambda: http.post("/score", content=PAIR), running, over)),
        ]
        await asyncio.sleep(0.2)
        sending = asyncio.to_thread(_send, running.url + path, body) if path else _nothing()
        status, seconds = await sending
        await asyncio.sleep(0.3)  # in which the service frees what it held
        over.set()
        (probe, cpu), (pair, _) = await asyncio.gather(*asking)
    return status, seconds, {"probe": probe, "pair": pair, "cpu_beside_probe": cpu}


async def _nothing() -> tuple[int, float]:
    await asyncio.sleep(QUIET_SECONDS)
    return 0, math.nan


async def _ask(
    ask: Callable[[], Any], running: Running, over: threading.Event
) -> tuple[float, float]:
    """Ask until ``over``; returns the longest wait and the most CPU time in one, in seconds."""
    longest = most = 0.0
    await ask()  # which opens the connection
    while not over.is_set():
        began, used = time.perf_counter(), running.cpu_seconds()
        (await ask()).raise_for_status()
        longest = max(longest, time.perf_counter() - began)
        most = max(most, running.cpu_seconds() - used)
        await asyncio.sleep(BETWEEN_SECONDS)
    return longest, most


def _send(url: str, body: bytes) -> tuple[int, float]:
    """Post a body; returns the status and the seconds until the whole answer was there."""
    began = time.perf_counter()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            status = answer.status
            while answer.read(2**16):
                pass
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    return status, time.perf_counter() - began


def _filled(before: bytes, entry: bytes, after: bytes, most: int = 10**9) -> bytes:
    """Entries with commas between, as many as have room in a body."""
    count = min(most, (SIZE - len(before) - len(after)) // (len(entry) + 1))
    return before + entry + (b"," + entry) * (count - 1) + after


def _texts(unit: str, pairs: int) -> bytes:
    """Pairs of long texts that consist of a unit, as it stands in JSON."""
    text = unit.encode() * ((SIZE // pairs - 40) // 2 // len(unit.encode()))
    return _filled(b'{"pairs":[', b'{"prompt":"%b","response":"%b"}' % (text, text), b"]}", pairs)


def _one_text(unit: str) -> bytes:
    text = unit.encode() * (SIZE // len(unit.encode()))
    return b'{"prompt":"x","truncate":"prompt_start","response":"' + text + b'"}'


def _turns(pairs: int, turns: int) -> bytes:
    """Pairs of many turns each."""
    said = "a" * max(1, min(4000, SIZE // pairs // turns - 40))
    turn = b'{"role":"user","content":"%b"}' % said.encode()
    pair = b'{"response":"a","prompt":[' + turn + (b"," + turn) * (turns - 1) + b"]}"
    return _filled(b'{"pairs":[', pair, b"]}", pairs)


def _ids(pairs: int, ids: int) -> bytes:
    pair = b'{"token_ids":[' + b"7" + b",10" * (ids - 1) + b"]}"
    return _filled(b'{"pairs":[', pair, b"]}", pairs)


def _verify(items: bytes) -> bytes:
    said = b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"7"}]}'
    return (
        b'{"responses_create_params":{"input":"x"},"response":{"output":['
        + said + b']},"metadata":' + items + b"}"
    )  # fmt: skip


_MESSAGE = b'{"role":"user","content":"x"}'
_PART = b'{"type":"text","text":"a"}'
_CREATED = b'{"responses_create_params":{"input":['
_RESPONSE = b']},"response":{"output":[{"role":"assistant","content":"x"}]}}'
BODIES: dict[str, Body] = {
    "10,000 pairs of texts": ("/score", lambda: _texts("word ", PAIRS)),
    "10,000 pairs of Chinese": ("/score", lambda: _texts("\u6f22", PAIRS)),
    "10,000 pairs of escapes": ("/score", lambda: _texts("\\n", PAIRS)),
    "10,000 short pairs": ("/score", lambda: _filled(b'{"pairs":[', PAIR, b"]}", PAIRS)),
    "10,000 pairs x 13 messages": ("/score", lambda: _turns(PAIRS, 13)),
    "13 pairs x 10,000 messages": ("/score", lambda: _turns(13, TURNS)),
    "10,000 pairs x 50 messages": ("/score", lambda: _turns(PAIRS, 50)),
    "20 pairs x 2^20 token ids": ("/score", lambda: _ids(20, IDS)),
    "10,000 pairs x 2,000 token ids": ("/score", lambda: _ids(PAIRS, 2000)),
    "33 million token ids": ("/classify", lambda: _filled(b'{"input":[', b"1", b"]}")),
    "10,000 lists of token ids": (
        "/classify", lambda: _filled(b'{"input":[', b"[1" + b",12345" * 1000 + b"]", b"]}", PAIRS),
    ),
    "one text": ("/score", lambda: _one_text("a ")),
    "one text of escaped quotes": ("/score", lambda: _one_text('\\"')),
    "one text of escaped letters": ("/score", lambda: _one_text("\\u00e9")),
    "one text of brackets": ("/score", lambda: _one_text("[{")),
    "one text of half characters": ("/score", lambda: _one_text("\\ud83d")),
    "content parts": (
        "/score", lambda: _filled(b'{"response":"a","prompt":[{"role":"user","content":[',
                                  _PART, b"]}]}"),
    ),
    "messages of /verify": ("/verify", lambda: _filled(_CREATED, _MESSAGE, _RESPONSE, 500_000)),
    "10,000 messages of /verify": ("/verify", lambda: _filled(_CREATED, _MESSAGE, _RESPONSE, 9999)),
    "echo of objects": (
        "/verify", lambda: _verify(_filled(b"[", b'{"a":1}', b"]", 2**20)),
    ),
    "echo of a text": ("/verify", lambda: _verify(b'"' + b"ab c" * (SIZE // 4 - 99) + b'"')),
    "rerank": (
        "/rerank",
        lambda: _filled(b'{"query":"x","documents":[', b'"%b"' % (b"word " * 1300), b"]}", PAIRS),
    ),
    "members of a message": (
        "/score",
        lambda: b'{"response":"a","prompt":[{"role":"user","content":"x",'
        + b",".join(b'"a%d":0' % i for i in range(2**21)) + b"}]}",
    ),
    "empty lists": ("/score", lambda: _filled(b'{"pairs":[', b"[]", b"]}")),
}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
