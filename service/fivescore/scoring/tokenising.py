"""From pairs to token ids: pairs that wait at the same time are tokenised together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from fivescore.errors import FivescoreError, InvalidPair, TooLong
from fivescore.model.checkpoint import Model
from fivescore.scoring.batching import Batcher
from fivescore.scoring.chunks import CHUNK_CHARACTERS, CHUNK_PAIRS, Placed
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.truncation import keep_end, principle_too_long, shorten, too_long
from fivescore.telemetry.trace import Trace
from fivescore.types import Pair

CHARACTERS_PER_TOKEN = 4
"""The average of English text; estimates the tokens of texts that are not tokenised yet."""

Ids = list[int] | FivescoreError
"""A pair's token ids, or the reason why it has none."""


class _Encoded(NamedTuple):
    """A pair's ids, and when its batch was rendered and tokenised (``perf_counter``, seconds)."""

    ids: list[int] | InvalidPair
    rendered: float
    done: float


class PairTokenizer:
    """Renders and tokenises the pairs of all requests, on the event loop or beside it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._on_thread = Batcher(self._encode, CHUNK_PAIRS, CHUNK_CHARACTERS)
        self._on_loop = Batcher(self._encode, CHUNK_PAIRS, 0, on_loop=True)

    def fit(self, model: Model) -> None:
        """Take from the model's tokenizer which texts are short enough for the event loop."""
        self._on_loop.most_size = model.conversation.tokenizer.quick_characters

    async def token_ids(self, chunk: Sequence[Placed], cut: bool, trace: Trace) -> list[Ids]:
        """Each pair's token ids or error, in order.

        ``cut`` allows to drop the start of a text that is too long. The ids may still be more
        than the model takes.
        """
        most = self._service.model.max_characters
        ids = [_known_ids(one, most, cut) for one in chunk]
        unknown = [one for one, known in zip(chunk, ids, strict=True) if known is None]
        if not unknown:
            return [known for known in ids if known is not None]
        size = sum(min(one.size, most) for one in unknown)
        texts = [
            shorten(one.pair, one.characters - most) if one.characters > most else one.pair
            for one in unknown
        ]
        asked = time.perf_counter()
        # The template writes what holds more than texts several times.
        on_loop = size <= self._on_loop.most_size and all(pair.is_plain for pair in texts)
        encoded = await (self._on_loop if on_loop else self._on_thread)(texts, size)
        first = encoded[0]
        trace.add("render", asked, first.rendered)
        trace.add("tokenise", first.rendered, first.done)
        found = iter(encoded)
        return [next(found).ids if known is None else known for known in ids]

    def _encode(self, pairs: list[Pair]) -> list[_Encoded]:
        conversation = self._service.model.conversation
        texts = conversation.render(pairs)
        rendered = time.perf_counter()
        ids = conversation.tokenise(texts)
        done = time.perf_counter()
        return [_Encoded(one, rendered, done) for one in ids]

    def close(self) -> None:
        """Let the tokenizer's thread end."""
        self._on_thread.close()


def expected_tokens(one: Placed, limit: int) -> int:
    """The number of a pair's token ids; an estimate where it brings a text.

    It is at most ``limit``: a pair of more tokens is cut or refused.
    """
    ids = one.pair.token_ids
    return min(limit, one.characters // CHARACTERS_PER_TOKEN if ids is None else len(ids))


def _known_ids(one: Placed, most: int, cut: bool) -> Ids | None:
    """The ids or the error that a pair has without being tokenised; None where it has neither."""
    if one.pair.token_ids is not None:
        return one.pair.token_ids
    if one.characters <= most:
        return None
    if not cut:
        return too_long("characters", one.characters, most)
    length = len(one.pair.principle or "")
    return principle_too_long("characters", length, most) if length > most else None


def crowded(pair: Pair, model: Model, limit: int) -> TooLong | None:
    """The error of a pair that is cut, where its principle would be all that is left of it."""
    if pair.principle is None:
        return None
    (ids,) = model.conversation.encode([Pair(prompt="x", response="x", principle=pair.principle)])
    if not isinstance(ids, list) or len(ids) < limit:
        return None
    return principle_too_long("tokens", len(ids), limit)


def fitting(ids: list[int], model: Model, limit: int, cut: bool) -> Ids:
    """The ids themselves where the engine can take them, or their last ``limit`` with ``cut``.

    Otherwise the pair's error.
    """
    if not ids:
        return InvalidPair("the pair has no tokens: there is nothing to score")
    if len(ids) > limit:
        if not cut:
            return too_long("tokens", len(ids), limit)
        ids = keep_end(ids, limit, model.conversation.tokenizer.bos_id)
    if (highest := max(ids)) >= model.info.vocab_size:
        most = model.info.vocab_size - 1
        return InvalidPair(
            f"token id {highest} is not in the model's vocabulary (0 to {most})", limit=most
        )
    return ids if isinstance(ids, list) else list(ids)  # an array, after ``Pair.compact``
