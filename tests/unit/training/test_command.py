"""The command line of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.test_cli import run, without

NEEDED = ("--data", "d.jsonl", "--model", "m", "--output", "o")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        NEEDED[:4],
        (*NEEDED, "--learningrate", "1"),
        (*NEEDED, "--learning", "1"),  # no abbreviations
        (*NEEDED, "--resume", "yes"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(["train", *arguments], capsys)
    assert (status, out) == (2, "")
    assert "usage: fivescore" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*NEEDED, "--seed", "x"), "--seed: "),
        (NEEDED, "model m"),
        ((*NEEDED, "--resume"), "--resume: there is no checkpoint in o/checkpoints"),
    ],
)
def test_a_failure_is_one_line_and_exit_status_1(
    arguments: Sequence[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(["train", *arguments], capsys)
    assert (status, out) == (1, "")
    assert err.startswith("fivescore: error: ")
    assert told in err
    assert err.count("\n") == 1


def test_without_the_extra_it_says_what_to_install() -> None:
    done = without(["peft"], "train", *NEEDED)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "peft is missing" in done.stderr
    assert "pip install 'fivescore[train]'" in done.stderr
