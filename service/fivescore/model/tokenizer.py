"""Text to token ids, with structure and text told apart.

A policy must not be able to write turn markers into the text that rewards it. In a rendered
conversation a special token's string may be the template's (structure) or a person's or policy's
(text). So rendering goes through ``Guard``: texts are first stripped of such strings
(``protect``), the template is applied, and then (``seal``) each special string, now surely the
template's, becomes a *mark*, and the texts get their own strings back. The tokenizer's copy knows
the marks as tokens and reads special strings as plain text, so that one ordinary pass over the
sealed text gives the ids. A text without special strings gets exactly the ids of the reference.
"""

from __future__ import annotations

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
"""What tokenizers takes a millisecond for, and fastokens three with the rendering; of Chinese or of
made-up words, some times as long."""

PROBES, PIECES = 200, 40
"""Texts that are compared, and pieces of each: thousands of words' ends meet in them."""
AWKWARD = (
    " ", "  ", "   \n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "'s", "'LL", "don't",
    "12345", "\u0660\u0661", "x=1;//", "(...)", "!!!", "na\u00efve", "e\u0301", "\u6f22\u5b57",
    "\u05e2\u05d1", "\U0001f9d1\U0001f3fd\u200d\U0001f680", "\ufeff", "\x00", "\u017f", "\u0130",
    "</", "<|", "[INST]", "_a_", "CamelCase", "\u1e9e\ufb01", "\u0e01\u0e33", "\ud55c\uae00",
)  # fmt: skip
"""Pieces where the ways to split a text into words differ."""


class Guard:
    """Keeps the strings that mean structure apart from texts that merely contain them.

    Args:
        special: strings that the tokenizer turns into special tokens.
        plain_forms: strings that mean structure without being special tokens, each with a form
            of the same characters that the tokenizer reads as other ids.
    """

    def __init__(self, special: Iterable[str], plain_forms: dict[str, str]) -> None:
        nonce = secrets.token_hex(8)
        self._held_prefix = f"\ue002{nonce}."
        self.marks = {text: f"\ue000{nonce}.{i}\ue001" for i, text in enumerate(special)}
        strings = [*self.marks, *plain_forms]
        self._held = {text: f"{self._held_prefix}{i}\ue003" for i, text in enumerate(strings)}
        self._plain = {held: plain_forms.get(text, text) for text, held in self._held.items()}
        self._strings = _any_of(self._held)
        self._special = _any_of(self.marks)
        self._holders = _any_of(self._plain)

    def protect(self, text: str) -> str:
        """Replace the strings that mean structure in a person's or policy's text."""
        return self._strings.sub(lambda match: self._held[match[0]], text)

    def seal(self, rendered: str) -> str:
        """Turn the special strings that the template wrote into marks; give texts theirs back."""
        sealed = self._special.sub(lambda match: self.marks[match[0]], rendered)
        if self._held_prefix not in sealed:
            return sealed
        return self._holders.sub(lambda match: self._plain[match[0]], sealed)


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


