"""Cuts a request's pairs into chunks, which are tokenised and submitted one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from fivescore.errors import InvalidPair
from fivescore.types import Pair

FIRST_CHUNK_PAIRS = 8
"""Pairs of the first chunk: few, so that the engine starts soon. Each further chunk is twice as
large, up to ``CHUNK_PAIRS``."""
CHUNK_PAIRS = 64
"""The most pairs per chunk: others get a turn between chunks, and the engine works meanwhile."""
CHUNK_CHARACTERS = 2**18
"""The most characters per chunk, so that long pairs do not hold up the tokeniser."""


class Placed(NamedTuple):
    """A pair, its place in the request, and the characters of its text (0 for token ids)."""

    place: int
    pair: Pair
    characters: int


def placed(pairs: Sequence[Pair | InvalidPair]) -> list[Placed]:
    """A request's pairs with their places, without those that were found malformed."""
    return [
        Placed(place, pair, characters(pair))
        for place, pair in enumerate(pairs)
        if isinstance(pair, Pair)
    ]


def chunks(pairs: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Chunks of a bounded number of pairs and characters; pairs of one prompt are neighbours."""
    chunk: list[Placed] = []
    size = 0
    most = FIRST_CHUNK_PAIRS
    for one in _grouped(pairs):
        if chunk and (len(chunk) == most or size + one.characters > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
            most = min(2 * most, CHUNK_PAIRS)
        chunk.append(one)
        size += one.characters
    if chunk:
        yield chunk


def _grouped(pairs: Sequence[Placed]) -> list[Placed]:
    """The pairs of each prompt together, so that they share the prefix cache."""
    first: dict[object, int] = {}
    order = [first.setdefault(_prompt(one.pair) or one.place, one.place) for one in pairs]
    return [one for _, one in sorted(zip(order, pairs, strict=True), key=itemgetter(0))]


def _prompt(pair: Pair) -> object:
    return tuple(pair.prompt) if isinstance(pair.prompt, list) else pair.prompt


def characters(pair: Pair) -> int:
    """The characters of a pair's text; 0 for token ids."""
    prompt = pair.text or pair.prompt or ""
    rest = len(pair.response or "") + len(pair.principle or "")
    if not isinstance(prompt, str):
        return sum(len(turn.content) for turn in prompt) + rest
    return len(prompt) + rest
