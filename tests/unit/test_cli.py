"""The command line: flags, help, and one clear line for what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from fivescore import __version__
from fivescore.cli import _take_engine_flags, main
from fivescore.errors import ConfigurationError
from fivescore.settings import Settings
from fivescore.training.recipe import Recipe, flag


def split(*arguments: str) -> tuple[dict[str, object], list[str]]:
    rest = list(arguments)
    return _take_engine_flags(rest), rest


@pytest.mark.parametrize(
    ("arguments", "engine", "rest"),
    [
        ([], {}, []),
        (["--engine.dtype", "float32"], {"dtype": "float32"}, []),
        (["--engine.dtype=float32"], {"dtype": "float32"}, []),
        (["--engine.dtype="], {"dtype": ""}, []),
        (["--engine.overrides={'a'='b'}"], {"overrides": "{'a'='b'}"}, []),
        (["--engine.eager"], {"eager": True}, []),
        (["--engine.eager", "--port", "1"], {"eager": True}, ["--port", "1"]),
        (["--engine.eager", "--engine.x", "1"], {"eager": True, "x": "1"}, []),
        (["--engine.seed", "-1"], {"seed": "-1"}, []),
        (["--engine.seed=-1"], {"seed": "-1"}, []),
        (["--engine.name=--odd"], {"name": "--odd"}, []),
        (["--port", "1", "--engine.a", "b", "--host", "h"], {"a": "b"},
         ["--port", "1", "--host", "h"]),
        (["--engine.a.l+", "1", "--engine.a.l+=2"], {"a.l+": "1,2"}, []),
    ],
)  # fmt: skip
def test_engine_flags_are_taken_out_of_the_rest(
    arguments: Sequence[str], engine: dict[str, object], rest: list[str]
) -> None:
    assert split(*arguments) == (engine, rest)


@pytest.mark.parametrize("second", ["--engine.max-num-seqs=2", "--engine.max_num_seqs=2"])
def test_an_engine_flag_that_is_given_twice_is_refused(second: str) -> None:
    with pytest.raises(ConfigurationError, match="given twice"):
        split("--engine.max-num-seqs", "1", second)


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


SETTINGS = tuple(
    f"--{name.replace('_', '-')}" for name in Settings.model_fields if name != "engine"
)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ((), ("serve", "score")),
        (("serve",), (*SETTINGS, "--engine.NAME")),
        (("score",), ("--prompt", "--response", "--url", "--output", "--retry", "--concurrency")),
        (("train",), tuple(map(flag, Recipe.model_fields))),
    ],
)
def test_help_lists_commands_and_flags(
    command: Sequence[str], told: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run([*command, "--help"], capsys)
    assert (status, err) == (0, "")
    assert [word for word in told if word not in out] == []


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], capsys) == (0, f"fivescore {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serv"],
        ["serve", "--prt", "1"],
        ["serve", "--por", "1"],  # no abbreviations: a new flag must not change their meaning
        ["score"],
        ["score", "--prompt", "Q"],
        ["score", "--prompt", "Q", "--response", "A", "-o", "out.jsonl"],
        ["score", "--prompt", "Q", "pairs.jsonl", "-o", "out.jsonl"],
        ["score", "pairs.jsonl"],
        ["score", "--prompt", "Q", "--response", "A", "pairs.jsonl", "-o", "out.jsonl"],
        ["score", "--prompt", "Q", "--response", "A", "--truncate", "middle"],
        ["score", "pairs.jsonl", "-o", "out.jsonl", "--batch-size", "0"],
        ["score", "pairs.jsonl", "-o", "out.jsonl", "--concurrency", "0"],
        ["score", "--engine.dtype", "x", "--prompt", "Q", "--response", "A"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_so(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(arguments, capsys)
    assert (status, out) == (2, "")
    assert "usage: fivescore" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--port", "many"], "--port: "),
        (["serve", "--backend", "fake", "--model", "/no/such"], "no such folder"),
        (["serve", "--backend", "fake", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
        (["score", "--prompt", "Q", "--response", "A", "--url", "http://127.0.0.1:9"],
         "http://127.0.0.1:9"),
        (["score", "--prompt", "Q", "--response", "A", "--url", "127.0.0.1:9"], "127.0.0.1:9"),
        (["score", "--prompt", "Q", "--response", "A", "--url", "http://host:port"], "port"),
        (["score", "/no/such.jsonl", "-o", "/no/out.jsonl"], "/no/such.jsonl"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_and_exit_status_1(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(arguments, capsys)
    assert (status, out) == (1, "")
    assert err.startswith("fivescore: error: ")
    assert told in err
    assert err.count("\n") == 1


def redirected(command: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it, with redirections and limits of its own."""
    line = f'exec "{sys.executable}" -m fivescore {command} {redirections}'
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60,
        env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "redirections", "status"),
    [
        ("serve --backend fake --model /no/such", "2>&-", 1),
        ("serve --backend fake --model /no/such", "2>/dev/full", 1),
        ("inspect /no/such", "2>&- <&-", 1),
        ("score --prompt Q", "2>&-", 2),
        ("no-such-command", "2>&-", 2),
    ],
)
def test_where_standard_error_is_closed_or_full_the_error_is_on_standard_output(
    command: str, redirections: str, status: int
) -> None:
    done = redirected(command, redirections)
    assert done.returncode == status
    assert "error: " in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("command", ["--version", "--help", "score --help"])
