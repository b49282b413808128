"""A file, a folder of files of one format, or a stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fivescore.data.formats import read_file
from fivescore.data.inputs import find
from fivescore.errors import ConfigurationError
from tests.unit.data.files import write

ROW = {"prompt": "Q", "response": "A"}


def test_a_folder_is_its_files_and_not_other_programs_notes(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "_x.jsonl", ".cache/y.jsonl", "b.jsonl.run.json"):
        write(tmp_path / name, [ROW])
    (tmp_path / "README.md").write_text("x")
    found = find(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in found.files] == [
        "a/z.jsonl", "b.jsonl",
    ]  # fmt: skip
    assert (found.is_folder, found.count(".jsonl")) == (True, 2)


def test_a_folder_without_files_or_with_several_formats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no files that end in \.jsonl, \.json, \.csv or"):
        find(tmp_path)
    for name in ("x.csv", "x.parquet"):
        write(tmp_path / name, [ROW])
    with pytest.raises(ConfigurationError, match=r"several formats, \.csv or \.parquet"):
        find(tmp_path)
    with pytest.raises(ConfigurationError, match="No such file"):
        find(tmp_path / "missing.jsonl")


def test_a_pipe_is_read_once_and_is_not_counted(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}\n')
    os.close(writing)
    found = find(Path(f"/dev/fd/{reading}"))
    assert (found.is_stream, found.count(".jsonl")) == (True, None)
    assert [row.value for row in read_file(found.path, ".jsonl")] == [{"a": 1}]
    os.close(reading)
    assert find(Path("-")).is_stream
