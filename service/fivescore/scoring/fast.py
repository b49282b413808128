"""fastokens in the place of tokenizers, where both give the same ids.

It reads the same ``tokenizer.json`` twenty times faster, but byte-pair encodings alone, and it is
young: so its ids are compared before it is used.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import fastokens
import tokenizers

log = logging.getLogger(__name__)

PROBES, PIECES = 200, 40
"""Texts that are compared, and pieces of each: thousands of words' ends meet in them."""
AWKWARD = (
    " ", "  ", "   \n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "'s", "'LL", "don't",
    "12345", "\u0660\u0661", "x=1;//", "(...)", "!!!", "na\u00efve", "e\u0301", "\u6f22\u5b57",
    "\u05e2\u05d1", "\U0001f9d1\U0001f3fd\u200d\U0001f680", "\ufeff", "\x00", "\u017f", "\u0130",
    "</", "<|", "[INST]", "_a_", "CamelCase", "\u1e9e\ufb01", "\u0e01\u0e33", "\ud55c\uae00",
)  # fmt: skip
"""Pieces where the ways to split a text into words differ."""


@contextmanager
def panics_are_errors() -> Iterator[None]:
    """A panic in Rust is a BaseException, which would pass by everybody who catches errors."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise RuntimeError(f"the tokenizer panicked: {panic}") from panic


def faster(exact: tokenizers.Tokenizer, structure: Collection[str]) -> fastokens.Tokenizer | None:
    """What gives the ids of ``exact``, special tokens read as text; None where nothing does.

    Args:
        structure: strings that stand between texts, such as marks.
    """
    try:
        with panics_are_errors():
            found = fastokens.Tokenizer.from_json_str(exact.to_str())
            for text in _probes(exact, structure):
                (encoding,) = exact.encode_batch_fast([text], add_special_tokens=False)
                if encode(found, [text]) != [encoding.ids]:
                    log.warning("fastokens gives other ids for %r, so tokenising is slower", text)
                    return None
    except Exception as error:  # it knows byte-pair encodings alone, and not all of those
        log.info("fastokens cannot read this tokenizer, so tokenising is slower: %s", error)
        return None
    return found


def encode(tokenizer: fastokens.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids, special tokens read as text."""
    encodings = tokenizer.encode_batch(list(texts), split_special_tokens=True)
    return [encoding.ids for encoding in encodings]


def _probes(exact: tokenizers.Tokenizer, structure: Collection[str]) -> Iterator[str]:
    chosen = random.Random(0)
    vocabulary = exact.get_vocab_size()
    between = (*AWKWARD, *structure)
    for _ in range(PROBES):
        words = exact.decode_batch([[chosen.randrange(vocabulary)] for _ in range(PIECES)])
        yield "".join(chosen.choice((word, f" {word}", chosen.choice(between))) for word in words)
