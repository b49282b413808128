"""Cuts a request's pairs into chunks, which are tokenised and submitted one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple
from zlib import crc32

from fivescore.errors import BodyTooLarge, InvalidPair
from fivescore.scoring.breaks import Breaks
from fivescore.types import Message, Pair

FIRST_CHUNK_PAIRS = 8
"""Pairs of the first chunk: few, so that the engine starts soon. Each further chunk is twice as
large, up to ``CHUNK_PAIRS``."""
CHUNK_PAIRS = 64
"""The most pairs per chunk: others get a turn between chunks, and the engine works meanwhile."""
CHUNK_CHARACTERS = 2**18
"""The largest size of a chunk, so that long pairs do not hold up the tokeniser."""
TURN_CHARACTERS = 32
"""What a turn costs beside its text, in characters: rendering an empty one takes as long."""
KNOWN_CHARACTERS = 2**12
"""Characters at the ends of a long prompt by which it is known, beside its length."""
BEGINNING_CHARACTERS, BEGINNING_TOKENS = 512, 128
"""By so much, where nothing says where a prompt ends, sequences are taken for those of one."""
PAIR_CHARACTERS = 256
"""What a pair costs beside its text and its turns when its place is found, in characters."""

MOST_CHARACTERS = 2**28
"""Limit on what a text may become that a request sends once for all its pairs, in characters: four
bodies of the default limit, or 512 responses to a prompt of 128k tokens."""


class Placed(NamedTuple):
    """A pair, its place in the request, and the characters of its text (0 for token ids).

    ``size`` is what it costs to be prepared: characters with those of its turns, or token ids.
    ``first`` is the place of the request's first pair of the same prompt, and ``prefix`` a number
    that pairs of the same prompt share in all requests.
    """

    place: int
    pair: Pair
    characters: int
    size: int
    first: int
    prefix: int


async def placed(pairs: Sequence[Pair | InvalidPair], principle: str | None = None) -> list[Placed]:
    """A request's pairs with their places, without those that were found malformed.

    The event loop has turns in between.

    Args:
        principle: what pairs are judged by that have none of their own.
    """
    first: dict[object, tuple[int, int]] = {}
    breaks = Breaks(CHUNK_CHARACTERS)
    found = []
    for place, pair in enumerate(pairs):
        if isinstance(pair, Pair):
            judged = pair.judged_by(principle)
            prompt = _prompt(pair)
            known = first.get(prompt or place)
            if known is None:
                known = first[prompt or place] = place, _number(prompt, pair)
            found.append(_placed(place, judged, *known))
            await breaks.after(PAIR_CHARACTERS + found[-1].size)
    return found


def _number(prompt: object, pair: Pair) -> int:
    """The ``prefix`` of pairs, the same in every process."""
    if pair.token_ids is not None:
        return hash(tuple(pair.token_ids[:BEGINNING_TOKENS]))
    return crc32(repr(prompt or (pair.text or "")[:BEGINNING_CHARACTERS]).encode())


def _placed(place: int, pair: Pair, first: int, prefix: int) -> Placed:
    if pair.token_ids is not None:
        return Placed(place, pair, 0, len(pair.token_ids), first, prefix)
    length = characters(pair)
    turns = len(pair.prompt) if isinstance(pair.prompt, list) else 0
    return Placed(place, pair, length, length + turns * TURN_CHARACTERS, first, prefix)


def chunks(pairs: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Chunks of a bounded number of pairs and size.

    Pairs of one prompt are neighbours, so that they share the prefix cache.
    """
    chunk: list[Placed] = []
    size = 0
    most = FIRST_CHUNK_PAIRS
    for one in sorted(pairs, key=attrgetter("first")):
        if chunk and (len(chunk) == most or size + one.size > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
            most = min(2 * most, CHUNK_PAIRS)
        chunk.append(one)
        size += one.size
    if chunk:
        yield chunk


def _prompt(pair: Pair) -> object:
    """What pairs of one prompt share. Of messages three are looked at: there may be thousands."""
    if not isinstance(pair.prompt, list):
        return pair.prompt and _ends(pair.prompt)
    turns = pair.prompt
    looked_at = (turns[0], turns[len(turns) // 2], turns[-1])
    return len(turns), *((turn.role, _ends(turn.content)) for turn in looked_at)


def _ends(text: str) -> object:
    """What a text is known by: to hash megabytes takes milliseconds."""
    if len(text) <= KNOWN_CHARACTERS:
        return text
    return len(text), text[:KNOWN_CHARACTERS], text[-KNOWN_CHARACTERS:]


def characters(pair: Pair) -> int:
    """The characters of a pair's text; 0 for token ids."""
    prompt = pair.text or pair.prompt or ""
    response = pair.response
    said = response.characters if isinstance(response, Message) else len(response or "")
    rest = said + len(pair.principle or "")
    if not isinstance(prompt, str):
        return sum(turn.characters for turn in prompt) + rest
    return len(prompt) + rest


def check_repeated(field: str, characters: int, pairs: int) -> None:
    """Check a text that a request sends once and that goes into each of its pairs.

    Raises:
        BodyTooLarge: written out, it would have more than ``MOST_CHARACTERS``.
    """
    if pairs > 1 and characters * pairs > MOST_CHARACTERS:
        raise BodyTooLarge(
            f"{field}: {characters} characters in each of {pairs} pairs, the limit is"
            f" {MOST_CHARACTERS} in all: send at most {max(1, MOST_CHARACTERS // characters)} pairs"
            " with it in one request",
            limit=MOST_CHARACTERS,
        )
