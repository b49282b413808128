"""A file of rows: scored once each, in order, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fivescore.client.errors import OtherInput
from fivescore.data.formats import SUFFIXES, read_file
from fivescore.errors import ConfigurationError, FivescoreError, RequestError
from fivescore.labelling.rows import Choice, Line, lines
from fivescore.labelling.score import Shape
from tests.unit.client.fakes import Fleet, Request, pairs, problem, score, scored, scores
from tests.unit.data.files import write
from tests.unit.labelling.jobs import SERVED, SHAPE, Json, command, files, read

BROKEN = problem(500, "broken")


def too_long(number: int) -> Json:
    return {"error": {"code": "too_long", "detail": f"pair {number} has too many tokens"}}


async def test_rows_keep_their_columns_and_order_and_get_their_numbers(tmp_path: Path) -> None:
    run = command(tmp_path, [{**pair, "label": n} for n, pair in enumerate(pairs(30))])
    done = await run.run()
    assert (done.rows, done.failed, done.reused) == (30, 0, 0)
    rows = read(run.target)
    assert [row["id"] for row in rows] == list(range(1, 31))
    assert [(row["label"], row["response"], row["reward"]) for row in rows] == [
        (n, str(n), float(n)) for n in range(30)
    ]
    assert list(rows[0])[-5:] == ["helpfulness", "verbosity", "reward", "tokens", "truncated"]
    assert files(tmp_path) == {"out.jsonl", "out.jsonl.run.json"}
    again = await run.run()
    assert (again.rows, again.reused) == (30, 30)
    assert sorted(run.asked) == sorted(str(n) for n in range(30))


@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_a_run_that_failed_asks_for_the_rest_only(tmp_path: Path, suffix: str) -> None:
    name = f"out{suffix}"
    run = command(tmp_path, pairs(30), name, fleet=Fleet(scored, scored, *[BROKEN] * 2))
    with pytest.raises(FivescoreError, match="told broken"):
        await run.run()
    assert files(tmp_path) == {f"{name}.resume"}
    before = set(run.asked[:16])
    run.fleet.requests.clear()
    done = await run.run()
    assert (done.rows, done.reused) == (30, 16)
    assert not set(run.asked) & before
    whole = command(tmp_path / "whole", pairs(30), name)
    await whole.run()
    for made in files(tmp_path / "whole"):
        assert (tmp_path / made).read_bytes() == (tmp_path / "whole" / made).read_bytes()
    about = {} if suffix == ".parquet" else {f"{name}.run.json"}
    assert files(tmp_path / "whole") == {name, *about}


async def test_rows_that_failed_are_asked_for_again(tmp_path: Path) -> None:
    fleet = Fleet(scores(score(0), too_long(1), score(2)))
    run = command(tmp_path, pairs(3), fleet=fleet)
    done = await run.run()
    assert (done.rows, done.failed) == (3, 1)
    assert done.bad.first == {"too_long": f"{tmp_path / 'in.jsonl'}:2: pair 1 has too many tokens"}
    assert read(run.target)[1] == {
        "id": 2, "prompt": "Q1", "response": "1", **too_long(1),
    }  # fmt: skip
    done = await run.run()
    assert (done.rows, done.failed, done.reused) == (3, 0, 2)
    assert run.asked == ["0", "1", "2", "1"]
    assert [row["reward"] for row in read(run.target)] == [0, 1, 2]
    assert files(tmp_path) == {"out.jsonl", "out.jsonl.run.json"}


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.unit.client.fakes import Fleet, pairs, scored
from tests.unit.labelling.jobs import command

def die(request):
    os.kill(os.getpid(), signal.SIGKILL)

run = command(Path(sys.argv[1]), pairs(60), sys.argv[2], fleet=Fleet(*[scored] * 4, die))
asyncio.run(run.run())
"""


