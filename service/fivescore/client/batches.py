"""Checks the pairs of a call and cuts them into requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fivescore.client.rows import PairLike, fields_of
from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.types import Pair, parse_pair


def checked(value: PairLike) -> Pair | InvalidPair:
    """The pair, or the error that the server would answer, before anything is sent."""
    if isinstance(value, Pair | InvalidPair):
        return value
    if isinstance(value, tuple | list) and len(value) == 2:
        return parse_pair({"prompt": value[0], "response": value[1]})
    try:
        return parse_pair(fields_of(value) if isinstance(value, Mapping) else value)
    except InvalidPair as error:
        return error


def prompt_of(pair: Pair) -> str:
    """The text by which a replica is chosen: pairs of one prompt share a prefix cache.

    A rendered pair (``text``, ``token_ids``) returns all of itself: where its prompt ends is not
    known.
    """
    if isinstance(pair.prompt, str):
        return pair.prompt
    if pair.prompt is not None:
        return json.dumps([turn.model_dump(exclude_none=True) for turn in pair.prompt])
    return pair.text if pair.text is not None else json.dumps(pair.token_ids)


def cut(groups: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Batches of up to ``size``; a group is split only where it is larger than a batch."""
    batch: list[int] = []
    for group in groups:
        if batch and len(batch) + len(group) > size:
            yield batch
            batch = []
        batch.extend(group)
        while len(batch) > size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


def body(pairs: Sequence[Pair], options: str) -> bytes:
    """The body of ``POST /score``; ``options`` is what ``encoded_options`` returned."""
    values = json.dumps([pair.model_dump(exclude_none=True) for pair in pairs], ensure_ascii=False)
    return f'{{"pairs":{values}{options}}}'.encode()


def encoded_options(**options: Any) -> str:
    """The options as JSON members that follow the pairs in a body; None is left out.

    Raises:
        InvalidRequest: an option cannot be written as JSON.
    """
    try:
        return "".join(
            f",{json.dumps(name)}:{json.dumps(value, allow_nan=False)}"
            for name, value in options.items()
            if value is not None
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"weights, principle, truncate: {error}") from error
