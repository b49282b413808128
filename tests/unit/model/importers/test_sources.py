"""Repositories of the hub: which of their files are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.importers.sources import resolve

SAFE = ("config.json", "tokenizer.json", "model-1.safetensors", "pytorch_model.bin",
        "value_head.bin", "original/consolidated.00.pth", "consolidated.safetensors")  # fmt: skip
PICKLED = ("config.json", "tokenizer.json", "pytorch_model-1.bin", "training_args.bin")
NEMO = ("model_config.yaml", "model_weights/metadata.json", "model_weights/x/0.0", "a.model")
ARCHIVE = ("README.md", "reward.nemo")


def hub(files: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub with one repository of these files."""

    def fetch(
        name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: Sequence[str]
    ) -> str:
        for file in files:
            wanted = any(fnmatch(file, one) for one in allow_patterns)
            if wanted and not any(fnmatch(file, one) for one in ignore_patterns):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (SAFE, {"config.json", "tokenizer.json", "model-1.safetensors", "value_head.bin"}),
        (PICKLED, set(PICKLED)),
        (NEMO, set(NEMO)),
        (ARCHIVE, {"reward.nemo"}),
    ],
)
def test_weights_are_fetched_in_one_format(
    files: Sequence[str], fetched: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(files, tmp_path, monkeypatch)
    place = resolve("someone/model")
    assert place == (tmp_path / "reward.nemo" if files == ARCHIVE else tmp_path)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == fetched


def test_no_weights_are_fetched_to_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(SAFE, tmp_path, monkeypatch)
    resolve("someone/model", weights=False)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "tokenizer.json"}


def test_a_source_that_may_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        resolve(str(tmp_path))


def test_what_the_hub_does_not_give_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="source someone/nothing: it is no file") as caught:
        resolve("someone/nothing")
    assert "\n" not in caught.value.detail
