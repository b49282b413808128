"""The client and ``fivescore score``, against a real server and one that fails on demand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fivescore.cli import main
from fivescore.client.client import AsyncRewardClient, ClientError
from fivescore.client.files import score_file
from tests.integration.service import OTHER, PAIR, Json

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
    async def running(self) -> AsyncIterator[Scripted]:
        running = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with running:
            self.url = "http://{}:{}".format(*running.sockets[0].getsockname())
            yield self


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"code": code, "detail": f"told {code}"}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


def scores(*entries: Json) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"scores": entries}).encode()


async def ask(server: Scripted, retry_seconds: float, *pairs: Json) -> list[Json]:
    async with AsyncRewardClient(server.url, retry_seconds=retry_seconds) as client:
        return await client.score(pairs)


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_what_another_try_may_mend_is_tried_again(status: int) -> None:
    again = problem(status, "overloaded", Retry_After="0")
    async with Scripted(again, scores({"reward": 1.0})).running() as server:
        assert await ask(server, 60, PAIR) == [{"reward": 1.0}]
    assert server.bodies == [{"pairs": [PAIR]}] * 2


async def test_advice_to_come_again_later_than_allowed_ends_the_tries_at_once() -> None:
    busy = problem(503, "loading", Retry_After="3600")
    async with Scripted(busy, scores({"reward": 1.0})).running() as server:
        with pytest.raises(ClientError, match="told loading") as caught:
            await ask(server, 60, PAIR)
    assert caught.value.code == "loading"
    assert len(server.bodies) == 1


async def test_advice_that_is_no_number_is_as_good_as_none() -> None:
    busy = problem(503, "loading", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT")
    async with Scripted(busy, scores({"reward": 1.0})).running() as server:
        assert await ask(server, 60, PAIR) == [{"reward": 1.0}]


async def test_without_patience_there_is_one_try() -> None:
    busy = problem(503, "loading", Retry_After="0")
    async with Scripted(busy).running() as server:
        with pytest.raises(ClientError, match="told loading"):
            await ask(server, 0, PAIR)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [400, 401, 413, 422, 500, 504])
async def test_what_another_try_cannot_mend_is_told_at_once(status: int) -> None:
    async with Scripted(problem(status, "some_code")).running() as server:
        with pytest.raises(ClientError, match="told some_code") as caught:
            await ask(server, 60, PAIR)
    assert caught.value.code == "some_code"
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (404, {}, b"<html>Not Found</html>"),
        (200, {}, b"<html>a proxy's login page</html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"message": "hello"}'),
        scores({"reward": 1.0}, {"reward": 2.0}),
    ],
    ids=["404", "page", "list", "object", "too many"],
)
async def test_an_answer_of_another_kind_of_server_is_a_client_error(
    answer: tuple[int, dict[str, str], bytes],
) -> None:
    async with Scripted(answer).running() as server:
        with pytest.raises(ClientError):
            await ask(server, 0, PAIR)


async def test_options_are_sent_beside_the_pairs() -> None:
    async with (
        Scripted(scores({"reward": 1.0})).running() as server,
        AsyncRewardClient(server.url) as client,
    ):
        await client.score([PAIR], weights={"helpfulness": 1.0}, truncate="prompt_start")
    assert server.bodies == [
        {"pairs": [PAIR], "weights": {"helpfulness": 1.0}, "truncate": "prompt_start"}
    ]


async def test_an_unreachable_server_is_named() -> None:
    async with AsyncRewardClient(NOWHERE, retry_seconds=0) as client:
        with pytest.raises(ClientError, match=NOWHERE) as caught:
            await client.score([PAIR])
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("url", ["127.0.0.1:9", "localhost:9", "ftp://127.0.0.1:9"])
async def test_an_address_that_no_try_can_reach_is_told_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="such as http://") as caught:
        AsyncRewardClient(url, retry_seconds=3600)
    assert url in caught.value.detail


async def test_lines_that_are_too_much_for_one_request_go_in_halves(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", *rows(3)), tmp_path / "out.jsonl"
    too_much = problem(413, "body_too_large")
    answers = (too_much, scores({"reward": 0.0}), too_much, too_much, scores({"reward": 2.0}))
    async with Scripted(*answers).running() as server, AsyncRewardClient(server.url) as client:
        done = await score_file(client, source, target, batch_size=3, concurrency=1)
    assert done == (3, 1)
    first, middle, last = read(target)
    assert (first["reward"], last["reward"]) == (0.0, 2.0)
    assert middle["error"]["code"] == "body_too_large"


async def test_a_real_server_scores_in_order_with_errors_in_place(url: str) -> None:
    async with AsyncRewardClient(url) as client:
        first, error, other = await client.score([PAIR, {}, OTHER])
        assert await client.score([PAIR], weights={"helpfulness": 1.0}) == [
            {**first, "reward": first["helpfulness"]}
        ]
        with pytest.raises(ClientError, match="humor") as caught:
            await client.score([PAIR], weights={"humor": 1.0})
    assert caught.value.code == "invalid_request"
    assert error["error"]["code"] == "invalid_pair"
    assert first["reward"] != other["reward"]


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


def score(url: str, source: Path, target: Path, *flags: str) -> int:
    return main(
        ["score", str(source), "-o", str(target), "--url", url, "--retry", "0",
         "--batch-size", "8", "--concurrency", "3", *flags]
    )  # fmt: skip


async def alone(url: str, *pairs: Json) -> list[Json]:
    async with AsyncRewardClient(url) as client:
        return await client.score(pairs)


def test_a_file_is_scored_in_its_order(url: str, tmp_path: Path) -> None:
    pairs = rows(50)
    source, target = write(tmp_path / "in.jsonl", *pairs), tmp_path / "out.jsonl"
    assert score(url, source, target) == 0
    scored = read(target)
    sent = [{"prompt": pair["prompt"], "response": pair["response"]} for pair in pairs]
    assert [{k: v for k, v in row.items() if k != "input"} for row in scored] == asyncio.run(
        alone(url, *sent)
    )
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
    assert "3 lines, 1 with an error" in capsys.readouterr().err


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
    answers = (scores({"reward": 0.0}), problem(500, "broken"), scores({"reward": 1.0}))
    async with (
        Scripted(*answers).running() as server,
        AsyncRewardClient(server.url, retry_seconds=0) as client,
    ):
        with pytest.raises(ClientError, match="told broken"):
            await score_file(client, source, target, batch_size=1, concurrency=1)
        assert [row["reward"] for row in read(target)] == [0.0]  # what was scored is kept
        assert await score_file(client, source, target, batch_size=1, concurrency=1) == (3, 0)
    assert [row["reward"] for row in read(target)] == [0.0, 1.0, 1.0]
    sent = [body["pairs"][0]["response"] for body in server.bodies]
    assert sent == [row["response"] for row in (rows(3)[n] for n in (0, 1, 1, 2))]


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
