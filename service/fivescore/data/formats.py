"""The file formats: JSON Lines, JSON, CSV and Parquet, each also compressed with gzip.

All are streamed; only a single JSON object is read whole. Parquet needs pyarrow, the others need
only the base installation.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
CHARACTERS_AT_ONCE = 2**20
"""Characters of a JSON array that are read at a time."""
MOST_CHARACTERS = 2**28
"""Limit on one element of a JSON array, and on what is read to find the end of a broken one."""
STDIN = Path("-")
"""The name of standard input."""

Stream = io.BufferedReader | gzip.GzipFile
Parser = Callable[[Stream, str], Iterator[Row]]


def suffix_of(name: str) -> str | None:
    """The ending of a file's name that says its format, such as ``.jsonl.gz``; None without one."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def name_of(path: Path) -> str:
    """How a file is called in errors and places."""
    return "stdin" if path == STDIN else str(path)


def read_file(path: Path, default: str | None = None, typed: bool = True) -> Iterator[Row]:
    """The rows of a file in order, bad ones and, in JSON Lines, blank lines included.

    Args:
        path: the file, or ``STDIN``.
        default: the format of a file whose name has no known ending, such as ``.jsonl``.
        typed: read CSV cells that are JSON as JSON; otherwise each cell is the text that it is.

    Raises:
        ConfigurationError: the file does not exist, or does not have the format of its name.
    """
    suffix = suffix_of(path.name) or default
    if suffix is None:
        raise ConfigurationError(
            f"{path}: the name must end in one of {', '.join(FORMATS)}, each also with .gz"
        )
    with _one_error(path), _opened(path, suffix.endswith(".gz")) as file:
        kind = suffix.removesuffix(".gz")
        parser = _PARSERS[kind] if typed or kind != ".csv" else partial(_csv, typed=False)
        yield from parser(file, name_of(path))


def count_rows(path: Path, default: str | None = None) -> int:
    """The number of rows that ``read_file`` yields.

    Raises:
        ConfigurationError: as ``read_file``.
    """
    suffix = suffix_of(path.name) or default or ""
    if suffix.startswith(".jsonl"):
        with _one_error(path), _opened(path, suffix.endswith(".gz")) as file:
            return sum(1 for _ in file)
    if suffix == ".parquet":
        with _one_error(path), _opened(path, False) as file, _parquet_file(file, str(path)) as data:
            return int(data.metadata.num_rows)
    return sum(1 for _ in read_file(path, default))


