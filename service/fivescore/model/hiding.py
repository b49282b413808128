"""Hides the markers in texts from a template, without changing what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fivescore.errors import InvalidPair
from fivescore.model.tokenizer import Guard

MOST_RENDERINGS, MOST_MARKERS = 64, 1024
"""Renderings, and markers in texts, in search of those that the template acts on."""

Render = Callable[[Sequence[str]], str | None]
"""What the template writes with these texts; None where it refuses them."""
Span = tuple[int, int, int]
"""The place of a text, and where in it a marker starts and ends."""


def hide_markers(guard: Guard, texts: Sequence[str], raw: str, render: Render) -> str:
    """``raw`` with placeholders for the markers that come from texts.

    A marker that the template acts on cannot be replaced without changing what it writes: halving
    the set of markers finds those few, and they stay.

    Args:
        raw: what the template writes with ``texts``.

    Raises:
        InvalidPair: the template acts on too many of them.
    """
    spans = [
        (place, match.start(), match.end())
        for place, text in enumerate(texts)
        for match in guard.find(text)
    ]
    best, kept = raw, frozenset[int]()
    pending = [range(len(spans))] if spans else []
    for _ in range(MOST_RENDERINGS):
        if not pending:
            return best
        group = pending.pop()
        trial = kept.union(group)
        rendered = render(_hidden(guard, texts, [spans[index] for index in sorted(trial)]))
        if rendered is not None and guard.restore(rendered) == raw:
            best, kept = rendered, trial
        elif len(spans) > MOST_MARKERS:
            break
        elif len(group) > 1:
            middle = len(group) // 2
            pending += (group[middle:], group[:middle])
    raise InvalidPair(
        f"the texts hold {len(spans)} markers of the chat template, which acts on too many of"
        " them: remove them from the prompt and the response"
    )


def _hidden(guard: Guard, texts: Sequence[str], spans: Iterable[Span]) -> list[str]:
    """The texts with placeholders for the markers at these places, which are in order."""
    pieces: list[list[str]] = [[] for _ in texts]
    ends = [0] * len(texts)
    for place, start, end in spans:
        text = texts[place]
        pieces[place] += (text[ends[place] : start], guard.protect(text[start:end]))
        ends[place] = end
    return [
        "".join([*before, text[end:]])
        for before, text, end in zip(pieces, texts, ends, strict=True)
    ]
