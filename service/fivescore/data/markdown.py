"""Writes Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: bool = False) -> str:
    """A Markdown table; None becomes a dash, and floats have four significant digits.

    Args:
        numbers: align the columns after the first to the right.
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    return "\n".join(map(line, [header, rule, *rows]))


def line(cells: Sequence[Any]) -> str:
    """One row of a table."""
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
