"""``fivescore evaluate``: wrong usage, what is not installed, and who may import it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_cli import run, without

KINDS = ("helpsteer2", "rewardbench", "rmbench", "preferences", "fit-weights", "compare")
NOWHERE = "http://127.0.0.1:9"
PACKAGE = Path(__file__).parents[3] / "service" / "fivescore"


def test_help_lists_every_kind_and_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(["evaluate", "--help"], capsys)
    assert status == 0
    assert all(kind in out for kind in KINDS)
    for kind in KINDS:
        status, out, _ = run(["evaluate", kind, "--help"], capsys)
        assert status == 0
        assert all(flag in out for flag in ("--output", "--truncate", "--retry", "--fresh"))
        assert ("--url" in out) == (kind != "compare")
        assert ("--manifest" in out) == (kind == "fit-weights")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mtbench"],
        ["helpsteer2"],
        ["preferences", "-o", "out"],
        ["compare", "http://a", "-o", "out", "--url", "http://b"],
        ["rmbench", "x.json", "-o", "out", "--limit", "0"],
        ["rmbench", "x.json", "-o", "out", "--batch-size", "0"],
        ["fit-weights", "x.json", "-o", "out", "--folds", "1"],
        ["fit-weights", "x.json", "-o", "out", "--metric", "f1"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(["evaluate", *arguments], capsys)
    assert (status, out) == (2, "")
    assert "usage: fivescore" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rmbench", "/no/such.json"], "/no/such.json"),
        (["helpsteer2"], "nvidia/HelpSteer2 (split validation) cannot be loaded from the hub"),
    ],
)
def test_a_failure_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(["evaluate", *arguments, "-o", str(tmp_path), "--url", NOWHERE], capsys)
    assert (status, out) == (1, "")
    assert err.startswith("fivescore: error: ")
    assert told in err
    assert err.count("\n") == 1


def test_a_server_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "Q", "chosen": "A", "rejected": "B"}\n')
    common = ("evaluate", "preferences", str(data), "-o", str(tmp_path / "out"), "--retry", "0")
    status, _, err = run([*common, "--url", NOWHERE], capsys)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"fivescore: error: {NOWHERE} cannot be reached")
    status, _, err = run([*common, "--url", "127.0.0.1:9"], capsys)
    assert status == 1
    assert "such as http://" in err


@pytest.mark.parametrize("missing", ["scipy", "numpy"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    done = without([missing], "evaluate", "preferences", "x.jsonl", "-o", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        f"fivescore: error: 'fivescore evaluate' is not installed ({missing} is missing):"
        " pip install 'fivescore[evaluate]'\n"
    )


def test_a_server_imports_nothing_of_it() -> None:
    code = (
        "import sys, fivescore.serve; from fivescore.cli import _parser; _parser(True);"
        "sys.exit(any(name.startswith(('fivescore.evaluation', 'scipy', 'matplotlib'))"
        " for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_kind_and_flag_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    documented = (PACKAGE.parents[1] / "docs" / "evaluation.md").read_text()
    for kind in KINDS:
        assert f"## {kind}\n" in documented
        assert f"evaluate {kind}" in documented
        _, out, _ = run(["evaluate", kind, "--help"], capsys)
        for flag in set(re.findall(r"--[a-z-]+", out)) - {"--help"}:
            assert f"`{flag}" in documented, flag
