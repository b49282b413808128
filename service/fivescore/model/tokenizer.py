"""Tokenises rendered conversations, and keeps structure and text apart.

A policy must not be able to write turn markers into the text that is scored. In a rendered
conversation the string of a special token may come from the template (structure) or from a prompt
or response (text). ``Guard`` separates them: ``seal`` turns each special string of what the
template writes into a *mark*, ``plain`` gives a text in which nothing is structure, and where the
two are already one string, ``protect`` has replaced the texts' own strings before. The copy of the
tokenizer here has the marks as tokens and reads special strings as plain text, so one pass over the
sealed text gives the ids. A text without special strings gets exactly the ids of the reference.
"""

from __future__ import annotations

import json
import logging
import random
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import fastokens
from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from fivescore.errors import ConfigurationError

log = logging.getLogger(__name__)

QUICK_CHARACTERS, QUICK_CHARACTERS_FAST = 2**11, 2**16
"""Lengths that tokenizers encodes in about 1 ms, and fastokens, with the rendering, in about 3 ms;
Chinese or invented words take several times as long."""

PROBES, PIECES = 200, 40
"""Texts that are compared, and pieces in each, so that thousands of word boundaries are tested."""
AWKWARD = (
    " ", "  ", "   \n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "'s", "'LL", "don't",
    "12345", "\u0660\u0661", "x=1;//", "(...)", "!!!", "na\u00efve", "e\u0301", "\u6f22\u5b57",
    "\u05e2\u05d1", "\U0001f9d1\U0001f3fd\u200d\U0001f680", "\ufeff", "\x00", "\u017f", "\u0130",
    "</", "<|", "[INST]", "_a_", "CamelCase", "\u1e9e\ufb01", "\u0e01\u0e33", "\ud55c\uae00",
)  # fmt: skip
"""Pieces that different ways to split a text into words treat differently."""


class Guard:
    """Separates strings that are structure from the same strings in texts.

    Args:
        special: strings that the tokenizer turns into special tokens.
        plain_forms: strings that are structure without being special tokens, each with a form
            that the tokenizer encodes as plain characters.
    """

    def __init__(self, special: Iterable[str], plain_forms: dict[str, str]) -> None:
        nonce = secrets.token_hex(8)
        # Of digits alone, because templates change the case of texts.
        self._placeholder_prefix = f"\ue002{secrets.randbits(64)}."
        self.marks = {text: f"\ue000{nonce}.{i}\ue001" for i, text in enumerate(special)}
        self.strings = (*self.marks, *plain_forms)
        self._placeholders = {
            text: f"{self._placeholder_prefix}{i}\ue003" for i, text in enumerate(self.strings)
        }
        self._originals = {placeholder: text for text, placeholder in self._placeholders.items()}
        self.plain_forms = plain_forms
        self._strings = _any_of(self._placeholders)
        self._special = _any_of(self.marks)
        self._placeholder_pattern = _any_of(self._originals)

    def find(self, text: str) -> Iterator[re.Match[str]]:
        """The strings in a text that are structure where a template writes them."""
        return self._strings.finditer(text)

    def protect(self, text: str) -> str:
        """Replace the strings that are structure in a prompt's or response's text."""
        return self._strings.sub(lambda match: self._placeholders[match[0]], text)

    def seal(self, rendered: str) -> str:
        """Turn the template's special strings into marks, and restore those of texts."""
        sealed = self._special.sub(lambda match: self.marks[match[0]], rendered)
        if self._placeholder_prefix not in sealed:
            return sealed
        return self._placeholder_pattern.sub(
            lambda m: self._as_plain(self._originals[m[0]]), sealed
        )

    def restore(self, rendered: str) -> str:
        """Put the strings back that ``protect`` has replaced."""
        if self._placeholder_prefix not in rendered:
            return rendered
        return self._placeholder_pattern.sub(lambda match: self._originals[match[0]], rendered)

    def plain(self, text: str) -> str:
        """A prompt's or response's text as it stands in a sealed one: it has no structure."""
        if not self.plain_forms:
            return text
        return self._strings.sub(lambda match: self._as_plain(match[0]), text)

    def _as_plain(self, text: str) -> str:
        return self.plain_forms.get(text, text)


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


