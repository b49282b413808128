"""What ``fivescore score FILE`` sends, prints and returns."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from fivescore.cli import main
from fivescore.client import AsyncRewardClient
from fivescore.client.served import Served
from tests.unit.client.fakes import Fleet, Hurry, Request, pairs, problem, score, scored, scores
from tests.unit.data.files import write
from tests.unit.labelling.jobs import Json, files, read

ATTRIBUTES: Json = {"attributes": {"helpfulness": {}, "verbosity": {}}}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = Fleet()
    client = partial(AsyncRewardClient, transport=fleet, clock=Hurry())
    served = Served(("http://rm",), "m", ATTRIBUTES, {}, "0" * 64)
    monkeypatch.setattr("fivescore.client.client.AsyncRewardClient", client)
    monkeypatch.setattr("fivescore.client.served.served_at", lambda *_: served)
    monkeypatch.setenv("FIVESCORE_URL", "http://rm")
    return fleet


def run(folder: Path, *flags: str, rows: int = 10, target: str = "out.jsonl") -> int:
    source = write(folder / "in.jsonl", pairs(rows, rows))
    return main(["score", str(source), "-o", str(folder / target), "--retry", "0", *flags])


@pytest.mark.parametrize(
    ("flags", "header"), [((), "100"), (("--priority", "-5"), "-5"), (("--priority", "0"), None)]
)
def test_a_file_runs_behind_trainers_unless_it_is_told(
    fleet: Fleet, tmp_path: Path, flags: tuple[str, ...], header: str | None
) -> None:
    assert run(tmp_path, *flags) == 0
    assert {request.headers.get("X-Priority") for request in fleet.requests} == {header}


def test_a_pair_has_the_priority_of_everybody(fleet: Fleet) -> None:
    assert main(["score", "--prompt", "Q", "--response", "1"]) == 0
    assert "X-Priority" not in fleet.requests[0].headers


@pytest.mark.parametrize("weights", ["helpfulness=1,verbosity=-0.5",
                                     '{"helpfulness": 1, "verbosity": -0.5}'])  # fmt: skip
def test_options_go_with_each_request(fleet: Fleet, tmp_path: Path, weights: str) -> None:
    flags = ("--weights", weights, "--truncate", "prompt_start", "--principle", "clarity")
    assert run(tmp_path, *flags) == 0
    for request in fleet.requests:
        assert request.body["weights"] == {"helpfulness": 1, "verbosity": -0.5}
        assert request.body["truncate"] == "prompt_start"
        assert request.body["principle"] == "clarity"


def test_failures_are_counted_by_reason_with_the_first_place(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [{"error": {"code": code, "detail": f"said {code}"}} for code in ("too_long", "no_gate")]
    fleet.faults["rm"].append(scores(*map(score, range(7)), bad[1], *bad))
    assert run(tmp_path) == 1
    told = capsys.readouterr().err.splitlines()[-4:]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    assert told == [
        f"{target}: 10 rows, 3 failed",
        f"  2 with no_gate (first: {source}:8: said no_gate)",
        f"  1 with too_long (first: {source}:9: said too_long)",
        f"  Run the same command again to try them again; {target}.resume keeps the scores.",
    ]
    assert run(tmp_path) == 0
    assert f"{target}: 10 rows (7 scored earlier), 0 failed" in capsys.readouterr().err


def test_a_failed_run_says_what_is_kept(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.faults["rm"].extend([scored, *[problem(500, "broken")] * 3])
    flags = ("--batch-size", "5", "--concurrency", "1")
    assert run(tmp_path, *flags) == 1
    target = tmp_path / "out.jsonl"
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"{target}: 5 scores are kept in {target}.resume: run the same command again to continue",
        "fivescore: error: told broken",
    ]
    fleet.faults["rm"].extend([problem(500, "broken")] * 3)
    assert run(tmp_path, *flags, target="other.jsonl") == 1
    assert run(tmp_path, "--truncate", "prompt_start") == 1  # another run's scores are there
    assert "are kept" not in capsys.readouterr().err
    assert files(tmp_path) == {"out.jsonl.resume"}


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_says_what_is_kept(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(request: Request) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    fleet.faults["rm"].extend([scored, interrupt])  # type: ignore[list-item]
    assert run(tmp_path, "--batch-size", "5", "--concurrency", "1") == 130
    target = tmp_path / "out.jsonl"
    assert f"{target}: 5 scores are kept in {target}.resume: " in capsys.readouterr().err


def test_the_columns_of_the_output_are_chosen(fleet: Fleet, tmp_path: Path) -> None:
    flags = ("--columns", "response", "--prefix", "rm_", "--round", "--id-column", "prompt")
    assert run(tmp_path, *flags, rows=3) == 0
    last = read(tmp_path / "out.jsonl")[-1]
    assert last == {
        "prompt": "Q2", "response": "2", "rm_helpfulness": 1, "rm_verbosity": 0, "rm_reward": 2.0,
        "rm_tokens": 7, "rm_truncated": False,
    }  # fmt: skip
    assert isinstance(last["rm_helpfulness"], int)


def test_other_columns_than_prompt_and_response_are_named(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "qa.jsonl", [{"question": "Q", "answer": "1"}] * 3)
    for command in ([], ["--truncate", "prompt_start"]):
        target = str(tmp_path / f"out{len(command)}.jsonl")
        assert main(["score", str(source), "-o", target, *command]) == 0
    told = f"{source}: the pairs are in the columns question, answer\n"
    assert capsys.readouterr().err.count(told) == 2
    assert run(tmp_path) == 0
    assert "the pairs are in" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--weights", "helpfulness"), "is not of the form"),
        (("--weights", "=1"), "is not of the form"),
        (("--weights", "[1]"), "is not of the form"),
        (("--batch-size", "0"), "at least 1"),
        (("--messages-column", "m", "--prompt-column", "p"), "give --messages-column, or"),
        (("--prompt", "Q"), "give --prompt and --response, or a file"),
    ],
)
def test_wrong_usage_is_status_2(
    fleet: Fleet, tmp_path: Path, flags: tuple[str, ...], told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(tmp_path, *flags) == 2
    assert told in capsys.readouterr().err
    assert not files(tmp_path)


@pytest.mark.parametrize("flag", ["--round", "--keep-going", "--columns=x", "--prefix=x"])
def test_a_single_pair_has_no_options_of_files(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--prompt", "Q", "--response", "A", flag]) == 2
    assert f"{flag.partition('=')[0]} is for a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--weights", "humor=1"), "m has no attribute humor: it has helpfulness, verbosity"),
        (("--priority", "2000"), "priority 2000 must be from -1000 to 1000"),
        (("--prompt-column", "q"), "has no column q: its columns are prompt, response"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    fleet: Fleet, tmp_path: Path, flags: tuple[str, ...], told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(tmp_path, *flags) == 1
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not files(tmp_path)
    assert not fleet.requests


def test_rounding_needs_an_attribute_of_helpsteer2(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    served = Served(("http://rm",), "m", {"attributes": {}}, {}, None)
    monkeypatch.setattr("fivescore.client.served.served_at", lambda *_: served)
    assert run(tmp_path, "--round") == 1
    assert "m has no attribute of HelpSteer2 to round, only reward" in capsys.readouterr().err
