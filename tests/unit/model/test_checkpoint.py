"""What a checkpoint's folder says, and what is wrong with one that cannot be served."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import MutableMapping
from pathlib import Path

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model import checkpoint
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.manifest import ATTRIBUTES
from fivescore.settings import DEMO, Settings
from tests.unit.engines import DEMO_INFO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo checkpoint without its weights and its manifest."""
    copy = tmp_path / "my-model"
    ignore = shutil.ignore_patterns("*.safetensors", "reward.json")
    return Path(shutil.copytree(DEMO, copy, ignore=ignore))


def test_the_demo_is_a_checkpoint() -> None:
    checkpoint.check(DEMO)


@pytest.mark.parametrize("name", ["org/model", "model", "org/model-8B_v0.1"])
def test_a_hub_id_may_be_one(name: str) -> None:
    checkpoint.check(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c", "~/nothing-here"])
def test_a_folder_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        checkpoint.check(name)


def test_a_folder_without_a_configuration_and_a_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    for path, told in (
        (tmp_path, r"no config\.json"),
        (tmp_path / "model.safetensors", "the folder"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            checkpoint.check(str(path))


def test_a_folder_without_a_tokenizer_is_told_in_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigurationError, match="its tokenizer cannot be loaded") as caught:
        Checkpoint(Settings(model=str(folder)))
    assert "\n" not in caught.value.detail


def test_the_model_is_named_after_its_folder_or_the_setting(
    folder: Path, environment: MutableMapping[str, str]
) -> None:
    environment["HOME"] = str(folder.parent)
    for model in (str(folder), "~/my-model"):
        assert Checkpoint(Settings(model=model)).fit(DEMO_INFO).name == "my-model"
    named = Checkpoint(Settings(model=str(folder), name="judge"))
    assert named.fit(DEMO_INFO).name == "judge"


def test_without_a_manifest_the_outputs_decide(folder: Path) -> None:
    found = Checkpoint(Settings(model=str(folder)))
    assert found.max_tokens is None
    five = found.fit(DEMO_INFO)
    assert list(five.manifest.attributes) == list(ATTRIBUTES)
    assert five.max_tokens == DEMO_INFO.max_tokens
    with pytest.raises(ConfigurationError, match="7 outputs"):
        found.fit(dataclasses.replace(DEMO_INFO, outputs=7))


def test_a_manifest_that_does_not_fit_the_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"outputs: 5, .* has 9"):
        Checkpoint(Settings()).fit(dataclasses.replace(DEMO_INFO, outputs=9))


def test_a_manifest_named_in_the_settings_wins_over_the_folders(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"outputs": 5, "reward": {"output": 3}}')
    model = Checkpoint(Settings(manifest=str(file))).fit(DEMO_INFO)
    assert model.manifest.attributes == {}


def test_a_manifest_that_does_not_fit_the_configuration_is_refused_before_the_load() -> None:
    with pytest.raises(ConfigurationError, match=r"outputs: 1, .* has 5"):
        Checkpoint(Settings(manifest="scalar"))


def test_a_faulty_manifest_in_the_folder_is_named(folder: Path) -> None:
    (folder / "reward.json").write_text('{"outputs": 5}')
    with pytest.raises(ConfigurationError, match=r"reward\.json: reward"):
        Checkpoint(Settings(model=str(folder)))


@pytest.mark.parametrize(
    ("setting", "manifest", "engine", "limit"),
    [
        (None, None, 4096, 4096),
        (None, 512, 4096, 512),
        (100, 512, 4096, 100),
        (1024, 512, 4096, 1024),
        (None, 8192, 4096, 4096),
        (9999, None, 4096, 4096),
    ],
)
def test_the_token_limit_is_the_settings_then_the_manifests_and_never_over_the_engines(
    folder: Path, setting: int | None, manifest: int | None, engine: int, limit: int
) -> None:
    content = json.loads((Path(DEMO) / "reward.json").read_text())
    (folder / "reward.json").write_text(json.dumps({**content, "max_tokens": manifest}))
    found = Checkpoint(Settings(model=str(folder), max_tokens=setting))
    model = found.fit(dataclasses.replace(DEMO_INFO, max_tokens=engine))
    assert model.max_tokens == limit