def test_a_killed_run_goes_on_and_its_output_equals_an_undisturbed_one(tmp_path: Path) -> None:
    target = "out.parquet"
    run = command(tmp_path, pairs(60), target)
    whole = command(tmp_path / "whole", pairs(60), target)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert files(tmp_path) >= {"out.parquet.resume"}
    resumed = asyncio.run(run.run())
    assert 0 < resumed.reused < 60
    asyncio.run(whole.run())
    assert (tmp_path / target).read_bytes() == (tmp_path / "whole" / target).read_bytes()
    assert files(tmp_path) == {target, "whole/in.jsonl", f"whole/{target}"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"served": replace(SERVED, digest="1" * 64)},
            r"\(digest 000000000000\) was .* now .*1111",
        ),
        ({"served": replace(SERVED, manifest={"reward": 1})}, "manifest of m"),
        ({"options": {"truncate": "prompt_start"}}, 'truncate was not set, now "prompt_start"'),
        ({"options": {"weights": {"helpfulness": 2}}}, "weights was not set, now"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
async def test_another_model_or_other_options_are_refused(
    tmp_path: Path, changes: Json, told: str, is_whole: bool
) -> None:
    run = command(tmp_path, pairs(10), fleet=Fleet(scored, *[] if is_whole else [BROKEN]))
    if is_whole:
        await run.run()
    else:
        with pytest.raises(FivescoreError, match="broken"):
            await run.run()
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(ConfigurationError, match=told):
        await run.run(**changes)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    await run.run(served=replace(SERVED, model="renamed"))  # the digest is the same


async def test_a_model_without_a_digest_is_known_by_its_name(tmp_path: Path) -> None:
    run = command(tmp_path, pairs(3))
    await run.run()
    await run.run(served=replace(SERVED, digest=None))
    with pytest.raises(ConfigurationError, match=r"model m .* now model other"):
        await run.run(served=replace(SERVED, digest=None, model="other"))


@pytest.mark.parametrize("is_whole", [True, False])
async def test_another_input_is_refused(tmp_path: Path, is_whole: bool) -> None:
    run = command(tmp_path, pairs(20), fleet=Fleet(scored, scored, *[] if is_whole else [BROKEN]))
    if is_whole:
        await run.run()
    else:
        with pytest.raises(FivescoreError, match="broken"):
            await run.run()
    changed = pairs(20)
    changed[5]["response"] = "100"
    others = [changed, pairs(7), *[pairs(21)] * is_whole]
    for rows in others:
        with pytest.raises(OtherInput):
            await run.run(source=write(tmp_path / "other" / "in.jsonl", rows))
    renamed = await run.run(source=write(tmp_path / "other" / "same.jsonl", pairs(20)))
    assert renamed.rows == 20


async def test_a_row_that_failed_may_be_corrected(tmp_path: Path) -> None:
    rows = pairs(3)
    run = command(tmp_path, [rows[0], {"prompt": "Q"}, rows[2]])
    assert (await run.run()).failed == 1
    write(run.source, rows)
    done = await run.run()
    assert (done.failed, done.reused) == (0, 2)
    assert [row["reward"] for row in read(run.target)] == [0, 1, 2]


async def test_a_model_that_changes_while_rows_are_scored_spoils_the_run(tmp_path: Path) -> None:
    run = command(tmp_path, pairs(3))
    with pytest.raises(ConfigurationError, match="got another model while"):
        await run.run(at_the_end=replace(SERVED, digest="1" * 64))
    assert files(tmp_path) == {"out.jsonl.resume"}
    with pytest.raises(ConfigurationError, match="holds the scores of another run"):
        await run.run()


async def test_the_change_is_seen_while_rows_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fivescore.labelling.watch.WATCH_SECONDS", 0.0)

    async def slowly(request: Request) -> httpx.Response:
        await asyncio.sleep(0.01)
        return scored(request)

    run = command(tmp_path, pairs(2000), fleet=Fleet(*[slowly] * 250))
    with pytest.raises(ConfigurationError, match="got another model while"):
        await run.run(at_the_end=replace(SERVED, digest="1" * 64))
    assert len(run.asked) < 2000


async def test_a_digest_that_comes_late_is_kept(tmp_path: Path) -> None:
    early = replace(SERVED, digest=None)
    run = command(tmp_path, pairs(3), fleet=Fleet(scores(score(0), too_long(1), score(2))))
    await run.run(served=early, at_the_end=SERVED)
    record = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    assert record["fivescore"]["digest"] == SERVED.digest
    with pytest.raises(ConfigurationError, match="digest"):
        await run.run(served=replace(SERVED, digest="1" * 64))


async def test_first_rows_that_all_fail_alike_stop_the_run(tmp_path: Path) -> None:
    rows: list[Json] = [{"prompt": "Q", "response": n} for n in range(120)]
    run = command(tmp_path, rows)
    with pytest.raises(ConfigurationError, match=r"first 100 rows all failed with invalid_pair"):
        await run.run()
    assert not run.fleet.requests
    assert not files(tmp_path)
    assert (await run.run(keep_going=True)).failed == 120


async def test_first_rows_that_the_server_refuses_stop_the_run_too(tmp_path: Path) -> None:
    refuse = [lambda request: scores(*[too_long(0)] * len(request.pairs))] * 99
    run = command(tmp_path, pairs(300), fleet=Fleet(*refuse))
    with pytest.raises(ConfigurationError, match="first 100 rows all failed with too_long"):
        await run.run()
    assert len(run.asked) == 100
    one_good = command(tmp_path, pairs(300), fleet=Fleet(scored, *refuse))
    assert (await one_good.run()).rows == 300


async def test_an_error_of_the_whole_request_stops_the_run(tmp_path: Path) -> None:
    run = command(tmp_path, pairs(8), fleet=Fleet(problem(422, "invalid_request")))
    with pytest.raises(RequestError):
        await run.run()
    assert not files(tmp_path)


async def test_scores_may_be_rounded_and_get_a_prefix(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "response": str(n), "reward": "mine"} for n in range(12)]
    run = command(tmp_path, rows)
    with pytest.raises(ConfigurationError, match=r"has a column reward, .* --prefix"):
        await run.run()
    done = await run.run(shape=Shape(SHAPE.attributes, "rm_", rounded=True))
    assert done.failed == 0
    out = read(run.target)
    assert [row["rm_helpfulness"] for row in out] == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4]
    assert {row["rm_verbosity"] for row in out} == {0}
    assert [(row["reward"], row["rm_reward"]) for row in out[:2]] == [("mine", 0.0), ("mine", 1.0)]