def test_output_that_has_no_room_is_an_error_in_one_line(command: str) -> None:
    done = redirected(command, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("fivescore: error: not enough room on the disk")
    assert done.stderr.count("\n") == 1
    assert redirected(command, "2>/dev/full >/dev/full").returncode == 1


def test_closed_standard_output_is_no_error() -> None:
    done = redirected("--version", "<&- >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("limit", ["-v", "-d"])
@pytest.mark.parametrize("command", ["serve --backend fake --port 0", "inspect /no/such"])
def test_too_few_addresses_are_refused_before_a_library_dies_of_it(
    command: str, limit: str
) -> None:
    line = f'ulimit {limit} 700000; exec "{sys.executable}" -m fivescore {command}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fivescore: error: ulimit {limit} allows this process 700000 kB")
    assert done.stderr.count("\n") == 1


BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
COMMAND = """
from fivescore.cli import main
sys.exit(main(sys.argv[1:]))
"""
SERVER_EXTRA = (
    "fastapi", "jinja2", "orjson", "prometheus_client", "pydantic_settings", "starlette",
    "tokenizers", "transformers", "uvicorn",
)  # fmt: skip


def without(
    blocked: Sequence[str], *arguments: str, program: str = COMMAND
) -> subprocess.CompletedProcess[str]:
    """The command, or a program, in a process that cannot import some distributions."""
    code = BLOCKED.format(blocked=set(blocked)) + program
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "missing",
    [
        SERVER_EXTRA,
        # People have pydantic-settings for other reasons.
        tuple(name for name in SERVER_EXTRA if name != "pydantic_settings"),
    ],
    ids=["nothing of the server", "only pydantic-settings"],
)
def test_serve_without_the_server_extra_says_what_to_install(missing: tuple[str, ...]) -> None:
    done = without(missing, "serve")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'fivescore[" in done.stderr


def test_score_needs_nothing_of_the_server(tmp_path: Path) -> None:
    source = tmp_path / "pairs.jsonl"
    source.write_text('{"prompt": "Q", "response": "A"}\n')
    done = without(
        (*SERVER_EXTRA, "torch", "vllm", "numpy"),
        "score", str(source), "-o", str(tmp_path / "out.jsonl"),
        "--url", "http://127.0.0.1:9", "--retry", "0",
    )  # fmt: skip
    # It came as far as the server that is not there.
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fivescore: error: http://127.0.0.1:9")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "check", "train", "import", "inspect"])
def test_an_interpreter_without_docstrings_is_refused_by_name(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {
        "serve": [],
        "check": ["m"],
        "train": ["--model", "m", "--data", "d", "--output", "o"],
        "import": ["m", "--output", "o"],
        "inspect": ["m"],
    }
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != "_"}
    monkeypatch.setattr(sys, "flags", SimpleNamespace(**{**flags, "optimize": 2}))
    status, _, err = run([command, *needed[command]], capsys)
    assert status == 1
    assert err.startswith("fivescore: error: PYTHONOPTIMIZE=2 (python -OO)")
