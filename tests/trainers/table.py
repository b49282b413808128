"""Writes what ``make trainers`` found into README.md and docs/trainers.md.

``python -m tests.trainers.table``
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).with_name("result.json")
README, DETAILS = ROOT / "README.md", ROOT / "docs" / "trainers.md"
COLUMN = "run with its own code"
MARKED = re.compile(r"(?<=<!-- trainers -->\n).*?(?=<!-- /trainers -->)", re.DOTALL)

Results = dict[str, dict[str, Any]]


def results() -> Results:
    """What is committed, by trainer."""
    found: Results = json.loads(RESULT.read_text())
    return found


def with_column(readme: str, found: Results) -> str:
    """README, whose table of trainers ends with ``COLUMN``."""
    lines, inside, width = [], False, 0
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[-1] == COLUMN:
            inside, width = True, len(cells)
        elif inside and line.startswith("| "):
            line = f"| {' | '.join([*cells[: width - 1], _short(cells[0], found)])} |"
        elif not line.startswith("|"):
            inside = False
        lines.append(line)
    return "\n".join(lines) + "\n"


def with_details(document: str, found: Results) -> str:
    """docs/trainers.md, with the table of all that was run."""
    return MARKED.sub(lambda _: details(found), document)


def details(found: Results) -> str:
    """The table in markdown: what of each trainer ran, and what it saw."""
    head = (
        "trainer",
        "its own code",
        "128 samples",
        "during a load",
        "over a restart",
        "a failure",
    )
    rows = [head, ("---",) * len(head), *(_row(key, found[key]) for key in sorted(found))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(key: str, facts: dict[str, Any]) -> tuple[str, ...]:
    if "not_run" in facts:
        return (facts.get("title", key), f"NOT RUN: {facts['not_run']}", "", "", "", "")
    called = facts["called"] + (f"; {facts['emulated']}" if facts["emulated"] else "")
    restart = facts["restart"]
    survived = f"{restart['asked'] - restart['lost']} of {restart['asked']}"
    sees = f": {_cell(restart['sees'])}" if restart["lost"] else ""
    return (
        f"{facts['title']} {facts['version']}",
        called,
        f"equal within {facts['largest_difference']:.0e}",
        f"{facts['loading']} of {facts['loading']}",
        survived + sees,
        _cell(facts["failing"]),
    )


def _short(name: str, found: Results) -> str:
    """The cell of README's row: versions, with names where the row has several, and the day."""
    run = [facts for facts in found.values() if facts.get("row") == name]
    if not run:
        return "-"
    ran = [facts for facts in run if "not_run" not in facts]
    if not ran:
        return "NOT RUN"
    several = ", " in name
    versions = ", ".join(
        dict.fromkeys(
            f"{facts['title']} {facts['version']}" if several else facts["version"] for facts in ran
        )
    )
    return f"{versions}; {max(facts['date'] for facts in ran)}"


def _cell(text: str) -> str:
    """An error as one line of a table."""
    return "`" + " ".join(text.replace("|", "/").replace("`", "'").split()) + "`"


if __name__ == "__main__":
    README.write_text(with_column(README.read_text(), results()))
    DETAILS.write_text(with_details(DETAILS.read_text(), results()))
