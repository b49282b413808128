"""A request's pairs, cut into what the tokeniser and the engine take at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from fivescore.errors import InvalidPair
from fivescore.types import Pair

FIRST_CHUNK_PAIRS = 8
"""Few, so that the engine starts soon; each chunk after it is twice as large, up to the most."""
CHUNK_PAIRS = 64
"""The most pairs of one request that are tokenised together, while the engine works on others."""
CHUNK_CHARACTERS = 2**18
"""Text that one chunk may hold, so that long pairs do not keep others' from the tokeniser."""


class Placed(NamedTuple):
    """A pair, its place in the request, and how long its text is; 0 for token ids."""

    place: int
    pair: Pair
    characters: int


def placed(pairs: Sequence[Pair | InvalidPair]) -> list[Placed]:
    """A request's pairs but those that were found malformed."""
    return [
        Placed(place, pair, characters(pair))
        for place, pair in enumerate(pairs)
        if isinstance(pair, Pair)
    ]


def chunks(pairs: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Chunks of bounded count and text, pairs of one prompt next to each other."""
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
    """In the order in which each prompt came first: the prefix cache does the rest."""
    first: dict[object, int] = {}
    order = [first.setdefault(_prompt(one.pair) or one.place, one.place) for one in pairs]
    return [one for _, one in sorted(zip(order, pairs, strict=True), key=itemgetter(0))]


def _prompt(pair: Pair) -> object:
    return tuple(pair.prompt) if isinstance(pair.prompt, list) else pair.prompt


def characters(pair: Pair) -> int:
    """The length of a pair's text; 0 for token ids."""
    prompt = pair.text or pair.prompt or ""
    if not isinstance(prompt, str):
        return sum(len(turn.content) for turn in prompt) + len(pair.response or "")
    return len(prompt) + len(pair.response or "")
