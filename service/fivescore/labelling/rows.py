"""Reads the rows of an input: which columns hold the pair, and what of a row its output keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fivescore.client.columns import Given, Layout, layout
from fivescore.data.formats import arrow_schema, name_of, read_file
from fivescore.data.inputs import Input
from fivescore.data.rows import Row
from fivescore.data.writer import Columns
from fivescore.errors import ConfigurationError, FivescoreError, InvalidPair
from fivescore.labelling.output import DEFAULT_FORMAT, Part
from fivescore.types import Pair, parse_pair

FIRST_ROWS = 100
"""Rows of a file by which its columns are chosen; where all of them fail, a run stops."""
ID = "id"


class InvalidRow(FivescoreError):
    """A row that cannot be read has no fields."""

    code = "invalid_row"


class InvalidJson(InvalidRow):
    code = "invalid_json"


@dataclass(frozen=True)
class Choice:
    """What a user chooses of the input's columns.

    Args:
        given: the columns of the pair.
        id: the column of a row's id [``id``, where there is one; else rows get numbers].
        columns: the columns that the output keeps [all].
    """

    given: Given = field(default_factory=Given)
    id: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(slots=True)
class Line:
    """A row on its way: what is kept of it, its pair, and in the end a score or an error.

    ``number`` counts all rows of the input from 1, and ``key`` is a digest of the row's content.
    """

    number: int
    row: Row
    part: Part
    key: bytes
    kept: dict[str, Any]
    pair: Pair | None = None
    score: dict[str, Any] | None = None
    error: FivescoreError | None = None


def lines(
    source: Input, choice: Choice, made: Columns, notice: Callable[[str], None] | None = None
) -> Iterator[Line]:
    """The rows of all files in order; blank lines of JSON Lines are left out.

    Args:
        made: the columns that the output adds.
        notice: is given a line for people where the pairs are not in ``prompt`` and ``response``.

    Raises:
        ConfigurationError: a file cannot be read, its columns do not hold pairs, or it has columns
            that the output adds.
    """
    number = 0
    told = Layout()
    for file in source.files:
        rows = (row for row in read_file(file, DEFAULT_FORMAT, typed=False) if not _is_blank(row))
        head = list(islice(rows, FIRST_ROWS))
        reader = _Reader(file, head, choice, made)
        if notice is not None and reader.layout != told:
            told = reader.layout
            columns = ", ".join(told.named or ("prompt", "response"))
            notice(f"{name_of(file)}: the pairs are in the columns {columns}")
        for row in chain(head, rows):
            number += 1
            yield reader.line(number, row)


def _is_blank(row: Row) -> bool:
    return row.raw is not None and not row.raw.strip()


class _Reader:
    """Reads the rows of one file, whose columns are those of its ``head``."""

    def __init__(self, file: Path, head: Sequence[Row], choice: Choice, made: Columns) -> None:
        good = [row.value for row in head if row.value is not None]
        names = dict.fromkeys(name for row in good for name in row)
        self.layout = layout(good, choice.given, name_of(file)) if good else Layout()
        self._chosen = _chosen(names, choice, name_of(file)) if good else None
        self._id = choice.id or (ID if ID in names else None)
        self._made, self._file = made, file
        schema = arrow_schema(file)
        types = {name: None if schema is None else schema.field(name).type
                 for name in names if self._chosen is None or name in self._chosen}  # fmt: skip
        number = {} if self._id else {ID: "int64"}
        self._part = Part(
            file, {**number, **types, **made}, [self._kept(n, row) for n, row in enumerate(good)]
        )

    def line(self, number: int, row: Row) -> Line:
        key = hashlib.sha256(row.content().strip()).digest()[:16]
        line = Line(number, row, self._part, key, self._kept(number, row.value))
        pair = self._pair(row)
        if isinstance(pair, Pair):
            line.pair = pair
        else:
            line.error = pair
        return line

    def _kept(self, number: int, row: Mapping[str, Any] | None) -> dict[str, Any]:
        own = self._id or ID
        if row is None:
            return {own: number}
        if self._chosen is not None:
            row = {name: row[name] for name in row if name in self._chosen}
        for name in row:
            if name in self._made:
                raise ConfigurationError(_collision(name, name_of(self._file)))
        return dict(row) if own in row else {own: number, **row}

    def _pair(self, row: Row) -> Pair | FivescoreError:
        if row.value is None:
            kind = InvalidRow if row.raw is None else InvalidJson
            return kind(f"{row.fault}: {row.detail}" if row.detail else row.fault)
        try:
            return parse_pair(self.layout.pair(row.value))
        except InvalidPair as error:
            return error


def _chosen(names: Mapping[str, Any], choice: Choice, origin: str) -> set[str] | None:
    """The columns to keep; None keeps all."""
    wanted = [*(choice.columns or ()), *([choice.id] if choice.id else [])]
    for name in wanted:
        if name not in names:
            listed = ", ".join(names)
            raise ConfigurationError(f"{origin} has no column {name}: its columns are {listed}")
    return None if choice.columns is None else {*wanted, ID}


def _collision(name: str, file: str) -> str:
    return (
        f"{file} has a column {name}, and so do the scores: give the scores' columns other names"
        " with --prefix, or leave it out with --columns"
    )
