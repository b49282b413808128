"""The same rows as a file of every format."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """``rows`` in the format that the file's name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = file.with_name(file.name.removesuffix(".gz"))
    match plain.suffix:
        case ".jsonl":
            plain.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case ".json":
            plain.write_text(json.dumps(rows))
        case ".csv":
            with plain.open("w", newline="") as lines:
                table = csv.DictWriter(lines, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
    if file != plain:
        file.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
    return file