class Tokenizer:
    """A checkpoint's fast tokenizer, copied so that only marks are structure.

    Args:
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.
        markers: strings that the prompt format uses as structure, special tokens or not.

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
        first = original.encode("a", add_special_tokens=True).ids[:1]
        self.adds_bos = self.bos_id is not None and first == [self.bos_id]
        self._backend = RustTokenizer.from_str(original.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._one: dict[int, int] = {}
        self._several: dict[int, tuple[int, ...]] = {}
        self._faster: fastokens.Tokenizer | None = None  # not before it can know all marks
        self.guard = self._make_guard(markers, reference.unk_token)
        self._faster = faster(self._backend, self.guard.marks.values())

    def _make_guard(self, markers: Iterable[str], unknown: str | None) -> Guard:
        added = self._backend.get_added_tokens_decoder()
        special = {token.content: id_ for id_, token in added.items() if token.special}
        # Characters with a mark between each two cannot merge into what the marker itself gives.
        gap = f"\ue004{secrets.token_hex(8)}\ue005"
        plain_forms = {text: gap.join(text) for text in markers if text not in special}
        self._backend.encode_special_tokens = True
        if unknown and special.get(unknown) in self.encode([unknown])[0]:
            # Its id also stands for what the vocabulary lacks, so only its string can be told.
            plain_forms[unknown] = gap.join(unknown)
        guard = Guard(special, plain_forms)
        self._add_mark(gap, ())
        for text, id_ in special.items():
            self._add_mark(guard.marks[text], (id_,), like=added[id_])
            if text != unknown:
                self._mean(id_, self._spelled_out(gap.join(text), special.values()))
        return guard

    def _spelled_out(self, text: str, forbidden: Collection[int]) -> tuple[int, ...]:
        """What a special id becomes that came from text: vocabularies may hold its string too."""
        (ids,) = self.encode([text])
        return tuple(id_ for id_ in ids if id_ not in forbidden)

    def _add_mark(
        self, mark: str, meaning: tuple[int, ...], like: AddedToken | None = None
    ) -> None:
        strip = {"lstrip": like.lstrip, "rstrip": like.rstrip} if like else {}
        self._backend.add_tokens([AddedToken(mark, normalized=False, special=False, **strip)])
        id_ = self._backend.token_to_id(mark)
        assert id_ is not None
        self._mean(id_, meaning)

    def _mean(self, id_: int, meaning: tuple[int, ...]) -> None:
        if len(meaning) == 1:
            self._one[id_] = meaning[0]
        else:
            self._several[id_] = meaning

    @property
    def quick_characters(self) -> int:
        """Of a text that is tokenised so soon that nobody notices who waits."""
        return QUICK_CHARACTERS if self._faster is None else QUICK_CHARACTERS_FAST

    def encode(self, sealed: Sequence[str]) -> list[list[int]]:
        """Token ids of sealed texts, without a BOS or EOS of the tokenizer's own."""
        return [self._unmark(ids) for ids in self._encode(list(sealed))]

    def _encode(self, sealed: list[str]) -> list[list[int]]:
        if self._faster is not None:
            try:
                with _panics_are_errors():
                    return encode_fast(self._faster, sealed)
            except Exception as error:  # such as a limit of its regular expressions
                log.debug("fastokens failed, and tokenizers took its place: %s", error)
        with _panics_are_errors():
            encodings = self._backend.encode_batch_fast(sealed, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def _unmark(self, ids: list[int]) -> list[int]:
        one, several = self._one.get, self._several
        if several.keys().isdisjoint(ids):
            return [one(id_, id_) for id_ in ids]
        found = (several[id_] if id_ in several else (one(id_, id_),) for id_ in ids)
        return list(chain.from_iterable(found))


@contextmanager
def _panics_are_errors() -> Iterator[None]:
    """A panic in Rust is a BaseException, which would pass by everybody who catches errors."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise RuntimeError(f"the tokenizer panicked: {panic}") from panic


def faster(exact: RustTokenizer, structure: Collection[str]) -> fastokens.Tokenizer | None:
    """What gives the ids of ``exact``, special tokens read as text; None where nothing does.

    Args:
        structure: strings that stand between texts, such as marks.
    """
    try:
        with _panics_are_errors():
            found = fastokens.Tokenizer.from_json_str(exact.to_str())
            for text in _probes(exact, structure):
                (encoding,) = exact.encode_batch_fast([text], add_special_tokens=False)
                if encode_fast(found, [text]) != [encoding.ids]:
                    log.warning("fastokens gives other ids for %r, so tokenising is slower", text)
                    return None
    except Exception as error:  # it knows byte-pair encodings alone, and not all of those
        log.info("fastokens cannot read this tokenizer, so tokenising is slower: %s", error)
        return None
    return found


def encode_fast(tokenizer: fastokens.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids, special tokens read as text."""
    encodings = tokenizer.encode_batch(list(texts), split_special_tokens=True)
    return [encoding.ids for encoding in encodings]


def _probes(exact: RustTokenizer, structure: Collection[str]) -> Iterator[str]:
    chosen = random.Random(0)
    vocabulary = exact.get_vocab_size()
    between = (*AWKWARD, *structure)
    for _ in range(PROBES):
        words = exact.decode_batch([[chosen.randrange(vocabulary)] for _ in range(PIECES)])
        yield "".join(chosen.choice((word, f" {word}", chosen.choice(between))) for word in words)
