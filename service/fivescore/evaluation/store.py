"""The scores of one model, in a file that grows as they arrive."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fivescore.data import writer
from fivescore.errors import ConfigurationError
from fivescore.types import Score

VERSION = 1
SAME_ABSOLUTE, SAME_RELATIVE = 0.02, 0.01
"""Largest difference of one model's scores of a pair: in half precision they vary by batch."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that cannot be scored: the code and the detail of its error."""

    code: str
    detail: str


Result = Score | Failure


def pair_key(pair: dict[str, Any], truncate: str) -> str:
    """A key for a pair and its truncation: the first 128 bits of a SHA-256, in hexadecimal."""
    text = json.dumps([pair, truncate], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """``{key: result}`` in memory and in a JSON Lines file; the file's first line names the model.

    Args:
        identity: ``Served.identity`` of the model.
        probe: the model's score of a pair that is always the same; None where that failed.
        fresh: discard the file.

    Raises:
        ConfigurationError: the file holds the scores of another model, or no scores.
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], probe: Score | None, fresh: bool = False
    ) -> None:
        self.path = path
        self._known: dict[str, Result] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        header = {"version": VERSION, **identity, "probe": probe and _row(probe)}
        self._load(header)
        self._file: BinaryIO = path.open("ab")
        if not path.stat().st_size:
            self._write([header])

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Result:
        return self._known[key]

    def add(self, results: dict[str, Result]) -> None:
        """Add results that later runs reuse."""
        self._known.update(results)
        self._write([{"pair": key, **_row(result)} for key, result in results.items()])

    def add_temporary(self, results: dict[str, Result]) -> None:
        """Add results of this run alone: the next run requests those pairs again."""
        self._known.update(results)

    def close(self) -> None:
        self._file.close()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        writer.append(self._file, rows)

    def _load(self, header: dict[str, Any]) -> None:
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        whole = [line for line in lines if line.endswith(b"\n")]
        try:
            rows = [json.loads(line) for line in whole]
            if rows:
                self._check(rows[0], header)
            self._known = {row["pair"]: _result(row) for row in rows[1:]}
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigurationError(
                f"{self.path} does not hold an evaluation's scores: choose another --output"
            ) from error
        with self.path.open("rb+") as file:
            file.truncate(sum(map(len, whole)))

    def _check(self, stored: dict[str, Any], header: dict[str, Any]) -> None:
        advice = "choose another --output, or score everything again with --fresh"
        if stored["version"] != VERSION:
            raise ConfigurationError(
                f"{self.path} was written by another version of fivescore: {advice}"
            )
        for name in ("model", "manifest"):
            if stored[name] != header[name]:
                raise ConfigurationError(
                    f"{self.path} holds scores of {stored['model']} with another {name} than"
                    f" {header['model']} has now: {advice}"
                )
        if not _same(stored["probe"], header["probe"]):
            raise ConfigurationError(
                f"{self.path} holds scores of other weights that were also served as"
                f" {header['model']}: {advice}"
            )


def _same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two scores of the probe may come from one model; True when either is missing."""
    if one is None or other is None:
        return True
    values = [{**row["attributes"], "reward": row["reward"]} for row in (one, other)]
    return values[0].keys() == values[1].keys() and all(
        abs(value - values[1][name]) <= SAME_ABSOLUTE + SAME_RELATIVE * abs(value)
        for name, value in values[0].items()
    )


def _row(result: Result) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"error": dataclasses.asdict(result)}
    return dataclasses.asdict(result)


def _result(row: dict[str, Any]) -> Result:
    if "error" in row:
        return Failure(**row["error"])
    return Score(**{name: value for name, value in row.items() if name != "pair"})
