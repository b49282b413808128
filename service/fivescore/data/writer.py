"""Writes rows as JSON Lines to which a later run can append."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO


def append(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all rows in one call, so that a killed run leaves at most one torn line, the last."""
    file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    file.flush()
