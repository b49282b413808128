"""Data sets in every form that people have them, and what is said of others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fivescore.errors import ConfigurationError
from fivescore.evaluation.data import Source, read
from fivescore.evaluation.shapes import Preference, helpsteer2_prompt, preferences
from fivescore.model import helpsteer2

ROWS = [{"prompt": "Q é", "chosen": "A", "rejected": "B"}, {"prompt": "R", "n": 1}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", LINES),
        ("x.jsonl", LINES.replace(b"\n", b"\n\n").strip()),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("x.json", json.dumps(ROWS).encode()),
        ("x.json", LINES),
        ("x.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_every_form_of_json_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    source = read(str(path), "train")
    assert source.rows == ROWS
    assert source.name == "x"
    assert source.sha256
    assert len(source.sha256) == 64


def test_parquet_is_read(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([ROWS[0]]), tmp_path / "x.parquet")
    assert read(str(tmp_path / "x.parquet"), "train").rows == [ROWS[0]]
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(ConfigurationError, match=r"bad\.parquet"):
        read(str(tmp_path / "bad.parquet"), "train")


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(LINES)
    (tmp_path / "validation.jsonl.gz").write_bytes(gzip.compress(LINES * 2, mtime=0))
    assert len(read(str(tmp_path), "validation").rows) == 4
    with pytest.raises(ConfigurationError, match="0 data files whose name starts with 'test'"):
        read(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", b'{"a": 1}\n{', "line 2 is not JSON"),
        ("x.jsonl", b"[1]", "row 1 is not an object"),
        ("x.jsonl.gz", b"plain", "gzip"),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "x.jsonl.gz"),
        ("x.txt", b"", "neither a file that ends in"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=told):
        read(str(path), "train")


def test_a_file_that_is_not_there_and_a_hub_that_is_away() -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read("no/such.jsonl", "train")
    with pytest.raises(ConfigurationError, match="give its file") as caught:
        read("nobody/nothing", "validation")  # tests are offline
    assert "\n" not in str(caught.value)


def one(row: dict[str, Any]) -> Preference:
    (found,) = preferences([Source("file", "file.json", [row])])
    return found


def test_shapes_of_preferences() -> None:
    plain = Preference("1", "file", "Q", "A", "B")
    assert one({"prompt": "Q", "chosen": "A", "rejected": "B"}) == plain
    turns = [{"role": "user", "content": "Q"}]
    chosen, rejected = ([*turns, {"role": "assistant", "content": text}] for text in "AB")
    assert one({"prompt": "Q", "chosen": chosen, "rejected": rejected}) == plain
    implicit = one({"chosen": chosen, "rejected": rejected})
    assert (implicit.prompt, implicit.chosen, implicit.rejected) == (turns, "A", "B")
    llmbar = {"input": "Q", "output_1": "B", "output_2": "A", "label": "2"}
    assert one(llmbar) == plain
    assert one({**llmbar, "output_1": "A", "output_2": "B", "label": 1}) == plain
    strength = {"prompt": "Q", "response_1": "B", "response_2": "A", "preference_strength": 2}
    assert one(strength) == plain
    named = one({"prompt": "Q", "chosen": "A", "rejected": "B", "subset": "s", "id": 7})
    assert (named.subset, named.id) == ("s", "7")


def test_rows_without_a_preference_are_left_out() -> None:
    row = {"prompt": "Q", "response_1": "B", "response_2": "A", "preference_strength": 0}
    found = preferences([Source("f", "f", [row, {**row, "preference_strength": -1}])])
    assert [(each.id, each.chosen) for each in found] == [("2", "B")]
    with pytest.raises(ConfigurationError, match="no preference"):
        preferences([Source("f", "f", [row])])


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"prompt": "Q", "chosen": "A"},
        {"prompt": 1, "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": None},
        {"prompt": "Q", "chosen": [], "rejected": "B"},
        {"input": "Q", "output_1": "A", "output_2": "B", "label": "3"},
        {"prompt": "Q", "response_1": "A", "preference_strength": 1},
    ],
)
def test_other_rows_are_told_with_their_place(row: dict[str, Any]) -> None:
    good = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    with pytest.raises(ConfigurationError, match=r"f\.jsonl row 2 is no preference"):
        preferences([Source("f", "f.jsonl", [good, row])])


PIECES = st.sampled_from(
    ["Hi", "\n", "\n<extra_id_1>Assistant\n", "\n<extra_id_1>User\n", "<extra_id_1>", ""]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_turns_in_a_prompt_are_those_that_training_and_serving_see(text: str) -> None:
    found = helpsteer2_prompt(text)
    turns = [{"role": "user", "content": found}] if isinstance(found, str) else found
    assert turns == [turn.model_dump() for turn in helpsteer2.messages(text)]
