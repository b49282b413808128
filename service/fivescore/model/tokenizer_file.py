"""Reads a checkpoint's tokenizer so that it is the one of its tokenizer.json.

``AutoTokenizer`` builds the pre-tokenizer and the normalizer anew where tokenizer_config.json names
a class with its own, such as ``LlamaTokenizerFast`` over a byte-level file, and then gives other
ids than the file. Models are trained with the file's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from fivescore.model.tokenizer import panics_are_errors, probes

log = logging.getLogger(__name__)

FILE_NAME = "tokenizer.json"


def read(model: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or hub id, with the ids of its tokenizer.json where it has one.

    Code that the checkpoint brings, which ``trust_remote_code`` allows, decides for itself.

    Raises:
        Exception: transformers cannot load it; the library raises many types.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    found = AutoTokenizer.from_pretrained(
        model, revision=revision, trust_remote_code=trust_remote_code
    )
    if type(found) is PreTrainedTokenizerFast:  # the file itself, whose comparison takes a second
        return found
    if not type(found).__module__.startswith("transformers."):
        return found
    file = path(model, revision)
    different = None if file is None else _difference(found, RustTokenizer.from_file(str(file)))
    if different is None:
        return found
    log.warning(
        "%s: tokenizer_config.json names the class %s, which gives other ids than tokenizer.json,"
        " for %r for instance: tokenizer.json is used",
        model,
        found.init_kwargs.get("tokenizer_class") or type(found).__name__,
        different,
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model, revision=revision)
    # A class may also have names for tokens that tokenizer_config.json leaves to it.
    known, named = tokenizer.backend_tokenizer.token_to_id, tokenizer.special_tokens_map
    more = {
        name: text
        for name, text in found.special_tokens_map.items()
        if name not in named and known(text) is not None
    }
    if more:
        tokenizer.add_special_tokens(more)
    return tokenizer


def path(model: str, revision: str | None) -> Path | None:
    """The tokenizer.json of a folder or hub id; None where it has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    folder = Path(model)
    if folder.is_dir():
        return folder / FILE_NAME if (folder / FILE_NAME).is_file() else None
    try:
        return Path(hf_hub_download(model, FILE_NAME, revision=revision))
    except EntryNotFoundError:
        return None


def _difference(found: Any, file: RustTokenizer) -> str | None:
    """The shortest piece of a text that the two encode differently; None if there is no such text.

    Args:
        file: gets the tokens that tokenizer_config.json adds.
    """
    backend = getattr(found, "backend_tokenizer", None)
    if not isinstance(backend, RustTokenizer):
        return None
    added = [token for _, token in sorted(found.added_tokens_decoder.items())]
    file.add_tokens([token for token in added if file.token_to_id(token.content) is None])
    file.no_truncation()
    file.no_padding()
    structure = [token.content for token in file.get_added_tokens_decoder().values()]
    with _whole_texts(backend):
        for text in probes(file, structure):
            if _ids(backend, text) != _ids(file, text):
                return _shortest(text, backend, file)
        # tokenizer_config.json may turn BOS and EOS on and off; a class may not.
        is_free = {"add_bos_token", "add_eos_token"}.isdisjoint(found.init_kwargs)
        if is_free and _ids(backend, "a", whole=True) != _ids(file, "a", whole=True):
            return "a"
    return None


@contextmanager
def _whole_texts(tokenizer: RustTokenizer) -> Iterator[None]:
    """Suspend the truncation and padding that a tokenizer was saved with."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)


def _ids(tokenizer: RustTokenizer, text: str, whole: bool = False) -> list[int] | None:
    """The ids of a text, with ``whole`` those around it too; None where the tokenizer fails."""
    try:
        with panics_are_errors():
            (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=whole)
    except Exception:  # such as an unknown token that the vocabulary lacks
        return None
    ids: list[int] = encoding.ids
    return ids


def _shortest(text: str, one: RustTokenizer, other: RustTokenizer) -> str:
    """A half of a half ... of the text that the two still encode differently."""
    while len(text) > 1:
        middle = len(text) // 2
        halves = (text[:middle], text[middle:])
        differing = [half for half in halves if _ids(one, half) != _ids(other, half)]
        if not differing:
            break
        text = differing[0]
    return text
