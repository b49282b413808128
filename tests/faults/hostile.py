"""Scenario 7: hostile bodies by hand on every scoring route, and normal requests beside them."""

from __future__ import annotations

import httpx

from tests.faults.bad_input.corpus import cases
from tests.faults.bad_input.sending import AT_ONCE, send_all
from tests.faults.bench import Bench
from tests.faults.result import Result, at_least, total

FEWEST = 3000
"""Requests, or the corpus has lost its cases."""
MOST_NOTES = 20
NEVER_IN_THE_LOG = ("Traceback", "internal_error")


async def hostile(bench: Bench) -> Result:
    """Send the corpus to the shared server."""
    target = await bench.server()
    earlier = len(target.server.log.read_bytes())
    async with httpx.AsyncClient(base_url=target.url) as http:
        tally = await send_all(http, cases(bench.scale.name == "full"))
    await target.until("no work is left", target.idle)
    log = target.server.log.read_bytes()[earlier:].decode(errors="replace")
    logged = [f"the log has {word}" for word in NEVER_IN_THE_LOG if word in log]
    return Result(
        f"{tally.requests} requests, of {AT_ONCE + 1} all but one hostile: bodies by hand",
        total([tally]),
        [at_least("requests", tally.requests, FEWEST)],
        notes=[*tally.notes[:MOST_NOTES], *logged],
    )
