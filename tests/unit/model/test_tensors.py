"""Names and shapes of tensors come from files' headers, and a damaged file is one clear line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fivescore.errors import ConfigurationError
from fivescore.model import tensors
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.settings import Settings

WEIGHTS = {"a.weight": torch.zeros(3, 4), "b": torch.zeros(5)}
SHAPES = {"a.weight": (3, 4), "b": (5,)}
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


def read(model: Path | str, **engine: Any) -> tensors.Tensors | None:
    return tensors.read(Settings(model=str(model), engine=engine))


def sharded(folder: Path, index: str | None = INDEX, **promised: str) -> None:
    save_file({"a.weight": WEIGHTS["a.weight"]}, folder / SHARDS[0])
    save_file({"b": WEIGHTS["b"]}, folder / SHARDS[1])
    if index is not None:
        names = {"a.weight": SHARDS[0], "b": SHARDS[1], **promised}
        (folder / index).write_text(json.dumps({"weight_map": names}))


def single(folder: Path) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")


def pickled(folder: Path) -> None:
    torch.save(WEIGHTS, folder / "pytorch_model.bin")
    torch.save({"c": torch.zeros(1)}, folder / "training_args.bin")


def pickled_long_ago(folder: Path) -> None:
    torch.save(WEIGHTS, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def with_others(folder: Path) -> None:
    """Files beside an index that does not name them, and another format's."""
    sharded(folder)
    save_file({"c": torch.zeros(1)}, folder / "other.safetensors")
    torch.save({"d": torch.zeros(1)}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "write", [single, sharded, pickled, pickled_long_ago, with_others, lambda f: sharded(f, None)]
)
def test_names_and_shapes_are_those_of_the_files_that_the_engine_reads(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    found = read(tmp_path)
    assert found is not None
    assert found.shapes == SHAPES
    assert found.beside == ({"c": (1,)} if write is with_others else {})


def test_the_format_of_the_option_decides(tmp_path: Path) -> None:
    single(tmp_path)
    torch.save({"p": torch.zeros(1)}, tmp_path / "model.pt")
    save_file({"m": torch.zeros(1)}, tmp_path / "consolidated.safetensors")
    for load_format, names in (("pt", {"p"}), ("mistral", {"m"}), ("auto", {"m"})):
        found = read(tmp_path, **{"load-format": load_format})
        assert found is not None
        assert set(found.shapes) == names
    for load_format in ("dummy", "sharded_state"):
        assert read(tmp_path, load_format=load_format) is None
    assert read("nothing/here") is None


def cut(name: str, share: float = 0.9) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        single(folder) if "safetensors" in name else pickled(folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return write


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        single(folder)
        (folder / name).write_bytes(content)

    return write


def without(name: str, index: str | None = INDEX) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        sharded(folder, index)
        (folder / name).unlink()

    return write


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (cut("model.safetensors"), r"model\.safetensors is cut short: .* promises \d+ bytes, .*\d"),
        (
            cut("model.safetensors", 0.1),
            r"model\.safetensors is damaged: it has \d+ bytes and no whole header",
        ),
        (cut("model.safetensors", 0), r"it has 0 bytes"),
        (cut("pytorch_model.bin"), r"pytorch_model\.bin cannot be read"),
        (put("model.safetensors", b"\xff" * 64), "no whole header"),
        (put("model.safetensors", b"\2\0\0\0\0\0\0\0[]"), "no whole header"),
        (put("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (put(INDEX, b"{}"), "is no index"),
        (without(SHARDS[1]), rf"{SHARDS[1]} of its weights' files"),
        (without(SHARDS[0], index=None), rf"{SHARDS[0]} of its weights' files"),
        (lambda folder: sharded(folder, c=SHARDS[1]), rf"{SHARDS[1]} lacks c, which the index"),
    ],
)
def test_a_damaged_or_missing_file_is_one_line(
    tmp_path: Path, write: Callable[[Path], None], told: str
) -> None:
    write(tmp_path)
    with pytest.raises(ConfigurationError, match=told) as caught:
        read(tmp_path)
    assert len(caught.value.detail) <= MOST_CHARACTERS


class Program:
    """What a pickle runs when it is read: this one makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_program_among_the_weights_does_not_run(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"
    torch.save(
        {"score.weight": Program(marker)},
        tmp_path / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(ConfigurationError, match="would run code"):
        read(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("offline", [True, False])
def test_of_a_hub_checkpoint_the_cache_is_read_and_what_is_still_to_come_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123456789"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    cache = {"download_dir": str(tmp_path)}
    assert read("org/name", **cache) is None
    sharded(snapshot)
    found = read("org/name", **cache)
    assert found is not None
    assert found.shapes == SHAPES
    (snapshot / SHARDS[1]).unlink()
    if offline:
        with pytest.raises(ConfigurationError, match=SHARDS[1]):
            read("org/name", **cache)
    else:
        assert read("org/name", **cache) is None
