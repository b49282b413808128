"""The client and ``fivescore score``, against a real server and one that fails on demand."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from fivescore.cli import main
from fivescore.client import AsyncRewardClient, RewardClient, Unreachable
from fivescore.client.files import row_of, score_file
from fivescore.data.formats import SUFFIXES
from fivescore.errors import (
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    Loading,
    TooLong,
)
from fivescore.types import Score
from tests.integration.service import OTHER, PAIR, Json
from tests.unit.data.files import write as write_as

NOWHERE = "http://127.0.0.1:9"


class Scripted:
    """A tiny HTTP server that gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self._answers = list(answers)
        self.bodies: list[Json] = []
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        status, headers, body = self._answers[min(len(self.bodies), len(self._answers)) - 1]
        lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Scripted]:
        running = await asyncio.start_server(self._serve, "127.0.0.1", port)
        async with running:
            self.url = "http://{}:{}".format(*running.sockets[0].getsockname())
            yield self


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"code": code, "detail": f"told {code}"}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


def scores(*rewards: float) -> tuple[int, dict[str, str], bytes]:
    entries = [{"reward": reward, "tokens": 1} for reward in rewards]
    return 200, {}, json.dumps({"scores": entries}).encode()


async def test_a_server_that_is_loading_is_waited_for() -> None:
    again = problem(503, "loading", Retry_After="0")
    async with Scripted(again, scores(1.0)).running() as server:
        (found,) = await AsyncRewardClient(server.url).score([PAIR])
    assert found.reward == 1.0
    assert server.bodies == [{"pairs": [PAIR], "truncate": "never"}] * 2


async def test_a_server_that_is_not_there_yet_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Scripted(scores(1.0))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    asked = asyncio.create_task(AsyncRewardClient(f"http://127.0.0.1:{port}").score([PAIR]))
    while "retrying for" not in caplog.text:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with server.running(port):
        assert [score.reward for score in await asked] == [1.0]


async def test_without_patience_there_is_one_try() -> None:
    busy = problem(503, "loading", Retry_After="0")
    async with Scripted(busy).running() as server:
        with pytest.raises(Loading, match="told loading"):
            await AsyncRewardClient(server.url, deadline_seconds=0).score([PAIR])
    assert len(server.bodies) == 1


async def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(Unreachable, match=NOWHERE):
        await AsyncRewardClient(NOWHERE, deadline_seconds=0).score([PAIR])


async def test_a_replica_that_is_down_is_stood_in_for(url: str) -> None:
    pairs = [(f"Q{n}", "A") for n in range(20)]
    alone = await AsyncRewardClient(url).score(pairs)
    both = await AsyncRewardClient(f"{NOWHERE},{url}", deadline_seconds=30).score(pairs)
    assert [score.reward for score in both] == [score.reward for score in alone]


