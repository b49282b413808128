"""Reads a data set: a file, the files of a split in a folder, or a hub id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fivescore.data import hub
from fivescore.data.formats import FORMATS, read_file, suffix_of
from fivescore.data.rows import BadRows, Row
from fivescore.errors import ConfigurationError


@dataclass(frozen=True)
class Source:
    """The readable rows of one data set, and counts of the others.

    Args:
        name: the file's name without its ending, or the hub id.
        sha256: the digest of the file's bytes; None for several files and for the hub.
        bad: the rows that could not be read; users of ``rows`` add those that they cannot use.
    """

    name: str
    origin: str
    rows: list[Row]
    sha256: str | None = None
    bad: BadRows = field(default_factory=BadRows)
    total: int = 0
    """The number of rows, bad ones included."""

    def summary(self) -> dict[str, Any]:
        """The description of the data in a report."""
        return {
            "origin": self.origin,
            "rows": self.total,
            "sha256": self.sha256,
            "unusable": dict(self.bad.counts),
            "first": self.bad.first,
        }


def read(origin: str, split: str, limit: int | None = None) -> Source:
    """The rows of a file, of ``split`` in a folder, or of a split on the hub.

    Args:
        limit: the most rows to read, bad ones included.

    Raises:
        ConfigurationError: there is no such data set, or it cannot be read.
    """
    path = Path(origin)
    if path.is_dir():
        files = files_of_split(path, split)
        if not files:
            raise ConfigurationError(
                f"{path} has no data files whose name starts with {split!r}: give the file"
            )
    elif path.exists() or not is_hub_id(origin):
        files = [path]
    else:
        return _source(origin, origin, hub.rows(split, hub.load(origin, split)[split]), limit)
    name = files[0].name.removesuffix(suffix_of(files[0].name) or "")
    source = _source(name, str(files[0] if len(files) == 1 else path), read_files(files), limit)
    return source if len(files) > 1 else Source(**{**vars(source), "sha256": _digest(files[0])})


def _source(name: str, origin: str, rows: Iterable[Row], limit: int | None) -> Source:
    good: list[Row] = []
    bad, total = BadRows(), 0
    for row in islice(rows, limit):
        total += 1
        if row.value is None:
            bad.add(row.place, row.fault)
        else:
            good.append(row)
    if not total:
        raise ConfigurationError(f"{origin} has no rows")
    return Source(name, origin, good, None, bad, total)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_hub_id(origin: str) -> bool:
    """Whether ``origin`` has the form of a hub id, and not the ending of a file."""
    return bool(hub.HUB_ID.fullmatch(origin)) and suffix_of(origin) is None


def read_files(files: Sequence[Path]) -> Iterator[Row]:
    """The rows of files in order, without blank lines and without ``Row.raw``."""
    for file in files:
        for row in read_file(file):
            if row.raw is None or row.raw.strip():
                yield row._replace(raw=None)


def files_of_split(folder: Path, split: str, loosely: bool = True) -> list[Path]:
    """The files of a split: ``train.jsonl``, or the hub's ``train-00000-of-00002.parquet`` etc.

    Args:
        loosely: if there is none, accept one file whose name starts with ``split``.

    Raises:
        ConfigurationError: several files match that are not parts of one split.
    """
    known = sorted(path for path in folder.iterdir() if suffix_of(path.name) and path.is_file())
    stems = {path: path.name.removesuffix(suffix_of(path.name) or "") for path in known}
    name = re.escape(split)
    whole = [path for path in known if re.fullmatch(name, stems[path])]
    parts = [path for path in known if re.fullmatch(rf"{name}-\d.*", stems[path])]
    files = whole + parts
    if not files and loosely:
        files = whole = [path for path in known if path.name.startswith(split)]
    if whole and len(files) > 1:
        # A CSV file beside another format is often an export of the same data.
        files = [path for path in files if ".csv" not in path.name] or files
    endings = {suffix_of(path.name) for path in files}
    if len(files) > 1 and (set(files) & set(whole) or len(endings) > 1):
        names = ", ".join(path.name for path in files)
        raise ConfigurationError(
            f"{folder} has {len(files)} data files whose name starts with {split!r} ({names}):"
            " give the file"
        )
    return files


def no_files(folder: Path, split: str) -> str:
    """The error text for a folder without files of a split."""
    return f"{folder}: the folder has no {split} file ({', '.join(split + f for f in FORMATS)})"
