"""``python -m tests.faults.bad_input --url URL --scale short|full``: one JSON line of counts."""

from __future__ import annotations

import argparse
import asyncio
import sys

import httpx

from tests.faults.bad_input.corpus import cases
from tests.faults.bad_input.sending import Tally, send_all


async def _run(url: str, long_form: bool) -> Tally:
    async with httpx.AsyncClient(base_url=url) as http:
        return await send_all(http, cases(long_form))


def main() -> int:
    """Exit status 0 if nothing was lost and nothing wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.bad_input", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--scale", choices=("short", "full"), default="short")
    given = parser.parse_args()
    tally = asyncio.run(_run(given.url, given.scale == "full"))
    tally.notes = tally.notes[:20]
    sys.stdout.write(tally.line() + "\n")
    return int(bool(tally.lost or tally.wrong))


if __name__ == "__main__":
    sys.exit(main())
