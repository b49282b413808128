"""Scenario 7: hostile input has a harness of its own; its counts become a line of this one's."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.server import environment
from tests.faults.bench import Bench
from tests.faults.result import Result, Tally

MODULE = "tests.faults.bad_input"
"""Run as ``python -m MODULE --url URL --scale short|full``; the last line of its output is a JSON
object with ``done``, ``requests``, ``pairs``, ``right``, ``errors`` (by code), ``lost``, ``wrong``
and ``notes``, each optional but the first. An exit status other than 0 is a fault of its own."""


def is_there() -> bool:
    """Whether that harness is part of this checkout."""
    return (Path(__file__).parent / "bad_input" / "__main__.py").exists()


async def hostile(bench: Bench) -> Result:
    """Run it against the server that is shared."""
    target = await bench.server()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, "--url", target.url, "--scale", bench.scale.name,
        stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    output, _ = await process.communicate()
    result = read(output.decode(errors="replace"), process.returncode or 0)
    await target.until("no work is left", target.idle)
    return result


def read(output: str, status: int) -> Result:
    """Its line, from what it printed."""
    notes = [f"exit status {status}"] if status else []
    try:
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        counts = {
            name: int(found.get(name, 0))
            for name in ("requests", "pairs", "right", "lost", "wrong")
        }
        tally = Tally(**counts, errors=Counter(found.get("errors", {})))
        return Result(str(found["done"]), tally, notes=[*notes, *found.get("notes", [])])
    except (ValueError, LookupError, TypeError) as error:
        return Result(MODULE, notes=[*notes, f"its last line is not a result: {error}"])
