"""The tokenizer of a NeMo checkpoint as files of transformers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import tokenizer_file
from fivescore.model.architecture import refusal
from fivescore.model.importers import sentencepiece_model
from fivescore.model.importers.archive import Files
from fivescore.model.importers.sentencepiece_model import NotRead

KEPT = (
    tokenizer_file.FILE_NAME, "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt",
)  # fmt: skip
"""Files of a Hugging Face tokenizer."""
MOST_BYTES = 2**28
HASH = re.compile(r"^(nemo:)?([0-9a-f]{32}_)?")
"""What NeMo puts before the names of files that it packs."""


def write(
    files: Files, entries: Mapping[str, Any], length: int, given: str | Path | None, folder: Path
) -> dict[str, Path]:
    """Put the tokenizer's files into ``folder``; by their names.

    It is ``given`` (a folder or hub id), Hugging Face's in the checkpoint, the SentencePiece model
    in it, or the one of the hub that the configuration names, in this order.

    Args:
        entries: the configuration's entries of the tokenizer.
        length: the most tokens of a text.

    Raises:
        ConfigurationError: there is none, or it cannot be written so that it gives the same ids.
    """
    packed = _hugging_face(files)
    model = _sentencepiece(files, entries)
    named = _hub_name(entries)
    if given is not None:
        _load(files.shown, str(given), folder)
    elif packed:
        for name, path in packed.items():
            (folder / name).write_bytes(files.read(path, MOST_BYTES))
    elif model is not None:
        _convert(files, model, entries, length, folder)
    elif named is not None:
        _load(files.shown, named, folder)
    else:
        raise refusal(
            files.shown,
            f"its tokenizer, of {_library(entries)!r:.40}, is not in it or not read: give one with"
            " --tokenizer",
        )
    if model is None or packed or given is not None:
        _add(folder / tokenizer_file.FILE_NAME, [*_added(entries)])
    return {path.name: path for path in sorted(folder.iterdir())}


def _hugging_face(files: Files) -> dict[str, str]:
    """The paths of a Hugging Face tokenizer's files, by their names."""
    end = tokenizer_file.FILE_NAME
    found = [path for path in files if path == end or path.endswith(f"/{end}")]
    if not found:
        return {}
    place = min(found, key=len).removesuffix(end)
    return {name: place + name for name in KEPT if place + name in files}


def _sentencepiece(files: Files, entries: Mapping[str, Any]) -> str | None:
    """The path of the SentencePiece model that the configuration names, or of any."""
    if "sentencepiece" not in _library(entries):
        return None
    name = str(entries.get("model") or entries.get("model_path") or "")
    found = [path for path in files if path.endswith(".model")]
    named = [path for path in found if HASH.sub("", _last(path)) == HASH.sub("", _last(name))]
    return next(iter(named or found[:1]), None)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _library(entries: Mapping[str, Any]) -> str:
    """NeMo 1's name of the library, or NeMo 2's class; Hugging Face's where none is named."""
    return str(entries.get("library") or entries.get("_target_") or "huggingface").lower()


def _hub_name(entries: Mapping[str, Any]) -> str | None:
    if not any(name in _library(entries) for name in ("huggingface", "autotokenizer")):
        return None
    name = entries.get("type") or entries.get("pretrained_model_name") or entries.get("model_name")
    return name if isinstance(name, str) and name else None


def _load(shown: str, name: str, folder: Path) -> None:
    """Put the tokenizer of a folder or hub id into ``folder``, files as they are where it can."""
    if (Path(name) / tokenizer_file.FILE_NAME).is_file():
        for path in (Path(name) / kept for kept in KEPT):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        return
    try:
        tokenizer_file.read(name).save_pretrained(folder)
    except Exception as error:  # the library raises many types
        raise refusal(
            shown, f"tokenizer {name} cannot be loaded: give its folder with --tokenizer"
        ) from error
    if not (folder / tokenizer_file.FILE_NAME).is_file():
        raise refusal(shown, f"tokenizer {name} has no tokenizer.json: give another")


def _convert(
    files: Files, path: str, entries: Mapping[str, Any], length: int, folder: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    model = files.read(path, MOST_BYTES)
    try:
        backend = sentencepiece_model.convert(model, [*_added(entries)])
    except NotRead as error:
        raise refusal(
            files.shown, f"{_last(path)}: {first_line(error)}; give --tokenizer"
        ) from error
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, **sentencepiece_model.names(model)
    )
    tokenizer.save_pretrained(folder)


def _added(entries: Mapping[str, Any]) -> Iterator[str]:
    """The tokens that NeMo adds to the tokenizer, in its order."""
    for name in ("special_tokens", "additional_special_tokens"):
        tokens = entries.get(name)
        for token in tokens.values() if isinstance(tokens, dict) else tokens or ():
            if isinstance(token, str):
                yield token


def _add(path: Path, added: list[str]) -> None:
    """Add the tokens that a tokenizer.json lacks, behind its own."""
    from tokenizers import AddedToken, Tokenizer

    if not path.is_file():
        raise ConfigurationError(f"tokenizer {path.parent}: it has no {path.name}")
    tokenizer = Tokenizer.from_file(str(path))
    new = [token for token in added if tokenizer.token_to_id(token) is None]
    if new:
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in new])
        tokenizer.save(str(path))
