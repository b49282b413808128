"""The file formats: JSON Lines, JSON, CSV and Parquet, each also compressed with gzip.

JSON Lines, CSV and Parquet are streamed; a JSON array and compressed Parquet are read whole.
Parquet needs pyarrow, the others need only the base installation.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from fivescore.data.rows import Row
from fivescore.errors import ConfigurationError, first_line

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
SUFFIXES = tuple(name + gz for name in FORMATS for gz in ("", ".gz"))
TEXT_COLUMNS = frozenset({
    "prompt", "response", "text", "chosen", "rejected", "input", "output_1", "output_2",
    "response_1", "response_2",
})  # fmt: skip
"""CSV columns that always hold text. CSV has no types, so in other columns a cell that is JSON (a
number, a list) is read as JSON, and an empty cell as None."""
GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of gzip (RFC 1952)."""
BOM = "\ufeff"
"""The byte order mark that some programs put before UTF-8 text."""
ROWS_AT_ONCE = 1024
"""Rows of Parquet that are Python objects in memory at a time."""

Stream = IO[bytes] | gzip.GzipFile
Parser = Callable[[Stream, str], Iterator[Row]]


def suffix_of(name: str) -> str | None:
    """The ending of a file's name that says its format, such as ``.jsonl.gz``; None without one."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def read_file(path: Path, default: str | None = None) -> Iterator[Row]:
    """The rows of a file in order, bad ones and, in JSON Lines, blank lines included.

    Args:
        default: the format of a file whose name has no known ending, such as ``.jsonl``.

    Raises:
        ConfigurationError: the file does not exist, or does not have the format of its name.
    """
    suffix = suffix_of(path.name) or default
    if suffix is None:
        raise ConfigurationError(
            f"{path}: the name must end in one of {', '.join(FORMATS)}, each also with .gz"
        )
    with _one_error(path), _opened(path, suffix.endswith(".gz")) as file:
        yield from _PARSERS[suffix.removesuffix(".gz")](file, str(path))


def count_rows(path: Path, default: str | None = None) -> int:
    """The number of rows that ``read_file`` yields.

    Raises:
        ConfigurationError: as ``read_file``.
    """
    if (suffix_of(path.name) or default or "").startswith(".jsonl"):
        with _one_error(path), _opened(path, path.name.lower().endswith(".gz")) as file:
            return sum(1 for _ in file)
    return sum(1 for _ in read_file(path, default))


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigurationError(f"{path}: it cannot be read: {reason}") from error


@contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[Stream]:
    with path.open("rb") as file:
        if not compressed:
            if file.peek(2)[:2] == GZIP_MAGIC:
                raise ConfigurationError(f"{path}: it is compressed: give it the ending .gz")
            yield file
            return
        if not file.peek(1):  # the gzip module accepts an empty file as empty text
            raise EOFError("it is empty, not gzip")
        with gzip.open(file) as plain:
            yield plain


def _json_lines(file: Iterable[bytes], origin: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        yield _json_line(line, origin, number)


def _json_line(line: bytes, origin: str, number: int) -> Row:
    if not line.strip():
        return Row(origin, number, None, "the line is blank", "", line)
    try:
        # Not json.loads(line), which decodes bytes with NULs as UTF-16.
        value = json.loads(_decoded(line, first=number == 1))
    except UnicodeDecodeError as error:
        return Row(origin, number, None, "the line is not UTF-8", str(error), line)
    except (ValueError, RecursionError) as error:
        return Row(origin, number, None, "the line is not JSON", str(error), line)
    return _row(value, origin, number, "the line is not a JSON object", line)


def _row(value: Any, origin: str, number: int, fault: str, raw: bytes | None = None) -> Row:
    if isinstance(value, dict):
        return Row(origin, number, value, raw=raw)
    return Row(origin, number, None, fault, raw=raw)


def _decoded(content: bytes, first: bool) -> str:
    text = content.decode()
    return text.removeprefix(BOM) if first else text


def _json(file: Stream, origin: str) -> Iterator[Row]:
    """An array of objects, a single object, or JSON Lines, which are often named .json too."""
    start = file.readline()
    if _json_line(start, origin, 1).value is not None:
        yield from _json_lines(chain([start], file), origin)
    else:
        yield from _whole_json(start + file.read(), origin)


def _whole_json(content: bytes, origin: str) -> Iterator[Row]:
    try:
        text = _decoded(content, first=True)
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not content.lstrip().startswith(b"{"):
            raise ConfigurationError(f"{origin}: it is not JSON: {first_line(error)}") from error
        yield from _json_lines(io.BytesIO(content), origin)
        return
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        yield _row(one, origin, number, "the element is not a JSON object")


def _csv(file: Stream, origin: str) -> Iterator[Row]:
    # The module's limit of 131,072 characters is less than one long conversation, and a reader
    # has no limit of its own.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((_decoded(line, n == 0) for n, line in enumerate(file)), strict=True)
    try:
        names = next(reader, None)
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"{origin}: the first line must name each column once")
        yield from _csv_rows(reader, names, origin)
    except (csv.Error, UnicodeDecodeError) as error:
        number = reader.line_num + isinstance(error, UnicodeDecodeError)
        raise ConfigurationError(f"{origin}:{number}: it is not CSV in UTF-8: {error}") from error


def _csv_rows(reader: Any, names: list[str], origin: str) -> Iterator[Row]:
    before = reader.line_num
    for cells in reader:
        number, before = before + 1, reader.line_num  # a row may span several lines
        if len(cells) == len(names):
            value = {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)}
            yield Row(origin, number, value)
        elif cells:  # a blank line has none
            yield Row(origin, number, None, "the row has more or fewer cells than the header")


def _cell(column: str, text: str) -> Any:
    if column in TEXT_COLUMNS:
        return text
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def _parquet(file: Stream, origin: str) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{origin}: Parquet needs pyarrow, which is not installed:"
            " pip install 'fivescore[evaluate]'"
        ) from error
    if isinstance(file, gzip.GzipFile):  # Parquet is read from its end
        file = io.BytesIO(file.read())
    number = 0
    try:
        for batch in ParquetFile(file).iter_batches(ROWS_AT_ONCE):
            for value in batch.to_pylist():
                number += 1
                yield Row(origin, number, value)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigurationError(
            f"{origin}: it cannot be read as Parquet: {first_line(error)}"
        ) from error


_PARSERS: dict[str, Parser] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
