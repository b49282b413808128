"""``python -m tests.faults``: the scenarios, one after the other, on a real engine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults import report
from tests.faults.bench import FULL, SHORT, Bench
from tests.faults.scenarios import SCENARIOS, Finished, Scenario, finish


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if every scenario kept its bounds, and nothing was lost or wrong."""
    given = _parser().parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    raise_file_limit()
    chosen = [one for one in SCENARIOS if not given.only or one.name in given.only]
    with contextlib.ExitStack() as stack:
        logs = given.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs.mkdir(parents=True, exist_ok=True)
        scale = SHORT if given.short else FULL
        scale = replace(scale, soak_seconds=given.soak_seconds or scale.soak_seconds)
        bench = Bench(scale, logs)
        where = report.surroundings(arguments)
        finished = asyncio.run(_run(chosen, bench, given.output, where))
    return int(any(one.result.faults for one in finished))


async def _run(
    chosen: Sequence[Scenario], bench: Bench, output: Path | None, where: dict[str, str]
) -> list[Finished]:
    finished: list[Finished] = []
    try:
        for scenario in chosen:
            finished.append(await finish(scenario, bench))
            report.tell(report.line(finished[-1]))
            if output:
                report.write(output, finished, where)
    finally:
        await bench.close()
    return finished


def raise_file_limit() -> None:
    """Every connection is a file, and scenarios hold thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="smaller and faster, as CI runs it")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[one.name for one in SCENARIOS],
        help=f"of {', '.join(one.name for one in SCENARIOS)}",
    )  # fmt: skip
    parser.add_argument("--soak-seconds", type=float, metavar="N", help="how long the soak is")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for faults.md, faults.json")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keeps the servers' logs there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