class Tokenizer:
    """A copy of a checkpoint's fast tokenizer in which only marks are structure.

    Args:
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.
        markers: strings that the prompt format uses as structure, special tokens or not.

    Attributes:
        ending: the ids that the checkpoint's tokenizer puts after a text, such as EOS.

    Raises:
        ConfigurationError: the checkpoint has no fast tokenizer.
    """

    def __init__(self, reference: Any, markers: Iterable[str] = ()) -> None:
        original = getattr(reference, "backend_tokenizer", None)
        if not isinstance(original, RustTokenizer):
            raise ConfigurationError(
                "the checkpoint has no fast tokenizer: write tokenizer.json beside the weights"
                " with AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        self.bos_id: int | None = reference.bos_token_id
        self.eos_id: int | None = reference.eos_token_id
        self._backend = _copy(original)
        before, self.ending = _surroundings(self._backend)
        self.adds_bos = self.bos_id is not None and before[:1] == (self.bos_id,)
        self._one: dict[int, int] = {}
        self._several: dict[int, tuple[int, ...]] = {}
        self._faster: fastokens.Tokenizer | None = None  # made once all marks are added
        self.guard = self._make_guard(markers, reference.unk_token)
        self._faster = faster(self._backend, self.guard.marks.values())

    def _make_guard(self, markers: Iterable[str], unknown: str | None) -> Guard:
        added = self._backend.get_added_tokens_decoder()
        special = {token.content: id_ for id_, token in added.items() if token.special}
        # With a mark between its characters a marker cannot be encoded as its own token.
        gap = f"\ue004{secrets.token_hex(8)}\ue005"
        plain_forms = {text: gap.join(text) for text in markers if text not in special}
        self._backend.encode_special_tokens = True
        if unknown and special.get(unknown) in self.encode([unknown])[0]:
            # Its id also stands for unknown text, so the ids alone cannot separate the two.
            plain_forms[unknown] = gap.join(unknown)
        guard = Guard(special, plain_forms)
        self._add_mark(gap, ())
        for text, id_ in special.items():
            self._add_mark(guard.marks[text], (id_,), like=added[id_])
            if text != unknown:
                self._set_meaning(id_, self._spelled_out(gap.join(text), special.values()))
        return guard

    def _spelled_out(self, text: str, forbidden: Collection[int]) -> tuple[int, ...]:
        """The ids of a special token's string as text: some vocabularies also hold it whole."""
        (ids,) = self.encode([text])
        return tuple(id_ for id_ in ids if id_ not in forbidden)

    def _add_mark(
        self, mark: str, meaning: tuple[int, ...], like: AddedToken | None = None
    ) -> None:
        strip = {"lstrip": like.lstrip, "rstrip": like.rstrip} if like else {}
        self._backend.add_tokens([AddedToken(mark, normalized=False, special=False, **strip)])
        id_ = self._backend.token_to_id(mark)
        assert id_ is not None
        self._set_meaning(id_, meaning)

    def _set_meaning(self, id_: int, meaning: tuple[int, ...]) -> None:
        if len(meaning) == 1:
            self._one[id_] = meaning[0]
        else:
            self._several[id_] = meaning

    @property
    def quick_characters(self) -> int:
        """Texts up to this many characters are tokenised on the event loop."""
        return QUICK_CHARACTERS if self._faster is None else QUICK_CHARACTERS_FAST

    def encode(self, sealed: Sequence[str]) -> list[list[int]]:
        """Token ids of sealed texts, without a BOS or EOS of the tokenizer's own."""
        return [self._unmark(ids) for ids in self._encode(list(sealed))]

    def _encode(self, sealed: list[str]) -> list[list[int]]:
        if self._faster is not None:
            try:
                with panics_are_errors():
                    return encode_fast(self._faster, sealed)
            except Exception as error:  # such as a limit in its regular expressions
                log.debug("fastokens failed, so tokenizers encoded the texts: %s", error)
        with panics_are_errors():
            encodings = self._backend.encode_batch_fast(sealed, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def _unmark(self, ids: list[int]) -> list[int]:
        one, several = self._one.get, self._several
        if several.keys().isdisjoint(ids):
            return [one(id_, id_) for id_ in ids]
        meanings = (several[id_] if id_ in several else (one(id_, id_),) for id_ in ids)
        return list(chain.from_iterable(meanings))


def _copy(original: RustTokenizer) -> RustTokenizer:
    """A copy that encodes whole texts, in which white space is never a special token."""
    serialised = original.to_str()
    added = original.get_added_tokens_decoder().values()
    if any(token.special and token.content.isspace() for token in added):
        # Special tokens are read as text here, and the white space of a text is what it is.
        parsed = json.loads(serialised)
        for token in parsed["added_tokens"]:
            token["special"] = token["special"] and not token["content"].isspace()
        serialised = json.dumps(parsed)
    copy = RustTokenizer.from_str(serialised)
    copy.no_truncation()
    copy.no_padding()
    return copy


def _surroundings(tokenizer: RustTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before and after those of a text."""
    text = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(text) + 1):
        if whole[start : start + len(text)] == text:
            return tuple(whole[:start]), tuple(whole[start + len(text) :])
    return (), ()


@contextmanager
def panics_are_errors() -> Iterator[None]:
    """Turn a panic in Rust, a BaseException, into an Exception that callers catch."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise RuntimeError(f"the tokenizer panicked: {panic}") from panic


def faster(exact: RustTokenizer, structure: Collection[str]) -> fastokens.Tokenizer | None:
    """A fastokens tokenizer with the same ids as ``exact``, special tokens read as text; else None.

    Args:
        structure: strings that stand between texts, such as marks.
    """
    try:
        with panics_are_errors():
            fast = fastokens.Tokenizer.from_json_str(exact.to_str())
            for text in probes(exact, structure):
                (encoding,) = exact.encode_batch_fast([text], add_special_tokens=False)
                if encode_fast(fast, [text]) != [encoding.ids]:
                    log.warning("fastokens gives other ids for %r, so tokenising is slower", text)
                    return None
    except Exception as error:  # it supports byte-pair encodings alone, and not all of them
        log.info("fastokens cannot read this tokenizer, so tokenising is slower: %s", error)
        return None
    return fast


def encode_fast(tokenizer: fastokens.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids, special tokens read as text."""
    encodings = tokenizer.encode_batch(list(texts), split_special_tokens=True)
    return [encoding.ids for encoding in encodings]


def probes(exact: RustTokenizer, structure: Collection[str]) -> Iterator[str]:
    """Awkward texts of the tokenizer's vocabulary, the same ones in each process.

    Args:
        structure: strings that stand between the pieces of a text.
    """
    rng = random.Random(0)
    vocabulary = exact.get_vocab_size()
    between = (*AWKWARD, *structure)
    for _ in range(PROBES):
        words = exact.decode_batch([[rng.randrange(vocabulary)] for _ in range(PIECES)])
        yield "".join(rng.choice((word, f" {word}", rng.choice(between))) for word in words)