async def test_columns_are_chosen_and_a_row_keeps_its_id(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "uid": n * 2, "a": n, **pair} for n, pair in enumerate(pairs(3))]
    run = command(tmp_path, rows)
    await run.run(choice=Choice(columns=("a",)))
    assert [set(row) & {"id", "uid", "a", "prompt"} for row in read(run.target)] == [
        {"id", "a"}
    ] * 3
    assert [row["id"] for row in read(run.target)] == ["r0", "r1", "r2"]
    other = {"target": str(tmp_path / "uid.jsonl"), "choice": Choice(id="uid", columns=())}
    await run.run(**other)
    assert [row["uid"] for row in read(other["target"])] == [0, 2, 4]  # type: ignore[arg-type]
    for choice in (Choice(id="nothing"), Choice(columns=("a", "nothing"))):
        with pytest.raises(ConfigurationError, match="no column nothing: its columns are id, uid"):
            await run.run(target=str(tmp_path / "x.jsonl"), choice=choice)
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("own", ["x", 70])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
async def test_rows_without_an_id_among_others_get_their_numbers(
    tmp_path: Path, own: object, suffix: str
) -> None:
    first, second, third = pairs(3)
    run = command(tmp_path, [{"id": own, **first}, second, {**third, "id": own}], f"out{suffix}")
    run.source.write_bytes(run.source.read_bytes() + b"not json\n")
    await run.run()
    found = [row.fields()["id"] for row in read_file(tmp_path / f"out{suffix}")]
    assert list(map(str, found)) == [str(own), "2", str(own), "4"]


async def test_a_row_that_is_more_than_texts_is_a_bad_row(tmp_path: Path) -> None:
    user = {"role": "user", "content": "Q"}
    call = {"function": {"name": "f", "arguments": "{}"}}
    good: Json = {"prompt": [user], "response": "1"}
    bad: dict[str, Json] = {
        "tools": {**good, "tools": [call]},
        "images": {**good, "images": ["x"]},
        "chat_template_kwargs": {**good, "chat_template_kwargs": {"x": 1}},
        "prompt.0.tool_calls": {**good, "prompt": [{**user, "tool_calls": [call]}]},
        "prompt.0.reasoning": {**good, "prompt": [{**user, "reasoning": "x"}]},
        "prompt.0.content.0": {**good, "prompt": [{**user, "content": [{"image": "x"}]}]},
        "prompt.0.content": {**good, "prompt": [{"role": "user"}]},
    }
    turn: Json = {**user, "tool_calls": [], "refusal": None, "id": "a", "created": 1}
    empty = dict.fromkeys(("tools", "images", "audio", "documents"))
    run = command(tmp_path, [*bad.values(), {**good, **empty, "prompt": [turn]}])
    assert (await run.run()).failed == len(bad)
    assert [request.pairs for request in run.fleet.requests] == [[good]]
    for row, field in zip(read(run.target), bad, strict=False):
        assert row["error"]["code"] == "invalid_pair"
        assert row["error"]["detail"].startswith(f"{field}: ")


async def test_a_folder_becomes_a_folder_of_the_same_files(tmp_path: Path) -> None:
    folder, target = tmp_path / "in", tmp_path / "out"
    write(folder / "b.jsonl", pairs(5)[2:])
    write(folder / "a" / "a.jsonl", pairs(2))
    write(folder / "_notes.json", [{"x": 1}])
    run = replace(command(tmp_path / "one", pairs(1)), source=folder, target=str(target))
    assert (await run.run()).rows == 5
    assert files(target) == {"a/a.jsonl", "b.jsonl", "_run.json"}
    assert [row["id"] for row in read(target / "b.jsonl")] == [3, 4, 5]
    assert (await run.run()).reused == 5
    (target / "mine.txt").write_text("x")
    whole = await run.run(target=str(tmp_path / "all.jsonl"))
    assert [row["reward"] for row in read(tmp_path / "all.jsonl")] == [0, 1, 2, 3, 4]
    assert whole.rows == 5


async def test_rows_are_read_as_they_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_rows: list[int] = []
    ahead: list[int] = []

    def counted(*arguments: Any) -> Iterator[Line]:
        for line in lines(*arguments):
            read_rows.append(line.number)
            yield line

    def answered(request: Request) -> httpx.Response:
        ahead.append(len(read_rows) - max(int(response) for response in request.responses))
        return scored(request)

    monkeypatch.setattr("fivescore.labelling.score.lines", counted)
    await command(tmp_path, pairs(1000), fleet=Fleet(*[answered] * 200)).run()
    assert len(read_rows) == 1000
    assert max(ahead) <= 100  # the first rows of a file, by which its columns are chosen
