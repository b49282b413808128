"""Training and validation rows, as HelpSteer2's files, folders and the hub have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from fivescore.data.formats import SUFFIXES
from fivescore.data.splits import _by_column, _read_hub, read_splits
from fivescore.errors import ConfigurationError
from tests.unit.data import files

ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "response": "b", "helpfulness": 1},
    {"prompt": "c", "response": "d", "helpfulness": None},
]
BY_COLUMN = [{"prompt": "a", "split": split} for split in ("train", "val", "validation", "")]


def write(file: Path) -> Path:
    return files.write(file, ROWS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    train = write(tmp_path / f"a{suffix}")
    splits = read_splits(str(train), write(tmp_path / f"b{suffix}"), "regression")
    for rows in (splits.train, splits.validation):
        assert [row.value for row in rows] == ROWS
    # A model card shows places: they do not say where the file lay.
    assert splits.train[0].origin == f"a{suffix}"


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "validation.jsonl"),
        ("train.jsonl.gz", "validation.jsonl.gz"),
        ("train.csv", "val.json"),
        ("train.jsonl", "val.jsonl", "training_notes.jsonl", "train.csv"),
        ("data/train-00000-of-00002.parquet", "data/validation-00000-of-00001.parquet"),
    ],
)
def test_a_folder_has_both_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name)
    splits = read_splits(str(tmp_path), None, "regression")
    assert (len(splits.train), len(splits.validation)) == (2, 2)


@pytest.mark.parametrize("place", ["preference.jsonl", "preference/preference.jsonl"])
def test_a_column_can_split_a_file(place: str, tmp_path: Path) -> None:
    files.write(tmp_path / place, BY_COLUMN)
    splits = read_splits(str(tmp_path), None, "preference")
    assert [len(splits.train), len(splits.validation)] == [2, 2]


def test_bad_lines_are_rows_for_the_report(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl")
    file.write_text(f"{file.read_text()}{{broken\n\n[1]\n")
    rows = read_splits(str(file), write(tmp_path / "b.jsonl"), "regression").train[2:]
    assert [(row.place, row.fault) for row in rows] == [
        ("a.jsonl:3", "the line is not JSON"),
        ("a.jsonl:5", "the line is not a JSON object"),
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nothing.jsonl", "there is no such file or folder"),
        ("empty", "no train file (train.jsonl, train.json, train.csv, train.parquet)"),
        ("alone", "there are no validation rows: give a file with --validation"),
        ("blank", "there are no train rows"),
        ("rows.txt", "must end in one of"),
        ("bad.jsonl.gz", "bad.jsonl.gz: it cannot be read"),
    ],
)
def test_what_is_missing_or_unreadable_is_reported(source: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "alone" / "train.jsonl")
    write(tmp_path / "blank" / "validation.jsonl")
    (tmp_path / "blank" / "train.jsonl").write_text("\n")
    (tmp_path / "rows.txt").write_text("a,b\n")
    (tmp_path / "bad.jsonl.gz").write_text("x")
    with pytest.raises(ConfigurationError) as caught:
        read_splits(str(tmp_path / source), None, "regression")
    assert told in caught.value.detail


@pytest.mark.filterwarnings("default")  # datasets leaves a file open
def test_the_hub_reads_helpsteer2s_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub has it: both splits at the top, the preferences in one file in a folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    repository = tmp_path / "HelpSteer2"
    for name in ("train", "validation"):
        write(repository / f"{name}.jsonl.gz")
    rows = [{"prompt": "a", "preference_strength": 1, "split": name} for name in ("train", "val")]
    files.write(repository / "preference" / "preference.jsonl", rows)
    found = _read_hub(str(repository), "regression")
    assert (found["train"][0].place, found["train"][0].value) == ("train:1", ROWS[0])
    assert len(found["validation"]) == 2
    splits = _by_column(_read_hub(str(repository), "preference"))
    assert [json.loads(row.content())["split"] for row in splits["train"]] == ["train"]
    assert [json.loads(row.content())["split"] for row in splits["validation"]] == ["val"]


def test_a_hub_id_without_a_network_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="nvidia/NoSuchData cannot be loaded from the hub"):
        read_splits("nvidia/NoSuchData", None, "regression")
