"""Writes rows: as JSON Lines to which a later run can append, or as one file of any format."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, BinaryIO, Protocol

from fivescore.data.formats import need_pyarrow
from fivescore.errors import ConfigurationError, first_line

Columns = Mapping[str, Any]
"""The columns of a file in order. Each has a ``pyarrow.DataType``, the name of one, such as
``float64``, ``{member: type}`` of an object, or None where the type is that of the first rows."""
GROUP_ROWS = 4096
"""Rows of one row group of Parquet, which are in memory until it is written."""


def append(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all rows in one call, so that a killed run leaves at most one torn line, the last."""
    file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    file.flush()


class Writer(Protocol):
    """Writes rows, each ``{column: value}``, in order; a value that is missing is empty."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row.

        Raises:
            ConfigurationError: it has a value that the format cannot hold in that column.
            OSError: the file cannot be written.
        """

    def close(self, about: Mapping[str, str]) -> None:
        """End the file; ``about`` becomes its metadata, where the format has some (Parquet).

        Raises:
            ConfigurationError, OSError: as ``write``.
        """


@contextmanager
def written(
    file: IO[bytes], suffix: str, name: str, columns: Columns, sample: Sequence[Mapping[str, Any]]
) -> Iterator[Writer]:
    """A writer of the format that ``suffix`` says, such as ``.jsonl.gz``.

    The same rows give the same bytes. A file whose writer was not closed is not whole.

    Args:
        name: the file's name in errors.
        columns: the columns that rows may have. JSON and JSON Lines hold others too.
        sample: the first rows, of which columns without a type take theirs.
    """
    kind = suffix.removesuffix(".gz")
    with ExitStack() as stack:
        if kind != suffix:
            gz: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            file = stack.enter_context(gz)
        writer = _WRITERS[kind](file, name, columns, sample)
        if kind == ".parquet":
            stack.callback(writer.end)
        yield writer


class _JsonLines:
    def __init__(self, file: IO[bytes], name: str, columns: Columns, sample: object) -> None:
        self._file = file

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(encoded(row) + b"\n")

    def close(self, about: Mapping[str, str]) -> None:
        self._file.flush()


class _Json:
    def __init__(self, file: IO[bytes], name: str, columns: Columns, sample: object) -> None:
        self._file, self._before = file, b"[\n"

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(self._before + encoded(row))
        self._before = b",\n"

    def close(self, about: Mapping[str, str]) -> None:
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
        self._file.flush()


class _Csv:
    """Cells hold a text as it is, and everything else as JSON, None as nothing.

    Half of a surrogate pair, which neither CSV nor Parquet can hold, becomes U+FFFD.
    """

    def __init__(self, file: IO[bytes], name: str, columns: Columns, sample: object) -> None:
        self._file, self._name, self._columns = file, name, columns
        self._lines = io.StringIO(newline="")
        self._csv = csv.writer(self._lines, lineterminator="\n")
        self._add(columns)

    def write(self, row: Mapping[str, Any]) -> None:
        _check_columns(row, self._columns, self._name)
        self._add([_cell(row.get(name)) for name in self._columns])

    def close(self, about: Mapping[str, str]) -> None:
        self._file.flush()

    def _add(self, cells: Iterable[str]) -> None:
        self._csv.writerow(cells)
        self._file.write(self._lines.getvalue().encode())
        self._lines.seek(0)
        self._lines.truncate()


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else encoded(value).decode()
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


class _Parquet:
    def __init__(
        self, file: IO[bytes], name: str, columns: Columns, sample: Sequence[Mapping[str, Any]]
    ) -> None:
        self._arrow = need_pyarrow(name)
        from pyarrow.parquet import ParquetWriter

        self._name = name
        self._types = {
            column: self._type(kind, [row.get(column) for row in sample])
            for column, kind in columns.items()
        }
        self._schema = self._arrow.schema(list(self._types.items()))
        self._writer = ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        _check_columns(row, self._types, self._name)
        self._rows.append(row)
        if len(self._rows) == GROUP_ROWS:
            self._flush()

    def close(self, about: Mapping[str, str]) -> None:
        self._flush()
        self._writer.add_key_value_metadata(about)
        self._writer.close()

    def end(self) -> None:
        """Let pyarrow write what it must while the file is open; it would later, and fail."""
        with contextlib.suppress(self._arrow.ArrowException, OSError, ValueError):
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            arrays = [self._array(name, kind) for name, kind in self._types.items()]
            self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
            self._rows = []

    def _array(self, column: str, kind: Any) -> Any:
        values = [row.get(column) for row in self._rows]
        if _is_text(kind):
            values = [None if value is None else _cell(value) for value in values]
        fault = next((fault for value in values if (fault := _loss(value, kind))), "")
        try:
            if not fault:
                return self._arrow.array(values, kind)
        except (self._arrow.ArrowException, ValueError, TypeError, OverflowError) as error:
            fault = first_line(error)
        raise ConfigurationError(
            f"{self._name}: column {column} of Parquet is {kind}, and a row has another value"
            f" there ({fault}): leave the column out, or write JSON Lines"
        )

    def _type(self, kind: Any, sample: list[Any]) -> Any:
        if isinstance(kind, dict):
            return self._arrow.struct([(name, self._type(one, [])) for name, one in kind.items()])
        if kind is not None:
            return self._arrow.type_for_alias(kind) if isinstance(kind, str) else kind
        try:
            found = self._arrow.array(sample).type
        except (self._arrow.ArrowException, ValueError, TypeError, OverflowError):
            return self._arrow.string()  # of several types, each of which is written as JSON
        return self._arrow.string() if _has_nothing(found) else found


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _has_nothing(kind: Any) -> bool:
    """Whether a type is that of None alone, or an object without fields, which Parquet lacks."""
    return str(kind) == "null" or "null" in str(kind).split(" ") or "struct<>" in str(kind)


def _loss(value: Any, kind: Any) -> str:
    """What pyarrow would drop of a value without a word: members that a struct does not have,
    decimals, and digits of large numbers."""
    if isinstance(value, dict) and str(kind).startswith("struct<"):
        fields = {field.name: field.type for field in kind}
        unknown = next((name for name in value if name not in fields), None)
        if unknown is not None:
            return f"member {unknown} is new"
        return next((loss for name in value if (loss := _loss(value[name], fields[name]))), "")
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return next((loss for one in value if (loss := _loss(one, kind.value_type))), "")
    if isinstance(value, bool | int | float):
        named = str(kind)
        if named.startswith(("int", "uint")) and (isinstance(value, bool) or value % 1 != 0):
            return encoded(value).decode()
        if named == "double" and (isinstance(value, bool) or not _is_float(value)):
            return encoded(value).decode()
    return ""


def _is_float(value: int | float) -> bool:
    return isinstance(value, float) or abs(value) <= 2**53


def _check_columns(row: Mapping[str, Any], columns: Columns, name: str) -> None:
    if unknown := [column for column in row if column not in columns]:
        raise ConfigurationError(
            f"{name}: a row has the column {unknown[0]}, which the first rows do not have: choose"
            " the columns, or write JSON Lines"
        )


def encoded(value: Any) -> bytes:
    """A value as JSON proper: without NaN, and what JSON has no form for as text."""
    try:
        return _json(value).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(value, allow_nan=False, default=_plain).encode()
    except ValueError:
        return encoded(_finite(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


_WRITERS: dict[str, Any] = {
    ".jsonl": _JsonLines,
    ".json": _Json,
    ".csv": _Csv,
    ".parquet": _Parquet,
}
