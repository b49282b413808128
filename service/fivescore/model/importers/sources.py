"""A source of weights: configuration, names and shapes at once, and each tensor when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.data.hub import HUB_ID, OLD_HUB_ID
from fivescore.errors import ConfigurationError, first_line
from fivescore.model import tensors
from fivescore.model.architecture import named, refusal
from fivescore.model.importers.plan import PlannedTensor

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "*.model", "*.tiktoken", "chat_template.jinja",
    "chat_template.json", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Files that decide token ids and the rendered text."""
SMALL = (*TOKENIZER_FILES, "*.json", "*.yaml")
"""What is fetched of a repository beside its weights."""
OTHERS = ["original/*", "consolidated*", "*/*.bin", "onnx/*"]
"""Weights in a repository that are there a second time."""
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Names in safetensors of the dtypes in which a head or an adapter can be computed."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a source.

    Args:
        dtype: its name in safetensors.
        read: reads or computes it, and keeps nothing.
        origin: where its bytes lie; None where it is computed.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]
    origin: tensors.Stored | None = None

    def planned(self, name: str) -> PlannedTensor:
        """The tensor under ``name`` in the new checkpoint."""
        origin = self.origin
        is_same = (
            origin is not None and origin.name == name and origin.file.suffix[1:] == "safetensors"
        )
        files = (origin.file,) if origin is not None and is_same else ()
        return PlannedTensor(name, self.shape, self.dtype, self.read, files)

    def float(self) -> torch.Tensor:
        """The tensor in float32."""
        return self.read().float()


def computed(
    shape: tuple[int, ...], read: Callable[[], torch.Tensor], dtype: str = "F32"
) -> Tensor:
    """A tensor that is computed when it is read."""
    return Tensor(shape, dtype, read)


@dataclass(frozen=True, slots=True)
class Source:
    """A source in Hugging Face's layout.

    Args:
        name: as the user gave it.
        folder: where its files lie.
        config: config.json.
        tensors: all tensors by name.
        files: the tokenizer's files and the template, by their names in a checkpoint.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]

    @property
    def architecture(self) -> str:
        """The class that the weights are for; empty where config.json names none."""
        return named(self.config)

    def with_(self, **changes: Any) -> Source:
        """The same source with some fields changed."""
        return replace(self, **changes)

    def value(self, name: str) -> Any:
        """An entry of config.json or of its text model; else None."""
        text = self.config.get("text_config")
        inner = text.get(name) if isinstance(text, dict) else None
        return self.config.get(name, inner)

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of tokenizer.json; None without the file.

        Raises:
            ConfigurationError: the file is damaged.
        """
        from tokenizers import Tokenizer

        file = self.files.get("tokenizer.json")
        try:
            return None if file is None else Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises no type of its own
            raise self.refuse(f"tokenizer.json cannot be read: {first_line(error)[:80]}") from error

    def refuse(self, sentence: str) -> ConfigurationError:
        """The error ``model NAME: sentence``."""
        return refusal(self.name, sentence)


def resolve(name: str, revision: str | None = None, weights: bool = True) -> Path:
    """The file or folder of a source; a repository of the hub is fetched, or found in its cache.

    Args:
        weights: whether its weights are fetched too.

    Raises:
        ConfigurationError: there is no such file, folder or repository.
    """
    path = Path(name)
    if path.exists():
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise ConfigurationError(f"source {name}: it cannot be read: Permission denied")
        return _archive(path) or path
    if not (HUB_ID.fullmatch(name) or OLD_HUB_ID.fullmatch(name)):
        raise ConfigurationError(f"source {name}: there is no such file or folder")
    try:
        return _fetched(name, revision, weights)
    except Exception as error:  # the library raises many types
        raise ConfigurationError(
            f"source {name}: it is no file or folder here, and the hub does not give it:"
            f" {first_line(error)}"
        ) from error


def _fetched(name: str, revision: str | None, weights: bool) -> Path:
    """The folder of a repository in the hub's cache; weights in one format alone are fetched."""
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=[*SMALL, *patterns], ignore_patterns=OTHERS
            )
        )

    folder = fetch()
    if not weights:
        return folder
    if is_nemo(folder):
        return fetch("*")
    for patterns in (("*.safetensors", "*head*.bin"), ("*.bin", "*.pt"), ("*.nemo",)):
        folder = fetch(*patterns)
        if any(folder.glob(patterns[0])):
            break
    return _archive(folder) or folder


def _archive(folder: Path) -> Path | None:
    """The NeMo archive in a folder that holds nothing else to import."""
    found = list(folder.glob("*.nemo")) if folder.is_dir() else []
    return found[0] if len(found) == 1 and not (folder / "config.json").exists() else None


def is_nemo(place: Path) -> bool:
    """Whether a file or folder is one of NeMo's."""
    if place.suffix == ".nemo" or (place / "model_config.yaml").is_file():
        return True
    return (place / "weights").is_dir() and (place / "context").is_dir()


class NotFetched(ConfigurationError):
    """A tensor is on the hub, of which only the header was read."""


def read(name: str, folder: Path, revision: str | None = None) -> Source:
    """The source in a folder; reads headers and no weights.

    Of a repository whose weights were not fetched, the headers are read on the hub.

    Raises:
        ConfigurationError: config.json is missing or damaged, or a file of weights is.
    """
    if Path(name).exists() or any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        stored = tensors.stored(folder, name)
        found = {key: Tensor(one.shape, one.dtype, one.read, one) for key, one in stored.items()}
    else:
        found = _on_the_hub(name, revision)
    return Source(name, folder, read_json(folder / "config.json", name), found, files(folder))


def _on_the_hub(name: str, revision: str | None) -> dict[str, Tensor]:
    from huggingface_hub import get_safetensors_metadata

    def not_fetched() -> torch.Tensor:
        raise NotFetched(f"source {name}: its weights are not here: fivescore import fetches them")

    try:
        headers = get_safetensors_metadata(name, revision=revision).files_metadata.values()
    except Exception as error:  # the library raises many types
        raise refusal(name, f"the hub gives no headers: {first_line(error)[:80]}") from error
    return {
        key: Tensor(tuple(one.shape), str(one.dtype), not_fetched)
        for header in headers
        for key, one in header.tensors.items()
    }


def files(folder: Path) -> dict[str, Path]:
    """The tokenizer's files and the template in a folder, by their names relative to it."""
    found = (file for pattern in TOKENIZER_FILES for file in sorted(folder.glob(pattern)))
    return {str(file.relative_to(folder)): file for file in found}


def read_json(file: Path, name: str) -> dict[str, Any]:
    """A JSON object in a file of the source ``name``.

    Raises:
        ConfigurationError: it is missing, or is none.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise refusal(name, f"{file.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise refusal(name, f"{file.name} is no JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise refusal(name, f"{file.name} is no JSON object")
    return content
