"""Nothing that another program has made is touched, and two runs never write one output."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from fivescore.data.inputs import find
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.labelling.output import Stream, output_for
from tests.unit.client.fakes import Fleet, Request, pairs, problem, score, scored, scores
from tests.unit.data.files import write
from tests.unit.labelling.jobs import Command, Json, command, files, read

CONTENTS = (b"[]\n", b"my notes\n", b'{"id": 1, "reward": 1.0}\n')


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name",
    ["out.jsonl", "out.jsonl.resume", "out.jsonl.partial", "out.jsonl.run.json", "out.parquet",
     "folder/x.jsonl", "folder/_run.json"],
)  # fmt: skip
async def test_what_is_not_ours_is_refused_and_kept(
    tmp_path: Path, name: str, content: bytes
) -> None:
    target = "folder/" if "/" in name else ".".join(name.split(".")[:2])
    run = command(tmp_path, pairs(3), "x")
    run.target = f"{tmp_path}/{target}"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match="move it away"):
        await run.run()
    assert not run.fleet.requests
    assert contents(tmp_path) == {name: content}


async def test_an_output_that_was_changed_is_not_replaced(tmp_path: Path) -> None:
    fleet = Fleet(scores(score(0), {"error": {"code": "too_long", "detail": "x"}}))
    run = command(tmp_path, pairs(2), fleet=fleet)
    assert (await run.run()).failed == 1
    (tmp_path / "out.jsonl").write_text("mine\n")
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match="no longer, what fivescore score wrote"):
        await run.run()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("target", ["out.jsonl", "folder/"])
async def test_a_whole_output_that_was_changed_is_not_taken_for_one(
    tmp_path: Path, target: str
) -> None:
    run = command(tmp_path, pairs(2), "x")
    run.target = f"{tmp_path}/{target}"
    await run.run()
    changed = tmp_path / ("folder/in.jsonl" if target == "folder/" else target)
    changed.write_bytes(changed.read_bytes()[:-5])
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match="no longer, what fivescore score wrote"):
        await run.run()
    assert contents(tmp_path) == before


async def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    async def meanwhile(request: Request) -> object:
        with pytest.raises(ConfigurationError) as caught:
            await replace(run, fleet=Fleet()).run()
        refused.append(caught.value.detail)
        return scored(request)

    run = command(tmp_path, pairs(3), fleet=Fleet(meanwhile))  # type: ignore[arg-type]
    assert (await run.run()).failed == 0
    assert len(refused) == 1
    assert "another fivescore score is writing this output" in refused[0]


@pytest.mark.parametrize("target", ["in.jsonl", "link.jsonl", "hard.jsonl", "in/x.jsonl", "in/"])
async def test_the_input_is_never_the_output(tmp_path: Path, target: str) -> None:
    run = command(tmp_path, pairs(3))
    (tmp_path / "link.jsonl").symlink_to(run.source)
    os.link(run.source, tmp_path / "hard.jsonl")
    folder = write(tmp_path / "in" / "a.jsonl", pairs(2)).parent
    source = folder if target.startswith("in/") else run.source
    before = run.source.read_bytes()
    with pytest.raises(ConfigurationError, match="is the input"):
        await run.run(source=source, target=f"{tmp_path}/{target}")
    assert run.source.read_bytes() == before
    with pytest.raises(ConfigurationError, match="is the input"):
        await run.run(source=folder / "a.jsonl", target=str(folder))


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    run = command(tmp_path, pairs(3), "link.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    await run.run()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(read(tmp_path / "real.jsonl")) == 3


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("out.xlsx", "must end in one of .jsonl"),
        ("missing/out.jsonl", "there is no folder"),
    ],
)
async def test_an_output_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, target: str, told: str
) -> None:
    run = command(tmp_path, pairs(3), target)
    with pytest.raises(ConfigurationError, match=told):
        await run.run()
    assert not run.fleet.requests


async def test_a_stream_gets_rows_as_they_come_and_nothing_is_kept(
    tmp_path: Path,
) -> None:
    reading, writing = os.pipe()
    run = command(tmp_path, pairs(30), fleet=Fleet(*[scored] * 3, problem(500, "broken")))
    with pytest.raises(FivescoreError, match="broken"):
        await run.run(target=f"/dev/fd/{writing}")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    assert [json.loads(line)["reward"] for line in lines] == list(map(float, range(len(lines))))
    assert lines
    assert not files(tmp_path)


async def test_a_device_without_room_is_an_error_of_the_machine(tmp_path: Path) -> None:
    run = command(tmp_path, pairs(3))
    with pytest.raises(OSError, match="No space left") as caught:
        await run.run(target="/dev/full")
    assert caught.value.errno == errno.ENOSPC
    assert (await run.run(target="/dev/null")).rows == 3


def test_standard_output_has_every_name(tmp_path: Path) -> None:
    source = find(write(tmp_path / "in.jsonl", pairs(1)))
    found = [output_for(name, source) for name in ("-", "/dev/stdout", "/dev/fd/1")]
    assert [one.descriptor for one in found if isinstance(one, Stream)] == [1, 1, 1]


ABOUT = {"model": "m", "digest": "0" * 64}


@pytest.mark.parametrize("suffix", [".jsonl", ".json.gz", ".csv", ".parquet", ".parquet.gz"])
async def test_the_output_knows_its_run(tmp_path: Path, suffix: str) -> None:
    run = command(tmp_path, pairs(3), f"out{suffix}", options={"truncate": "never"})
    await run.run()
    if suffix == ".parquet":
        text = parquet.read_metadata(run.target).metadata[b"fivescore"]
        record: Json = json.loads(text)
        assert files(tmp_path) == {"out.parquet"}
    else:
        record = json.loads((tmp_path / f"out{suffix}.run.json").read_text())["fivescore"]
    assert {name: record[name] for name in ABOUT} == ABOUT
    assert record["options"] == {"truncate": "never"}
    assert (record["rows"], record["failed"], record["input"]["files"]) == (3, {}, ["in.jsonl"])


async def test_a_folder_that_failed_in_part_is_replaced_file_by_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "a.parquet", pairs(2)).parent
    write(source / "b.parquet", pairs(4)[2:])
    fleet = Fleet(scores(*map(score, range(3)), {"error": {"code": "too_long", "detail": "x"}}))
    run = Command(source, str(tmp_path / "out"), fleet=fleet)
    assert (await run.run()).failed == 1
    assert files(tmp_path / "out") == {"a.parquet", "b.parquet", "_run.json"}
    done = await run.run()
    assert (done.failed, done.reused) == (0, 3)
    table = parquet.read_table(tmp_path / "out")
    assert table["reward"].to_pylist() == [0, 1, 2, 3]
    assert table["id"].to_pylist() == [1, 2, 3, 4]
    assert not {name for name in files(tmp_path) if name.startswith("out.")}
    (tmp_path / "out" / "b.parquet").unlink()
    shutil.rmtree(tmp_path / "out")
    assert (await run.run()).reused == 0


def test_an_empty_input_gives_an_empty_output(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.csv", "out.parquet", "out.json"):
        assert asyncio.run(command(tmp_path, [], name).run()).rows == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert (tmp_path / "out.csv").read_text().startswith("id,helpfulness,")
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0
