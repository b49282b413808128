"""Rows that are written in any format are read as the same rows."""

from __future__ import annotations

import datetime
import gzip
import io
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from fivescore.data.formats import SUFFIXES, arrow_schema, read_file, read_metadata
from fivescore.data.writer import Columns, encoded, written
from fivescore.errors import ConfigurationError

Json = dict[str, Any]
ROWS: list[Json] = [
    {"id": 1, "prompt": 'Q é\nline 2, "x"', "score": 0.1, "ok": True, "turns": [{"role": "user"}]},
    {"id": 2, "prompt": "", "score": None, "ok": None, "turns": []},
]
TYPES: Columns = {"id": "int64", "prompt": None, "score": "float64", "ok": "bool", "turns": None}


def write(file: Path, rows: Sequence[Json], columns: Columns, sample: Sequence[Json] = ()) -> None:
    suffix = file.name.partition(".")[2]
    with (
        file.open("wb") as opened,
        written(opened, f".{suffix}", file.name, columns, sample or rows) as writer,
    ):
        for row in rows:
            writer.write(row)
        writer.close({"about": "é"})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_back_and_the_same_rows_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    file, again = tmp_path / f"x{suffix}", tmp_path / f"y{suffix}"
    for one in (file, again):
        write(one, ROWS, TYPES)
    assert [row.value for row in read_file(file)] == ROWS
    assert file.read_bytes() == again.read_bytes()
    if suffix == ".parquet":
        assert read_metadata(file)["about"] == "é"


def test_csv_is_text_as_it_is_and_json() -> None:
    file = io.BytesIO()
    row = {"a": "1e5", "b": 1e5, "c": None, "d": False, "e": {"x": [1]}, "f": "a\r\nb"}
    with written(file, ".csv", "x.csv", dict.fromkeys(row), [row]) as writer:
        writer.write(row)
        writer.write({"a": ""})
        writer.close({})
    assert file.getvalue().decode() == (
        'a,b,c,d,e,f\n1e5,100000.0,,false,"{""x"": [1]}","a\r\nb"\n,,,,,\n'
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_half_a_surrogate_pair_stops_no_file(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / f"x{suffix}", [{"a": "x\ud83d \ud83d\ude00y"}], {"a": None}, [{"a": "x"}])
    assert [row.value for row in read_file(tmp_path / f"x{suffix}")] == [
        {"a": "x\ufffd \U0001f600y"}
    ]


def test_csv_cells_may_be_read_as_the_text_that_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1e5,\n[1],007\n")
    rows = [row.value for row in read_file(tmp_path / "x.csv", typed=False)]
    assert rows == [{"a": "1e5", "b": ""}, {"a": "[1]", "b": "007"}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "null"),
        ({"a": [1.5, float("inf")]}, '{"a": [1.5, null]}'),
        ("\ud83d é", '"\\ud83d \\u00e9"'),
        ("é", '"é"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (Decimal("1.20"), '"1.20"'),
        (b"\x00", '"AA=="'),
    ],
)
def test_everything_that_tables_hold_is_json_proper(value: Any, text: str) -> None:
    assert encoded(value).decode() == text


def test_parquet_keeps_the_types_of_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({
        "day": [datetime.date(2026, 1, 2)], "n": pyarrow.array([1], "int8"),
        "kind": pyarrow.array(["a"]).dictionary_encode(), "raw": [b"\x00"],
        "turns": [[{"role": "user", "content": None}]],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "x.parquet")
    schema = arrow_schema(tmp_path / "x.parquet")
    rows = [row.value or {} for row in read_file(tmp_path / "x.parquet")]
    write(tmp_path / "y.parquet", rows, {name: schema.field(name).type for name in schema.names})
    assert parquet.read_table(tmp_path / "y.parquet").equals(table)


@pytest.mark.parametrize(
    ("first", "later", "told"),
    [
        ({"a": 1}, {"a": "x"}, "column a of Parquet is int64"),
        ({"a": 1}, {"a": 1.5}, "column a of Parquet is int64"),
        ({"a": 1}, {"a": True}, "column a of Parquet is int64"),
        ({"a": 1.5}, {"a": 2**60 + 1}, "column a of Parquet is double"),
        ({"a": True}, {"a": 1}, "column a of Parquet is bool"),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, "member y is new"),
        ({"a": [{"x": 1}]}, {"a": [{"x": 1}, {"z": 2}]}, "member z is new"),
        ({"a": 1}, {"b": 1}, "a row has the column b"),
    ],
)
def test_what_parquet_would_drop_or_cannot_hold_is_refused(
    first: Json, later: Json, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        write(tmp_path / "x.parquet", [first, later], {"a": None}, [first])


@pytest.mark.parametrize(
    ("sample", "value", "found"),
    [
        ([None], {"a": [1]}, '{"a": [1]}'),
        ([1, "x"], 1, "1"),
        (["x"], 7, "7"),
        ([{}], {"a": 1}, '{"a": 1}'),
    ],
)
def test_a_column_of_no_or_many_types_is_text(
    sample: list[Any], value: Any, found: str, tmp_path: Path
) -> None:
    write(tmp_path / "x.parquet", [{"a": value}], {"a": None}, [{"a": one} for one in sample])
    assert [row.value for row in read_file(tmp_path / "x.parquet")] == [{"a": found}]


def test_compressed_files_name_no_time_and_no_file(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl.gz", ROWS, TYPES)
    content = (tmp_path / "x.jsonl.gz").read_bytes()
    assert content[3:8] == bytes(5)  # no flags and no time (RFC 1952)
    assert [json.loads(line) for line in gzip.decompress(content).splitlines()] == ROWS
