"""Rows as a source that was read."""

from __future__ import annotations

from typing import Any

from fivescore.data.reader import Source
from fivescore.data.rows import Row


def source(*rows: dict[str, Any], name: str = "mine") -> Source:
    origin = f"{name}.jsonl"
    found = [Row(origin, number, row) for number, row in enumerate(rows, 1)]
    return Source(name, origin, found, total=len(rows))
