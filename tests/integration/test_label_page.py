"""``docs/label.md``: its commands work as they are, in its order, and it lists every option."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fivescore.cli import _parser, main
from fivescore.client.columns import CONVERSATIONS, PAIRS
from fivescore.data.formats import FORMATS, read_file

PAGE = (Path(__file__).parents[2] / "docs" / "label.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
"""The language and the text of each."""


def test_the_commands_of_the_page_work_in_its_order(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIVESCORE_URL", url)
    for block in (text for language, text in BLOCKS if not language):
        # Commands without a shell's signs run here: a process of its own takes a second to start.
        shell, *ours = re.split(r"^(?=fivescore )", block, flags=re.MULTILINE)
        subprocess.run(["bash", "-ec", shell], check=True)
        for command in ours:
            first, _, rest = command.partition("\n")
            assert main(shlex.split(first)[1:]) == 0, capsys.readouterr().err
            assert not rest or rest.startswith("cat pairs.jsonl | fivescore score - -o - |")
    (program,) = (text for language, text in BLOCKS if language == "python")
    exec(program, {})
    frame = [row.fields() for row in read_file(tmp_path / "frame.csv")]
    rows = [row.value for row in read_file(tmp_path / "scores.jsonl")]
    assert [row["reward"] for row in frame] == [(row or {})["reward"] for row in rows]
    (shown,) = (json.loads(text) for language, text in BLOCKS if language == "json")
    assert [list(row or {}) for row in rows] == [list(shown)] * 2
    assert len(json.loads((tmp_path / "again.json").read_text())) == 2
    labelled = json.loads((tmp_path / "labelled.jsonl").read_text())
    assert (labelled["id"], labelled["label"]) == (1, 3)
    assert isinstance(labelled["helpfulness"], int)


def test_every_option_is_listed_and_no_other() -> None:
    listed = {
        name
        for row in re.findall(r"^\| (`--[^|]+) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`(--?[a-z-]+)`", row)
    }
    commands = next(action for action in _parser(False)._actions if action.choices)
    score = commands.choices["score"]  # type: ignore[index]
    given = {name for action in score._actions for name in action.option_strings}
    assert listed == given - {"-h", "--help"}


def test_every_column_and_format_is_listed() -> None:
    for name in {*CONVERSATIONS, *(name for pair in PAIRS for name in pair), *FORMATS}:
        assert f"`{name}`" in PAGE
