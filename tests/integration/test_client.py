"""The client and ``fivescore score``, against a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fivescore.cli import main
from fivescore.client import AsyncRewardClient
from fivescore.client.answers import row_of
from fivescore.data.formats import SUFFIXES, read_file
from fivescore.errors import (
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    TooLong,
)
from fivescore.types import Score
from tests.integration.service import OTHER, PAIR, Json
from tests.unit.data.files import write as write_as

NOWHERE = "http://127.0.0.1:9"


async def test_a_real_server_scores_in_order_with_errors_in_place(url: str) -> None:
    async with AsyncRewardClient(url) as client:
        first, error, other = await client.score([PAIR, {}, OTHER], errors="return")
        assert isinstance(first, Score)
        assert isinstance(other, Score)
        weighted = await client.score([PAIR], weights={"helpfulness": 1.0})
        assert weighted == [dataclasses.replace(first, reward=first.attributes["helpfulness"])]
        with pytest.raises(InvalidRequest, match="humor"):
            await client.score([PAIR], weights={"humor": 1.0}, errors="none")
    assert isinstance(error, InvalidPair)
    assert first.reward != other.reward


async def test_the_server_and_the_client_find_the_same_wrong_with_a_pair(url: str) -> None:
    for pair in ({}, {"prompt": "Q"}, {"prompt": [], "response": "A"}, {"text": ""}, {"x": 1}):
        (found,) = await AsyncRewardClient(url).score([pair], errors="return")
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{url}/score", json={"pairs": [pair]})
        assert isinstance(found, FivescoreError)
        assert answer.json()["scores"] == [row_of(found)]


async def test_a_pair_that_is_too_long_keeps_its_numbers(url: str) -> None:
    pair = {"prompt": "word " * 5000, "response": "A"}
    with pytest.raises(TooLong, match=r"pair 1: .* 1 of the 2 pairs") as caught:
        await AsyncRewardClient(url).score([PAIR, pair])
    assert {"tokens", "limit", "index"} <= caught.value.facts.keys()
    (cut,) = await AsyncRewardClient(url).score([pair], truncate="prompt_start")
    assert cut.truncated


FORKED = """
import os, sys
from fivescore.client import RewardClient
client = RewardClient(sys.argv[1], deadline_seconds=20)
before = client.score([("Q", "A")] * 3)
child = os.fork()
assert client.score([("Q", "A")] * 3) == before
if child == 0:
    sys.exit(0)  # the child ends as any process does, its parent's thread and all
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.score([("Q", "A")] * 3) == before
"""


def test_a_client_works_on_both_sides_of_a_fork_and_is_closed_by_nobody(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, url], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


# fivescore score, one pair


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["score", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_one_pair_prints_its_scores(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--prompt", PAIR["prompt"], "--response", PAIR["response"])
    status, out, err = run(capsys, "--url", url, *arguments)
    assert (status, err) == (0, "")
    entry = json.loads(out)
    assert {"helpfulness", "reward", "tokens"} <= entry.keys()
    monkeypatch.setenv("FIVESCORE_URL", url)
    assert run(capsys, *arguments)[1] == out


def test_one_pair_that_fails_prints_its_error_and_exits_with_1(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--url", url, "--prompt", "word " * 5000, "--response", "A")
    status, out, _ = run(capsys, *arguments)
    assert status == 1
    assert json.loads(out)["error"]["code"] == "too_long"
    status, out, _ = run(capsys, *arguments, "--truncate", "prompt_start")
    assert (status, json.loads(out)["truncated"]) == (0, True)


# fivescore score, a file


def rows(count: int) -> list[Json]:
    return [{"id": n, "prompt": f"Q{n % 7}", "response": "word " * n} for n in range(count)]


def write(file: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(b"".join(text + b"\n" for text in texts))
    return file


def read(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def score(url: str, source: Path, target: Path, *flags: str) -> int:
    return main(
        ["score", str(source), "-o", str(target), "--url", url, "--retry", "0",
         "--batch-size", "8", "--concurrency", "3", *flags]
    )  # fmt: skip


async def alone(url: str, *pairs: Json) -> list[Json]:
    return [row_of(score) for score in await AsyncRewardClient(url).score(pairs)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_any_format_is_scored_in_its_order(url: str, suffix: str, tmp_path: Path) -> None:
    pairs = rows(20)
    source, target = write_as(tmp_path / f"in{suffix}", pairs), tmp_path / f"out{suffix}"
    assert score(url, source, target) == 0
    sent = [{"prompt": pair["prompt"], "response": pair["response"]} for pair in pairs]
    expected = asyncio.run(alone(url, *sent))
    for pair, answer, row in zip(pairs, expected, read_file(target), strict=True):
        del answer["cached_tokens"]
        assert row.value is not None
        found = {name: value for name, value in row.value.items() if name != "error"}
        assert {**found, "id": int(found["id"])} == {**pair, **answer}


def test_every_form_of_pair_is_sent_and_other_fields_are_not(url: str, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": PAIR["prompt"]}]
    source = write(
        tmp_path / "in.jsonl",
        {**PAIR, "label": 3},
        {"prompt": messages, "response": PAIR["response"]},
        {"token_ids": [1, 2, 3], "prompt": None},
    )
    assert score(url, source, tmp_path / "out.jsonl") == 0
    text, same, ids = read(tmp_path / "out.jsonl")
    assert text["reward"] == same["reward"]
    assert ids["tokens"] == 3


MALFORMED: tuple[bytes, ...] = (
    b"not json", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"prompt": "Q"',
    b'{"prompt": "Q"}', b'{"prompt": "Q", "response": 1}', b'{"token_ids": [1e999]}',
    b'{"prompt": NaN, "response": "A"}', b'{"prompt": "Q", "response": Infinity}',
    b'{"prompt": "Q", "response": "cut \\ud83d"}',
    b'{"prompt": ' + b"[" * 990 + b"]" * 990 + b', "response": "A"}',
)  # fmt: skip


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: repr(line[:40]))
def test_a_malformed_line_keeps_its_place_as_an_error(
    url: str, tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", PAIR, b"", line, OTHER)
    assert score(url, source, tmp_path / "out.jsonl") == 1
    first, error, other = read(tmp_path / "out.jsonl")
    assert "reward" in first
    assert "reward" in other
    assert (error["id"], set(error["error"])) == (2, {"code", "detail"})
    err = capsys.readouterr().err
    assert "3 rows, 1 failed" in err
    assert f"  1 with {error['error']['code']} (first: {source}:3: " in err


@pytest.mark.parametrize(
    ("name", "content", "code", "place"),
    [
        ("in.csv", b"prompt,response\nQ,A\nQ\nQ,A\n", "invalid_row", 3),
        ("in.json", b'[{"prompt": "Q", "response": "A"}, 1, {"prompt": "Q", "response": "A"}]',
         "invalid_row", 2),
        ("in.json", b'[{"prompt": "Q", "response": "A"}, {}, {"prompt": "Q", "response": "A"}]',
         "invalid_pair", 2),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_keeps_its_place_in_every_format(
    url: str, tmp_path: Path, name: str, content: bytes, code: str, place: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(content)
    assert score(url, tmp_path / name, tmp_path / "out.jsonl") == 1
    assert [row.get("error", {}).get("code") for row in read(tmp_path / "out.jsonl")] == [
        None, code, None,
    ]  # fmt: skip
    assert f"1 with {code} (first: {tmp_path / name}:{place}: " in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0, 9, 200])
def test_a_corrupt_input_is_one_line_before_anything_is_written(
    url: str, cut: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_as(tmp_path / "in.jsonl.gz", [{"a": f"{n * n:x}"} for n in range(400)])
    source.write_bytes(source.read_bytes()[:cut])
    assert score(url, source, tmp_path / "out.jsonl") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fivescore: error: {source}: it cannot be read: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]


def test_a_finished_run_is_left_as_it_is(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(10)), tmp_path / "out.jsonl"
    assert score(url, source, target) == 0
    before = target.read_bytes()
    capsys.readouterr()
    assert score(url, source, target) == 0
    assert capsys.readouterr().err == f"{target}: 10 rows (10 scored earlier), 0 failed\n"
    assert target.read_bytes() == before
    assert score(NOWHERE, source, target) == 1  # nobody knows which model it has


def test_a_model_is_recognised_by_its_manifest(url: str, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    assert score(url, source, target, "--weights", "helpfulness=1") == 0
    assert [row["reward"] == row["helpfulness"] for row in read(target)] == [True] * 3
    assert score(url, source, target, "--weights", "helpfulness=2") == 1
    assert score(url, source, tmp_path / "x.jsonl", "--weights", "humor=1") == 1
    assert score(url, source, tmp_path / "x.jsonl", "--principle", "clarity") == 1
    assert not (tmp_path / "x.jsonl").exists()


def test_standard_streams_are_a_filter(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fivescore", "score", "-", "-o", "-", "--url", url]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows(20))
    done = subprocess.run(command, input=lines, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(20))
    assert b"-: 20 rows, 0 failed" in done.stderr
    closed = f"{' '.join(map(shlex.quote, command))} | head -1"
    done = subprocess.run(["bash", "-c", f"{closed}; exit ${{PIPESTATUS[0]}}"], input=lines,
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert b"Traceback" not in done.stderr
