"""The files that decide a model's scores: their digest, and what counts as another model."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ModelChanged
from fivescore.model import identity
from fivescore.model.identity import Identity
from fivescore.settings import DEMO, Settings

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(DEMO, tmp_path / "model"))
    (folder / "additional_chat_templates").mkdir()
    for name in ("additional_chat_templates/judge.jinja", "modeling_x.py", "pytorch_model.bin"):
        (folder / name).write_text("x")
    return folder


def identity_of(model: Path, **settings: Any) -> Identity:
    return Identity(Settings(backend="fake", model=str(model), **settings))


def overwrite(file: Path) -> None:
    """As a careful copy would: the same size, the same time, the same inode."""
    seen, data = file.stat(), file.read_bytes()
    with file.open("r+b") as opened:
        opened.write(bytes(byte ^ 1 for byte in data))
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def put_in_place(file: Path) -> None:
    """As a download does: written beside, then renamed."""
    beside = file.with_name("beside")
    beside.write_bytes(file.read_bytes() + b" ")
    beside.rename(file)


DECIDING = (
    WEIGHTS, "pytorch_model.bin", "config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "additional_chat_templates/judge.jinja", "modeling_x.py", "reward.json",
)  # fmt: skip


@pytest.mark.parametrize("change", [overwrite, put_in_place, Path.unlink])
@pytest.mark.parametrize("name", DECIDING)
def test_another_file_is_another_model(
    name: str, change: Callable[[Path], None], model: Path
) -> None:
    seen = identity_of(model)
    before = seen.digest()
    seen.look(loaded=True)
    change(model / name)
    with pytest.raises(ModelChanged, match=name) as caught:
        seen.look()
    assert len(caught.value.detail) - len(str(model)) <= 170
    assert identity_of(model).digest() not in (before, None)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "chat_template.json", "a.py"])
def test_a_file_more_is_another_model(name: str, model: Path) -> None:
    seen = identity_of(model)
    seen.look(loaded=True)
    (model / name).write_text("{}")
    with pytest.raises(ModelChanged, match=f"{name} was added since the model was loaded"):
        seen.look()


@pytest.mark.parametrize("option", ["model-weights", "hf_config_path", "tokenizer"])
def test_a_folder_that_an_engine_option_names_is_the_models_too(
    option: str, model: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(DEMO, tmp_path / "other"))
    engine = {option: str(other)}
    seen = identity_of(model, engine=engine)
    before = seen.digest()
    assert before != identity_of(model).digest()
    seen.look(loaded=True)
    overwrite(other / WEIGHTS)
    with pytest.raises(ModelChanged, match=WEIGHTS):
        seen.look()
    assert identity_of(model, engine=engine).digest() not in (before, None)


def test_what_decides_nothing_may_change(model: Path) -> None:
    seen = identity_of(model)
    before = seen.digest()
    for name in ("README.md", "optimizer.pt", "training_args.bin", "generation_config.json", "log"):
        (model / name).write_text("new")
    seen.look(loaded=True)
    assert identity_of(model).digest() == before


def test_the_digest_is_of_names_and_contents_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    before = identity_of(model).digest()
    assert before is not None
    assert len(before) == 64
    copy, links = tmp_path / "copy", tmp_path / "links"
    shutil.copytree(model, copy)
    links.mkdir()
    for file in copy.iterdir():  # as in the hub's cache
        (links / file.name).symlink_to(file)
    assert identity_of(copy).digest() == identity_of(links).digest() == before
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    assert identity_of(copy).digest() != before


def test_nothing_is_read_again_unless_it_was_written(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = identity_of(model)
    before, read = seen.digest(), identity._sha256
    names: list[str] = []

    def reading(found: Any, stopped: threading.Event) -> str | None:
        names.append(found.path.name)
        return read(found, stopped)

    monkeypatch.setattr(identity, "_sha256", reading)
    seen.look(loaded=True)
    seen.look()
    assert seen.digest() == before
    assert names == []
    (model / WEIGHTS).touch()
    put_in_place(model / "config.json")
    (model / "config.json").write_bytes((Path(DEMO) / "config.json").read_bytes())
    for _ in range(2):
        seen.look()
    assert sorted(names) == ["config.json", WEIGHTS], "the same contents are the same model"


def test_what_was_written_before_it_was_read_has_no_digest(model: Path) -> None:
    seen = identity_of(model)
    overwrite(model / "config.json")
    assert seen.digest() is None
    with pytest.raises(ModelChanged, match="was changed since the model began to load"):
        seen.look(loaded=True)
    stopped = identity_of(model)
    stopped.stop()
    assert stopped.digest() is None


def test_another_manifest_or_preset_is_another_model(model: Path, tmp_path: Path) -> None:
    beside = identity_of(model).digest()
    file = Path(shutil.copy(model / "reward.json", tmp_path / "mine.json"))
    seen = identity_of(model, manifest=str(file))
    assert seen.digest() == beside
    (model / "reward.json").unlink()  # which does not count beside --manifest
    seen.look(loaded=True)
    put_in_place(file)
    with pytest.raises(ModelChanged, match=r"reward\.json"):
        seen.look()
    presets = {identity_of(model, manifest=name).digest() for name in ("helpsteer2", "scalar")}
    assert len(presets | {beside, identity_of(model).digest()}) == 4


class Hub:
    """A cache of the hub: a snapshot for each commit, and what the branch points to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "models--org--judge"
        (self.folder / "refs").mkdir(parents=True)

    def point_to(self, commit: str) -> Path:
        snapshot = self.folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (self.folder / "refs" / "main").write_text(commit)
        return snapshot


def test_a_model_of_the_hub_may_come_while_it_loads_and_not_change_later(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub, expected = Hub(tmp_path / "hub"), identity_of(model).digest()
    seen = identity_of(Path("org/judge"))
    assert seen.digest() is None
    seen.look()
    first = hub.point_to("a" * 40)
    early = ("config.json", "tokenizer.json")
    for name in early:
        shutil.copy(model / name, first)
    seen.look()
    shutil.copytree(model, first, ignore=shutil.ignore_patterns(*early), dirs_exist_ok=True)
    seen.look(loaded=True)
    assert seen.digest() == expected

    shutil.copytree(model, hub.point_to("b" * 40), dirs_exist_ok=True)
    seen.look()  # another commit with the same model
    put_in_place(hub.point_to("b" * 40) / WEIGHTS)
    with pytest.raises(ModelChanged, match=WEIGHTS):
        seen.look()
