"""Tokenizers with the vocabularies' structure of published models, trained on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.checkpoints import CORPUS

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's tokenizer.json splits text."""
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
"""How Qwen 2's tokenizer.json splits text."""
LLAMA3_PLACES = {"ĊĊ": 271, "user": 882, "No": 2822, "Yes": 9642, "assistant": 78191}
"""Ids of tokens that published reward models name: ArmoRM's pattern (its modeling_custom.py), and
the answers of Llama-3.3-Nemotron-70B-Reward-Principle (its card)."""
LLAMA3_TOKENS = 128_000
"""Entries of Llama 3's vocabulary before its special tokens."""


class Vocabulary(NamedTuple):
    """A tokenizer's files."""

    backend: str
    """``tokenizer.json``"""
    settings: dict[str, Any]
    """``tokenizer_config.json``"""

    def write(self, folder: Path) -> None:
        """Write the files to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.backend)
        (folder / "tokenizer_config.json").write_text(json.dumps(self.settings, indent=2))
        names = ("bos_token", "eos_token", "pad_token", "cls_token")
        named = {name: self.settings[name] for name in names if self.settings.get(name)}
        (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2))

    @property
    def tokenizer(self) -> Tokenizer:
        """``tokenizer.json`` as the library tokenizers reads it."""
        return _read(self.backend)

    def id(self, token: str) -> int:
        """The id of a token that is there."""
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    @property
    def plain(self) -> Tokenizer:
        """The same, which takes special tokens' strings for text."""
        return _read(self.backend, plain=True)


@lru_cache(maxsize=4)
def _read(backend: str, plain: bool = False) -> Tokenizer:
    tokenizer = Tokenizer.from_str(backend)
    tokenizer.encode_special_tokens = plain
    return tokenizer


def llama3(
    template: str,
    *,
    release: str = "3.1",
    added: Iterable[str] = (),
    eos: str = "<|eot_id|>",
    pad: str | None = None,
    cls: str | None = None,
) -> Vocabulary:
    """Llama 3's: 128,000 entries, 256 special tokens from ``<|begin_of_text|>`` on, BOS added.

    The entries that published models name by id stand at their ids; most of the others are of no
    text.

    Args:
        release: of Llama; 3 and 3.1 name five of the special tokens differently.
        added: special tokens after those, such as a pad token.
    """
    backend = _with_specials(_llama3_entries(), (*_llama3_specials(release), *added))
    bos = "<|begin_of_text|>"
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
            ),
        ]
    )
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "cls_token": cls}
    return _vocabulary(backend, template, "PreTrainedTokenizerFast", names)


def qwen(
    template: str, *, eos: str = "<|im_end|>", pad: str | None = "<|endoftext|>"
) -> Vocabulary:
    """Qwen 2's and 3's: byte-level, NFC, no BOS; ``<think>`` is a token that is not special."""
    backend = _trained(QWEN_PATTERN)
    backend.normalizer = normalizers.NFC()
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend = _with_specials(backend, specials)
    plain = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    return _vocabulary(
        backend, template, "Qwen2Tokenizer", {"bos_token": None, "eos_token": eos, "pad_token": pad}
    )


def gemma(template: str) -> Vocabulary:
    """Gemma 2's: pieces with bytes to fall back on, BOS added, markers of turns at 106 and 107.

    ``[107, 108, 106, 2516, 108]``, what stands between the user's text and the model's, has the
    same ids as in Gemma's own.
    """
    specials = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 106: "<start_of_turn>",
                107: "<end_of_turn>"}  # fmt: skip
    places = {
        **{text: id_ for id_, text in specials.items()},
        "\n": 108,
        "user": 1645,
        "model": 2516,
    }
    vocab, merges = _pieces(places, unused=2600, words=("user", "model"))
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_tokens(
        [AddedToken(text, special=True, normalized=False) for text in specials.values()]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return _vocabulary(backend, template, "GemmaTokenizer", names)


def internlm2(template: str) -> Vocabulary:
    """InternLM 2's: Llama 2's kind of pieces, then the turns' markers and ``<|reward|>``."""
    places = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab, merges = _pieces(places)
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    marks = ("<|reward|>", "<|plugin|>", "<|im_end|>", "<|im_start|>")
    backend.add_tokens([AddedToken(text, special=True, normalized=False)
                        for text in (*places, *marks)])  # fmt: skip
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return _vocabulary(backend, template, "PreTrainedTokenizerFast", names)


def _vocabulary(
    backend: Tokenizer, template: str, kind: str, names: Mapping[str, str | None]
) -> Vocabulary:
    settings = {
        **names,
        "added_tokens_decoder": {
            str(id_): {
                "content": token.content, "lstrip": False, "normalized": False, "rstrip": False,
                "single_word": False, "special": token.special,
            }
            for id_, token in sorted(backend.get_added_tokens_decoder().items())
        },
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "tokenizer_class": kind,
    }  # fmt: skip
    return Vocabulary(backend.to_str(), {k: v for k, v in settings.items() if v is not None})


def _with_specials(backend: Tokenizer, specials: Sequence[str]) -> Tokenizer:
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return backend


def _llama3_specials(release: str) -> list[str]:
    names = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>",
             7: "<|end_header_id|>", 9: "<|eot_id|>"}  # fmt: skip
    if release != "3":
        names |= {4: "<|finetune_right_pad_id|>", 8: "<|eom_id|>", 10: "<|python_tag|>"}
    reserved = iter(range(256))
    return [
        names.get(place) or f"<|reserved_special_token_{next(reserved)}|>" for place in range(256)
    ]


@cache
def _llama3_json() -> str:
    small = json.loads(_trained(LLAMA3_PATTERN).to_str())["model"]
    taken = set(LLAMA3_PLACES.values())
    free = (id_ for id_ in range(LLAMA3_TOKENS) if id_ not in taken)
    vocab = {text: LLAMA3_PLACES[text] if text in LLAMA3_PLACES else next(free)
             for text in small["vocab"]}  # fmt: skip
    vocab |= LLAMA3_PLACES
    unused = sorted(set(range(LLAMA3_TOKENS)) - set(vocab.values()))
    vocab |= {f"<unused {id_}>": id_ for id_ in unused}
    merges = [tuple(merge) for merge in small["merges"]]
    # Llama 3's too: a piece that is an entry is taken as it is.
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = _splitting(LLAMA3_PATTERN)
    backend.decoder = decoders.ByteLevel()
    text: str = backend.to_str()
    return text


def _llama3_entries() -> Tokenizer:
    return Tokenizer.from_str(_llama3_json())


def _splitting(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _trained(pattern: str) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = _splitting(pattern)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _pieces(
    places: Mapping[str, int], unused: int = 0, words: Sequence[str] = ()
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The entries and merges of a SentencePiece-like vocabulary, some entries at given places.

    Args:
        unused: the least number of entries; those of no text fill it up.
        words: entries that are merged before all others.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    starts = [word[:end] for word in words for end in range(1, len(word))]
    texts = [f"<0x{byte:02X}>" for byte in range(256)] + [*model["vocab"], *starts]
    names = [text for text in dict.fromkeys(texts) if text not in places]
    taken = set(places.values())
    free = (id_ for id_ in range(len(names) + len(taken)) if id_ not in taken)
    vocab = dict(places) | {text: next(free) for text in names}
    holes = sorted(set(range(max(unused, max(vocab.values()) + 1))) - set(vocab.values()))
    vocab |= {f"<unused{id_}>": id_ for id_ in holes}
    first = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    merges = [*first, *(tuple(merge) for merge in model["merges"])]
    return vocab, list(dict.fromkeys(merges))
