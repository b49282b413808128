"""Controlled damage to a response. Each function changes one property of the text."""

from __future__ import annotations

import random
import re

_BREAK = re.compile(r"(?<=[^\d\s][.!?])\s+|\n\s*")
_SIMPLE_TO_SPECIAL = {
    "use": "utilise",
    "using": "utilising",
    "used": "utilised",
    "help": "facilitate",
    "helps": "facilitates",
    "show": "demonstrate",
    "shows": "demonstrates",
    "start": "commence",
    "end": "termination",
    "need": "necessitate",
    "needs": "necessitates",
    "get": "obtain",
    "gets": "obtains",
    "make": "construct",
    "makes": "constructs",
    "many": "numerous",
    "more": "additional",
    "about": "concerning",
    "before": "previously to",
    "after": "subsequently to",
    "enough": "sufficiently",
    "way": "methodology",
    "ways": "methodologies",
    "part": "component",
    "parts": "components",
    "change": "modification",
    "find": "ascertain",
    "given": "predetermined",
    "keep": "maintain",
    "set": "configuration",
    "easy": "straightforward",
    "hard": "challenging",
    "good": "advantageous",
    "bad": "detrimental",
    "important": "consequential",
    "also": "additionally",
    "but": "notwithstanding,",
    "so": "consequently",
    "first": "preliminarily",
    "number": "numerical quantity",
    "list": "enumeration",
    "problem": "problematic circumstance",
    "people": "individuals",
    "people's": "individuals'",
    "work": "functionality",
    "works": "operates successfully",
    "value": "numerical magnitude",
    "values": "numerical magnitudes",
    "return": "subsequently return",
    "returns": "subsequently returns",
}


def units(text: str) -> tuple[list[str], list[str]]:
    """Sentences and lines, and the separators between them (one fewer)."""
    return _BREAK.split(text), _BREAK.findall(text)


def join(parts: list[str], breaks: list[str]) -> str:
    """The inverse of ``units``."""
    return parts[0] + "".join(gap + part for gap, part in zip(breaks, parts[1:], strict=True))


def shuffled(text: str, rng: random.Random) -> str | None:
    """Sentences and lines in random order, separators in place; None with fewer than two."""
    parts, breaks = units(text)
    if len(set(parts)) < 2:
        return None
    order = parts
    while order == parts:
        order = rng.sample(parts, len(parts))
    return join(order, breaks)


def truncated(text: str, rng: random.Random) -> str | None:
    """The first 30% to 80% of the words, ending inside a sentence; None if there is no such cut."""
    words = [match.end() for match in re.finditer(r"\S+", text)]
    for _ in range(8):
        kept = int(len(words) * rng.uniform(0.3, 0.8))
        if kept >= 3 and text[words[kept - 1] - 1].isalnum():
            return text[: words[kept - 1]]
    return None


def repeated(text: str, rng: random.Random) -> str:
    """Padded with repetitions of its own sentences."""
    parts, breaks = units(text)
    gap = breaks[-1] if breaks else " "
    times = rng.randint(1, 3)
    if len(parts) > 3:
        picked = [rng.choice(parts) for _ in range(times * len(parts) // 2 + 1)]
    else:
        picked = parts * times
    return text + "".join(gap + part for part in picked)


def specialised(text: str) -> str:
    """Everyday words replaced by long ones from a small table."""
    return _replace(text, _SIMPLE_TO_SPECIAL)


def simplified(text: str, rng: random.Random) -> str:
    """About half of the long words replaced by short ones."""
    short = ("thing", "it", "one", "part", "way", "do", "so", "big")

    def replace(match: re.Match[str]) -> str:
        return rng.choice(short) if rng.random() < 0.5 else match.group()

    return re.sub(r"\b[a-z]{8,}\b", replace, text)


def _replace(text: str, table: dict[str, str]) -> str:
    return re.sub(r"\b[a-z']+\b", lambda match: table.get(match.group(), match.group()), text)


def excerpt(text: str, rng: random.Random) -> str:
    """The first sentences, up to a sentence's end: a shorter, but complete response."""
    parts, breaks = units(text)
    ends = [i + 1 for i, part in enumerate(parts) if part[-1:] in ".!?" and i + 1 < len(parts)]
    if not ends:
        return text
    kept = rng.choice(ends[:6])
    return join(parts[:kept], breaks[: kept - 1])
