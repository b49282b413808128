"""Data sets as people name them: a file, a folder with splits, an id on the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fivescore.data.formats import SUFFIXES
from fivescore.data.reader import files_of_split, is_hub_id, read
from fivescore.errors import ConfigurationError
from tests.unit.data.files import write

ROWS = [{"a": number} for number in range(3)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_source_has_rows_name_and_digest_of_its_file(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"x.1{suffix}", ROWS)
    source = read(str(file), "any")
    assert [row.value for row in source.rows] == ROWS
    assert (source.name, source.origin, source.total) == ("x.1", str(file), 3)
    assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_bad_rows_are_counted_with_the_first_place_and_blank_lines_are_not(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n\n{\n[]\n{\n\n{"a": 2}\n\n\n')
    source = read(str(file), "train")
    assert [row.number for row in source.rows] == [1, 7]
    assert source.summary() == {
        "origin": str(file),
        "rows": 5,
        "sha256": source.sha256,
        "unusable": {"the line is not JSON": 2, "the line is not a JSON object": 1},
        "first": {
            "the line is not JSON": f"{file}:3",
            "the line is not a JSON object": f"{file}:4",
        },
    }
    assert source.bad.lines()[0] == f"2 not used: the line is not JSON (first: {file}:3)"
    limited = read(str(file), "train", limit=2)
    assert (limited.total, len(limited.rows)) == (2, 1)


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (["train.jsonl", "validation.jsonl.gz"], "validation", ["validation.jsonl.gz"]),
        (["train.jsonl", "train_notes.jsonl"], "train", ["train.jsonl"]),
        (["filtered_v2.json", "raw.json"], "filtered", ["filtered_v2.json"]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "train",
         ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]),
        (["train.csv", "train.jsonl"], "train", ["train.jsonl"]),
        (["train.csv"], "train", ["train.csv"]),
        (["train.txt", "train.jsonl"], "train", ["train.jsonl"]),
        (["other.jsonl"], "train", []),
    ],
)  # fmt: skip
def test_files_of_a_split(names: list[str], split: str, found: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert [file.name for file in files_of_split(tmp_path, split)] == found


@pytest.mark.parametrize(
    "names",
    [
        ["train.jsonl", "train.parquet"],
        ["train.jsonl", "train-00000-of-00001.jsonl"],
        ["train-0.jsonl", "train-1.parquet"],
        ["train_a.jsonl", "train_b.jsonl"],
    ],
)
def test_files_that_may_hold_rows_twice_are_refused(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigurationError, match=r"has 2 data files .*: give the file"):
        files_of_split(tmp_path, "train")


def test_the_parts_of_a_split_are_one_source(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path / f"train-0000{part}-of-00002.jsonl", ROWS)
    source = read(str(tmp_path), "train")
    assert (source.total, source.sha256, source.origin) == (6, None, str(tmp_path))
    assert source.rows[3].place == f"{tmp_path / 'train-00001-of-00002.jsonl'}:1"


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("empty.jsonl", "empty.jsonl has no rows"),
        ("empty.json", "empty.json has no rows"),
        ("folder", "has no data files whose name starts with 'train'"),
        ("no/such.jsonl", "No such file"),
        ("noslash", "must end in one of"),
        ("nobody/nothing", r"nobody/nothing \(split train\) cannot be loaded .*give its file"),
    ],
)
def test_what_has_no_rows_is_one_line(
    origin: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=told) as caught:
        read(origin, "train")
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("nvidia/HelpSteer2", True), ("a-b_c/d.e-1", True), ("gpt2", False), ("a/b/c", False),
        ("./a/b", False), ("data/x.jsonl", False), ("data/x.CSV.gz", False), ("a/b\n", False),
        ("-a/b", False), ("é/b", False),
    ],
)  # fmt: skip
def test_what_may_be_a_hub_id(name: str, is_one: bool) -> None:
    assert is_hub_id(name) == is_one