async def test_lines_that_are_too_much_for_one_request_go_in_halves(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    too_much = problem(413, "body_too_large")
    answers = (too_much, scores(0.0), too_much, too_much, scores(2.0))
    async with Scripted(*answers).running() as server, AsyncRewardClient(server.url) as client:
        done = await score_file(client, source, target, batch_size=3, concurrency=1)
    assert (done.rows, done.failed) == (3, 1)
    first, middle, last = read(target)
    assert (first["reward"], last["reward"]) == (0.0, 2.0)
    assert middle["error"]["code"] == "body_too_large"


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


PICKLED = """
import pickle, sys
with pickle.load(sys.stdin.buffer) as client:
    print([score.reward for score in client.score([("Q", "A")] * 3)])
"""
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


def python(code: str, *arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()


def test_a_client_works_in_another_process(url: str) -> None:
    with RewardClient(url) as client:
        found = [score.reward for score in client.score([("Q", "A")] * 3)]
        assert python(PICKLED, stdin=pickle.dumps(client)) == str(found)


def test_a_client_works_on_both_sides_of_a_fork_and_is_closed_by_nobody(url: str) -> None:
    python(FORKED, url)


# fivescore score, one pair


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["score", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_one_pair_prints_its_scores(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--url", url, "--prompt", PAIR["prompt"], "--response", PAIR["response"])
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    entry = json.loads(out)
    assert {"helpfulness", "reward", "tokens"} <= entry.keys()
    assert run(capsys, *arguments)[1] == out


def test_one_pair_that_fails_prints_its_error_and_exits_with_1(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "--url", url, "--prompt", "word " * 5000, "--response", "A")
    assert status == 1
    assert json.loads(out)["error"]["code"] == "too_long"
    arguments = ("--url", url, "--prompt", "word " * 5000, "--response", "A")
    status, out, _ = run(capsys, *arguments, "--truncate", "prompt_start")
    assert (status, json.loads(out)["truncated"]) == (0, True)


def test_the_servers_address_may_come_from_the_environment(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fivescore", "score", "--prompt", "Q", "--response", "A"],
        env={"FIVESCORE_URL": url},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "reward" in json.loads(done.stdout)


def test_a_server_that_is_down_is_told_in_one_line_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = run(capsys, "--url", NOWHERE, "--prompt", "Q", "--response", "A")
    assert (status, out) == (1, "")
    assert err.startswith(f"fivescore: error: {NOWHERE}")
    assert err.count("\n") == 1


# fivescore score, a file


def rows(count: int) -> list[Json]:
    return [{"id": n, "prompt": f"Q{n % 7}", "response": "word " * n} for n in range(count)]


def write(file: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(b"".join(text + b"\n" for text in texts))
    return file


def read(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def without_input(row: Json) -> Json:
    return {name: value for name, value in row.items() if name != "input"}


def score(url: str, source: Path, target: Path, *flags: str) -> int:
    return main(
        ["score", str(source), "-o", str(target), "--url", url, "--retry", "0",
         "--batch-size", "8", "--concurrency", "3", *flags]
    )  # fmt: skip


async def alone(url: str, *pairs: Json) -> list[Json]:
    return [row_of(score) for score in await AsyncRewardClient(url).score(pairs)]


def test_a_file_is_scored_in_its_order(url: str, tmp_path: Path) -> None:
    pairs = rows(50)
    source, target = write(tmp_path / "in.jsonl", *pairs), tmp_path / "out.jsonl"
    assert score(url, source, target) == 0
    scored = read(target)
    sent = [{"prompt": pair["prompt"], "response": pair["response"]} for pair in pairs]
    assert list(map(without_input, scored)) == asyncio.run(alone(url, *sent))
    assert all(len(row["input"]) == 16 for row in scored)


def test_every_form_of_pair_is_sent_and_other_fields_are_not(url: str, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": PAIR["prompt"]}]
    source = write(
        tmp_path / "in.jsonl",
        {**PAIR, "label": 3, "helpfulness": 4},
        {"prompt": messages, "response": PAIR["response"]},
        {"token_ids": [1, 2, 3], "prompt": None},
    )
    assert score(url, source, tmp_path / "out.jsonl") == 0
    text, same, ids = read(tmp_path / "out.jsonl")
    assert text["reward"] == same["reward"]
    assert ids["tokens"] == 3


MALFORMED: tuple[bytes, ...] = (
    b"",
    b"not json",
    b"[1, 2]",
    b"null",
    b'{"prompt": "Q"',
    b"\xff\xfe",
    b'{"prompt": "Q"}',
    b'{"prompt": "Q", "response": 1}',
    b'{"prompt": NaN, "response": "A"}',
    b'{"prompt": "Q", "response": Infinity}',
    b'{"token_ids": [1e999]}',
    b'{"prompt": "Q", "response": "cut \\ud83d"}',
    b"[" * 100_000,
    b'{"prompt": ' + b"[" * 990 + b"]" * 990 + b', "response": "A"}',
)


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: repr(line[:40]))
def test_a_malformed_line_keeps_its_place_as_an_error(
    url: str, tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", PAIR, line, OTHER)
    assert score(url, source, tmp_path / "out.jsonl") == 0
    first, error, other = read(tmp_path / "out.jsonl")
    assert "reward" in first
    assert "reward" in other
    assert error["error"]["code"]
    assert error["error"]["detail"]
    err = capsys.readouterr().err
    assert "3 lines, 1 with an error" in err
    assert f"  1 with {error['error']['code']} (first: {source}:2)" in err


@pytest.mark.parametrize("kept_bytes", [0, 1, 30, 700, 2000, -1, -2])
def test_a_run_that_was_stopped_goes_on_and_equals_a_whole_one(
    url: str, tmp_path: Path, kept_bytes: int
) -> None:
    source = write(tmp_path / "in.jsonl", *rows(20), b"not json", *rows(30))
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    assert score(url, source, whole) == 0
    stopped.write_bytes(whole.read_bytes()[:kept_bytes])
    assert score(url, source, stopped) == 0
    assert stopped.read_bytes() == whole.read_bytes()


async def test_a_run_that_goes_on_asks_only_for_the_rest(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    answers = (scores(0.0), problem(500, "broken"), scores(1.0))
    async with (
        Scripted(*answers).running() as server,
        AsyncRewardClient(server.url, deadline_seconds=0) as client,
    ):
        with pytest.raises(FivescoreError, match="told broken"):
            await score_file(client, source, target, batch_size=1, concurrency=1)
        assert [row["reward"] for row in read(target)] == [0.0]  # what was scored is kept
        done = await score_file(client, source, target, batch_size=1, concurrency=1)
    assert (done.rows, done.failed) == (3, 0)
    assert [row["reward"] for row in read(target)] == [0.0, 1.0, 1.0]
    sent = [body["pairs"][0]["response"] for body in server.bodies]
    assert sent == [row["response"] for row in (rows(3)[n] for n in (0, 1, 1, 2))]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_any_format_is_scored_and_a_stopped_run_goes_on(
    url: str, suffix: str, tmp_path: Path
) -> None:
    pairs = [{**pair, "label": None} for pair in rows(12)]
    lines, target = write(tmp_path / "lines", *pairs), tmp_path / "out.jsonl"
    source = write_as(tmp_path / f"in{suffix}", pairs)
    assert score(url, lines, tmp_path / "expected.jsonl", "--concurrency", "1") == 0
    assert score(url, source, target) == 0
    whole = read(target)
    assert list(map(without_input, whole)) == list(
        map(without_input, read(tmp_path / "expected.jsonl"))
    )
    target.write_bytes(target.read_bytes()[:-700])
    assert score(url, source, target) == 0
    assert read(target) == whole
    other = write_as(tmp_path / "other" / f"in{suffix}", pairs[1:])
    assert score(url, other, target) == 1


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
    assert score(url, tmp_path / name, tmp_path / "out.jsonl") == 0
    assert [row.get("error", {}).get("code") for row in read(tmp_path / "out.jsonl")] == [
        None, code, None,
    ]  # fmt: skip
    assert f"1 with {code} (first: {tmp_path / name}:{place})" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0, 9, 200])
def test_a_corrupt_input_is_one_line_before_anything_is_written(
    cut: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_as(tmp_path / "in.jsonl.gz", [{"a": f"{n * n:x}"} for n in range(400)])
    source.write_bytes(source.read_bytes()[:cut])
    assert score(NOWHERE, source, tmp_path / "out.jsonl") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fivescore: error: {source}: it cannot be read: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_finished_run_is_left_as_it_is(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(10), b"not json"), tmp_path / "out.jsonl"
    score(url, source, target)
    before = target.read_bytes()
    capsys.readouterr()
    assert score(NOWHERE, source, target) == 0  # there is nothing left to ask a server
    assert "11 lines, 1 with an error" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_lines_appended_to_the_input_are_scored_by_another_run(url: str, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(10)), tmp_path / "out.jsonl"
    score(url, source, target)
    write(source, *rows(15))
    assert score(url, source, target) == 0
    assert len(read(target)) == 15


FOREIGN: tuple[bytes, ...] = (
    b'{"input": "0123456789abcdef", "reward": 1.0}\n',
    b'{"reward": 1.0}\n',
    b"[]\n",
    b"my notes\nof last week\n",
    b"a single line of notes without its end",
)


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_is_not_this_inputs_output_is_refused_and_kept(
    url: str, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    target.write_bytes(content)
    assert score(url, source, target) == 1
    assert target.read_bytes() == content
    err = capsys.readouterr().err
    assert err.startswith("fivescore: error: ")
    assert str(target) in err


def test_another_inputs_output_and_the_input_itself_are_refused(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    score(url, source, target)
    another = write(tmp_path / "another.jsonl", *rows(2), PAIR)
    capsys.readouterr()
    assert score(url, another, target) == 1
    assert "line 3 does not answer" in capsys.readouterr().err
    shorter = write(tmp_path / "shorter.jsonl", *rows(2))
    assert score(url, shorter, target) == 1
    assert score(url, source, source) == 1
    assert read(source) == rows(3)


def test_a_file_run_against_a_server_that_is_down_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", *rows(3))
    assert score(NOWHERE, source, tmp_path / "out.jsonl") == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"fivescore: error: {NOWHERE}")


def test_an_empty_input_gives_an_empty_output(url: str, tmp_path: Path) -> None:
    assert score(url, write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_last_line_without_its_end_is_a_line(url: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(PAIR) + "\n" + json.dumps(OTHER))
    assert score(url, source, tmp_path / "out.jsonl") == 0
    assert [set(row) & {"error"} for row in read(tmp_path / "out.jsonl")] == [set(), set()]
    # Its end may come later, with more lines: the run then goes on.
    source.write_text("".join(json.dumps(pair) + "\n" for pair in (PAIR, OTHER, PAIR)))
    assert score(url, source, tmp_path / "out.jsonl") == 0
    assert len(read(tmp_path / "out.jsonl")) == 3