def arrow_schema(path: Path) -> Any:
    """The columns of a Parquet file, as a ``pyarrow.Schema``; None for other formats.

    Raises:
        ConfigurationError: as ``read_file``.
    """
    if not (suffix := suffix_of(path.name) or "").startswith(".parquet"):
        return None
    compressed = suffix.endswith(".gz")
    with (
        _one_error(path),
        _opened(path, compressed) as file,
        _parquet_file(file, str(path)) as data,
    ):
        return data.schema_arrow


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a Parquet file that its writer has given it.

    Raises:
        ConfigurationError: as ``read_file``.
    """
    with _one_error(path), _opened(path, False) as file, _parquet_file(file, str(path)) as data:
        found = data.metadata.metadata or {}
        return {name.decode(errors="replace"): value.decode(errors="replace")
                for name, value in found.items()}  # fmt: skip


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigurationError(f"{path}: it cannot be read: {reason}") from error


@contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[Stream]:
    with open(0, "rb", closefd=False) if path == STDIN else path.open("rb") as file:
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
    if file.peek(64).decode(errors="replace").removeprefix(BOM).lstrip().startswith("["):
        yield from _json_array(file, origin)
        return
    start = file.readline()
    if _json_line(start, origin, 1).value is not None:
        yield from _json_lines(chain([start], file), origin)
    else:
        yield from _json_object(start + file.read(), origin)


def _json_object(content: bytes, origin: str) -> Iterator[Row]:
    try:
        value = json.loads(_decoded(content, first=True))
    except (ValueError, RecursionError) as error:
        if not content.lstrip().startswith(b"{"):
            raise _not_json(origin, error) from error
        yield from _json_lines(io.BytesIO(content), origin)
    else:
        yield _row(value, origin, 1, "the element is not a JSON object")


def _json_array(file: Stream, origin: str) -> Iterator[Row]:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        for number, value in enumerate(_elements(text), 1):
            yield _row(value, origin, number, "the element is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise _not_json(origin, error) from error
    finally:
        text.detach()  # or its end would close the file


def _not_json(origin: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{origin}: it is not JSON: {first_line(error)}")


_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def _elements(text: IO[str]) -> Iterator[Any]:
    """The elements of an array; holds one of them and one chunk of text at a time.

    Raises:
        ValueError: the text is not a JSON array, or has an element above ``MOST_CHARACTERS``.
    """
    buffer = text.read(CHARACTERS_AT_ONCE)
    at, separator = _after_space(buffer, 0) + 1, ""
    while True:
        try:
            found, end = _element(buffer, at, separator)
        except (ValueError, IndexError) as error:  # it may go on in the next chunk
            if len(buffer) - at > MOST_CHARACTERS:
                reason = f"an element has more than {MOST_CHARACTERS} characters, or is broken"
                raise ValueError(reason) from error
            more = text.read(max(CHARACTERS_AT_ONCE, len(buffer) - at))
            if not more:
                cut = isinstance(error, IndexError)
                raise ValueError("the array has no end" if cut else str(error)) from error
            buffer, at = buffer[at:] + more, 0
            continue
        if not found:
            if buffer[_after_space(buffer, end) :] or text.read().strip():
                raise ValueError("there is more behind the array's end")
            return
        yield found[0]
        at, separator = end, ","


def _element(buffer: str, at: int, separator: str) -> tuple[list[Any], int]:
    """The element at ``at`` in a list, which is empty at the array's end, and where it ends.

    Raises:
        ValueError: there is none, or not all of it.
        IndexError: the buffer ends before it.
    """
    at = _after_space(buffer, at)
    if buffer[at] == "]":
        return [], at + 1
    if not buffer.startswith(separator, at):
        raise ValueError(f"{buffer[at]!r} where a comma is expected")
    value, end = _DECODER.raw_decode(buffer, _after_space(buffer, at + len(separator)))
    buffer[end]  # a number may go on behind the buffer's end
    return [value], end


def _after_space(buffer: str, at: int) -> int:
    match = _SPACE.match(buffer, at)
    assert match
    return match.end()


def _csv(file: Stream, origin: str, typed: bool = True) -> Iterator[Row]:
    # The module's limit of 131,072 characters is less than one long conversation, and a reader
    # has no limit of its own.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((_decoded(line, n == 0) for n, line in enumerate(file)), strict=True)
    try:
        names = next(reader, None)
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"{origin}: the first line must name each column once")
        yield from _csv_rows(reader, names, origin, _cell if typed else _text)
    except (csv.Error, UnicodeDecodeError) as error:
        number = reader.line_num + isinstance(error, UnicodeDecodeError)
        raise ConfigurationError(f"{origin}:{number}: it is not CSV in UTF-8: {error}") from error


def _csv_rows(
    reader: Any, names: list[str], origin: str, read: Callable[[str, str], Any]
) -> Iterator[Row]:
    before = reader.line_num
    for cells in reader:
        number, before = before + 1, reader.line_num  # a row may span several lines
        if len(cells) == len(names):
            value = {name: read(name, cell) for name, cell in zip(names, cells, strict=True)}
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


def _text(_: str, text: str) -> str:
    return text


def _parquet(file: Stream, origin: str) -> Iterator[Row]:
    number = 0
    with _parquet_file(file, origin) as data:
        for batch in data.iter_batches(ROWS_AT_ONCE):
            for value in batch.to_pylist():
                number += 1
                yield Row(origin, number, value)


@contextmanager
def _parquet_file(file: Stream, origin: str) -> Iterator[Any]:
    pyarrow = need_pyarrow(origin)
    from pyarrow.parquet import ParquetFile

    try:
        with _seekable(file) as seekable, ParquetFile(seekable) as data:
            names = data.schema_arrow.names
            if len(set(names)) < len(names):
                raise ConfigurationError(f"{origin}: it must name each column once")
            yield data
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigurationError(
            f"{origin}: it cannot be read as Parquet: {first_line(error)}"
        ) from error


def need_pyarrow(origin: str) -> Any:
    """The module ``pyarrow``.

    Raises:
        ConfigurationError: it is not installed; names the file that needs it, and what to install.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{origin}: Parquet needs pyarrow, which is not installed:"
            " pip install 'fivescore[evaluate]'"
        ) from error
    return pyarrow


@contextmanager
def _seekable(file: Stream) -> Iterator[IO[bytes]]:
    """Parquet is read from its end: what comes from gzip or a pipe is copied to the disk first."""
    if not isinstance(file, gzip.GzipFile) and file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


_PARSERS: dict[str, Parser] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
