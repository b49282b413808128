"""Files of every format, whole and broken: the same rows, or one error that names the file."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from fivescore.data.formats import SUFFIXES, arrow_schema, count_rows, read_file
from fivescore.errors import ConfigurationError
from tests.unit.data.files import write
from tests.unit.test_cli import without

ROWS: list[dict[str, Any]] = [
    {"prompt": 'Q é\nline 2, "quoted"', "response": "4", "helpfulness": 1.5, "id": "007"},
    {"prompt": "", "response": "null", "helpfulness": None, "id": "8a"},
]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
GZ = gzip.compress(LINES * 50, mtime=0)
GOOD = {"a": 1}


def values(file: Path) -> list[Any]:
    return [row.value for row in read_file(file)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"x{suffix}", ROWS)
    assert values(file) == ROWS
    assert count_rows(file) == 2
    last = list(read_file(file))[-1]
    # CSV counts lines, of which the header is one and the first row has two.
    assert last.place == f"{file}:{4 if '.csv' in suffix else 2}"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 1}\r\n', [GOOD, GOOD]),
        ("x.jsonl", b'{"a": 1}\n{"a": 1}', [GOOD, GOOD]),
        ("x.jsonl", b"", []),
        ("X.JSONL", b'{"a": 1}\n', [GOOD]),
        ("x.json", b'{"a": 1}\n{"a": 1}\n', [GOOD, GOOD]),
        ("x.json", b'\xef\xbb\xbf[\n{"a": 1}\r\n]\n', [GOOD]),
        ("x.json", b'{\n"a": 1\n}\n', [GOOD]),
        ("x.json", b"[]", []),
        ("x.json", b" \n[\n] \n", []),
        ("x.csv", b"\xef\xbb\xbfa,prompt\r\n1,1\r\n\r\n\r\n", [{"a": 1, "prompt": "1"}]),
        ("x.csv", b"a,prompt\n[1],\n", [{"a": [1], "prompt": ""}]),
        ("x.csv", b"prompt\n" + b"x" * 200_000 + b"\n", [{"prompt": "x" * 200_000}]),
    ],
)
def test_what_people_s_tools_write_is_read(
    name: str, content: bytes, found: list[Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert values(tmp_path / name) == found


@pytest.mark.parametrize(
    ("name", "content", "place", "fault"),
    [
        *(
            (name, b'{"a": 1}\n' + bad + b'\n{"a": 1}\n', 2, f"the line is {fault}")
            for name, bad, fault in (
                ("x.jsonl", b"{", "not JSON"),
                ("x.jsonl", b"[" * 100_000, "not JSON"),
                ("x.jsonl", b"\x00\x00", "not JSON"),
                ("x.jsonl", b'{"a": "\x00"}', "not JSON"),
                ("x.jsonl", b'{"a": "\xe9"}', "not UTF-8"),
                ("x.jsonl", b"[1]", "not a JSON object"),
                ("x.jsonl", b" \r", "blank"),
                ("x.json", b"{", "not JSON"),
            )
        ),
        ("x.json", b'[{"a": 1}, 2, {"a": 1}]', 2, "the element is not a JSON object"),
        ("x.csv", b"a\n1\n1,2\n1\n", 3, "the row has more or fewer cells than the header"),
        ("x.csv", b'a,b\n1,"x\ny"\n1\n', 4, "the row has more or fewer cells than the header"),
    ],
)
def test_a_bad_line_element_or_row_has_no_value_and_harms_no_other(
    name: str, content: bytes, place: int, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    rows = list(read_file(file))
    (bad,) = [row for row in rows if row.value is None]
    assert (bad.number, bad.fault, bad.place) == (place, fault, f"{file}:{place}")
    assert name == "x.csv" or [row.value for row in rows if row is not bad] == [GOOD, GOOD]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl.gz", b"", "it is empty, not gzip"),
        ("x.jsonl.gz", b"plain", "Not a gzipped file"),
        ("x.jsonl.gz", GZ[:-9], "ended before"),
        ("x.jsonl.gz", GZ[:12] + b"\x00\xff" * 20, "cannot be read"),
        ("x.jsonl.gz", GZ[:-8] + b"\x00" * 8, "CRC check failed"),
        ("x.jsonl.gz", GZ + b"trailing", "Not a gzipped file"),
        ("x.jsonl", GZ, "give it the ending .gz"),
        ("x.csv.gz", GZ[:-9], "ended before"),
        ("x.parquet.gz", GZ[:-9], "ended before"),
        ("x.json", b"", "it is not JSON"),
        ("x.json", b'[{"a": 1},', "it is not JSON"),
        ("x.json", b'[{"a": 1}', "it is not JSON: the array has no end"),
        ("x.json", b'[{"a": 1}, ]', "it is not JSON"),
        ("x.json", b'[{"a": 1} {"a": 1}]', "'{' where a comma is expected"),
        ("x.json", b'[{"a": 1}] [', "there is more behind the array's end"),
        ("x.json", b'[{"a": "\xe9"}]', "it is not JSON"),
        ("x.json", b"[" * 100_000, "it is not JSON"),
        ("x.csv", b"", "the first line must name each column once"),
        ("x.csv", b"a,a\n1,2\n", "the first line must name each column once"),
        ("x.csv", b"a\n1\n\xe9\n", "x.csv:3: it is not CSV in UTF-8"),
        ("x.csv", b'a\n"1\n', "it is not CSV in UTF-8: unexpected end of data"),
        ("x.parquet", b"", "cannot be read as Parquet"),
        ("x.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("x.parquet", b"PAR1" + b"\xff" * 8 + b"\x00" * 20 + b"PAR1", "cannot be read as Parquet"),
        ("x.txt", b"", "must end in one of .jsonl, .json, .csv, .parquet"),
        ("missing/x.jsonl", None, "No such file or directory"),
        ("folder.jsonl", None, "Is a directory"),
    ],
)  # fmt: skip
def test_a_corrupt_file_is_one_error_that_names_it(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    for read in (values, count_rows):
        with pytest.raises(ConfigurationError) as caught:
            read(file)
        assert str(file) in caught.value.detail
        assert told in caught.value.detail
        assert "\n" not in caught.value.detail


@pytest.mark.parametrize("size", range(1, 30))
def test_an_array_is_the_same_however_it_is_cut_into_chunks(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fivescore.data.formats.CHARACTERS_AT_ONCE", size)
    rows = [{"a": "é]}, {"}, {"b": [12, -1.5e3, True]}, {}, {"c": {"d": '\\\\"'}}]
    for indent in (None, 1):
        (tmp_path / "x.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=False))
        assert values(tmp_path / "x.json") == rows
    (tmp_path / "x.json").write_text("[12345, 678]")
    assert len(values(tmp_path / "x.json")) == 2


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv", ".csv.gz", ".json", ".json.gz"])
def test_rows_before_a_fault_come_before_it_is_read(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fivescore.data.formats.CHARACTERS_AT_ONCE", 10_000)
    file = write(tmp_path / f"x{suffix}", [{"a": f"{number:09}x"} for number in range(20_000)])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] + b'\xff"')
    rows = read_file(file)
    assert len(list(islice(rows, 1000))) == 1000
    with pytest.raises(ConfigurationError):
        list(rows)


def test_an_element_of_an_array_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivescore.data.formats.CHARACTERS_AT_ONCE", 10)
    monkeypatch.setattr("fivescore.data.formats.MOST_CHARACTERS", 100)
    (tmp_path / "x.json").write_text(json.dumps([{"a": "x" * 50}, {"a": "x" * 500}]))
    rows = read_file(tmp_path / "x.json")
    assert next(rows).value == {"a": "x" * 50}
    with pytest.raises(ConfigurationError, match="an element has more than 100 characters"):
        next(rows)


def test_parquet_must_name_each_column_once(tmp_path: Path) -> None:
    column = pyarrow.array([1])
    table = pyarrow.table([column, column], names=["a", "a"])
    parquet.write_table(table, tmp_path / "x.parquet")
    for read in (values, count_rows, arrow_schema):
        with pytest.raises(ConfigurationError, match="it must name each column once"):
            read(tmp_path / "x.parquet")


def test_a_name_without_a_format_may_have_a_default(tmp_path: Path) -> None:
    file = tmp_path / "pairs"
    file.write_bytes(b'{"a": 1}\n')
    assert [row.value for row in read_file(file, ".jsonl")] == [GOOD]
    assert count_rows(file, ".jsonl") == 1


BASE_ALONE = """
import sys
from pathlib import Path
from fivescore.data.formats import read_file
from fivescore.errors import ConfigurationError
for name in sys.argv[1:]:
    try:
        print(len(list(read_file(Path(name)))))
    except ConfigurationError as error:
        print(error.detail)
"""


def test_the_base_reads_all_but_parquet_and_says_what_that_needs(tmp_path: Path) -> None:
    files = [str(write(tmp_path / suffix / f"x{suffix}", ROWS)) for suffix in SUFFIXES]
    heavy = ("pyarrow", "datasets", "numpy", "scipy", "torch")
    done = without(heavy, *files, program=BASE_ALONE)
    *others, whole, compressed = done.stdout.splitlines()
    assert others == ["2"] * 6
    for told in (whole, compressed):
        assert "pip install 'fivescore[evaluate]'" in told
