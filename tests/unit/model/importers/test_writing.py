"""The folder of an import: shards, links, memory, and what becomes of an interrupted one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import weakref
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fivescore.errors import ConfigurationError
from fivescore.model import tensors as stored_tensors
from fivescore.model.importers import writing
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan, PlannedTensor
from fivescore.model.importers.recognition import plan
from fivescore.model.importers.writing import Writer, shards
from tests.unit.model.importers import made

SMALL = 100_000
"""Bytes of a shard, so that a tiny model has several."""


class Progress:
    done = 0

    def update(self, amount: int) -> None:
        self.done += amount


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(writing, "MOST_SHARD_BYTES", SMALL)
    monkeypatch.setattr(writing, "CHUNK", 10_000)
    return made.linear(tmp_path / "source")


def planned(source: Path) -> Plan:
    return plan(str(source), Options())


def write(source: Path, output: Path, link: bool = False) -> Progress:
    found, progress = planned(source), Progress()
    writer = Writer(found, output, source, link)
    writer.write(progress)
    writer.finish(found.manifest)
    assert progress.done == writer.bytes
    return progress


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_shards_hold_every_tensor_and_the_index_says_where(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    write(source, output)
    wanted = {one.name: one.read() for one in planned(source).tensors}
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded(output).items())
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == wanted.keys() == loaded(output).keys()
    files = sorted(output.glob("*.safetensors"))
    assert len(files) > 2
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert not list(output.glob("*.part")) + list(output.glob(".*"))


def test_one_tensor_is_in_memory_at_a_time(source: Path, tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    def counted(one: PlannedTensor) -> PlannedTensor:
        def read() -> torch.Tensor:
            nonlocal most
            tensor = one.read()
            alive.add(id(tensor))
            weakref.finalize(tensor, alive.discard, id(tensor))
            most = max(most, len(alive))
            return tensor

        return PlannedTensor(one.name, one.shape, one.dtype, read, one.files)

    found = planned(source)
    counting = Plan(**{
        **{name: getattr(found, name) for name in Plan.__slots__},
        "tensors": [counted(one) for one in found.tensors],
    })  # fmt: skip
    Writer(counting, tmp_path / "output", source).write(Progress())
    assert most == 1


@pytest.mark.parametrize("fails", [OSError(errno.EXDEV, "another file system"), None])
def test_files_that_stay_as_they_are_are_linked(
    fails: OSError | None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = made.base(source)
    made.save(source, body)
    head = {"v_head.summary.weight": made.drawn(1, made.HIDDEN)}
    torch.save(head, source / "value_head.bin")
    if fails:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(fails))
    output = tmp_path / "output"
    write(source, output, link=True)
    first, second = sorted(output.glob("*.safetensors"))
    assert first.samefile(source / "model.safetensors")
    assert load_file(second).keys() == {"score.weight"}
    assert loaded(output).keys() == body.keys() | {"score.weight"}


def test_a_file_with_another_tensor_is_not_linked(source: Path) -> None:
    assert all(shard.link is None for shard in shards(planned(source).tensors, link=True))


def test_an_interrupted_import_is_no_checkpoint_and_keeps_its_shards(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, found = tmp_path / "output", planned(source)

    class Stops(Progress):
        def update(self, amount: int) -> None:
            super().update(amount)
            if self.done > 3 * SMALL:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Writer(found, output, source).write(Stops())
    kept = {file: file.stat().st_mtime_ns for file in output.glob("*.safetensors")}
    assert len(kept) >= 2
    assert not (output / "config.json").exists()
    assert not (output / "reward.json").exists()
    write(source, output)
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    assert loaded(output).keys() == {one.name for one in found.tensors}


@pytest.mark.parametrize("other", ["source", "options", "files"])
def test_an_unfinished_import_of_something_else_is_not_continued(
    other: str, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    Writer(planned(source), output, source)
    if other == "source":
        source = made.mlp(tmp_path / "other")
    elif other == "files":
        made.save(source, stored(source))
    with pytest.raises(ConfigurationError, match="of another source, or with other options"):
        Writer(planned(source), output, source, link=other == "options")


@pytest.mark.parametrize("state", ["{", "[]"])
def test_a_damaged_mark_of_an_import_is_one_line(state: str, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    Writer(planned(source), output, source)
    next(output.iterdir()).write_text(state)
    with pytest.raises(ConfigurationError, match="remove it, or choose another folder"):
        Writer(planned(source), output, source)


def test_a_folder_that_cannot_be_read_is_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, output = planned(source), tmp_path / "output"
    output.mkdir()

    def denied(folder: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ConfigurationError, match="output: Permission denied"):
        Writer(plan, output, tmp_path / "elsewhere")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_folder_that_is_not_ours_is_never_touched(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    for target in (output, output / "thesis.txt"):
        with pytest.raises(ConfigurationError, match="is not empty"):
            Writer(planned(source), target, source)
    for target in (source, source / "inside"):
        with pytest.raises(ConfigurationError, match="it is the source, or lies in it"):
            Writer(planned(source), target, source)
    assert [file.name for file in output.iterdir()] == ["thesis.txt"]
    write(source, tmp_path / "finished")
    with pytest.raises(ConfigurationError, match="is not empty"):
        Writer(planned(source), tmp_path / "finished", source)


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(ConfigurationError, match="are to be written, and 1,000 are free"):
        Writer(planned(source), tmp_path / "output", source).write(Progress())
    assert not list((tmp_path / "output").glob("*.safetensors*"))


def test_a_disk_that_fills_up_is_one_line_and_what_is_written_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "output"
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match=r"the disk is full .* start the same command"):
            Writer(planned(source), output, source).write(Progress())
    write(source, output)
    assert loaded(output)


def test_a_source_that_changes_meanwhile_is_one_line(source: Path, tmp_path: Path) -> None:
    found = planned(source)
    made.save(source, {name: tensor.half() for name, tensor in stored(source).items()})
    with pytest.raises(ConfigurationError, match=r"is F16 .* the source has changed"):
        Writer(found, tmp_path / "output", source).write(Progress())
    (source / "model.safetensors").write_bytes(b"no more")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Writer(found, tmp_path / "another", source).write(Progress())


def test_every_dtype_of_a_checkpoint_is_written(tmp_path: Path) -> None:
    kinds: list[Any] = [torch.float8_e4m3fn, torch.bfloat16, torch.int64, torch.bool, torch.float64]
    made_tensors = [torch.ones(3, 2).to(kind) for kind in kinds] + [torch.tensor(4.0)]
    found = [
        PlannedTensor(f"t{i}", tuple(one.shape), stored_tensors.dtype_name(one.dtype), one.clone)
        for i, one in enumerate(made_tensors)
    ]
    base = planned(made.linear(tmp_path / "source"))
    fields = {name: getattr(base, name) for name in Plan.__slots__}
    Writer(Plan(**{**fields, "tensors": found}), tmp_path / "out", tmp_path / "source").write(
        Progress()
    )
    for one, other in zip(made_tensors, load_file(tmp_path / "out/model.safetensors").values(),
                          strict=True):  # fmt: skip
        assert one.dtype == other.dtype
        assert torch.equal(one.float(), other.float())
