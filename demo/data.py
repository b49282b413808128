"""Makes rows in HelpSteer2's format from real texts and controlled damage to them (seeded)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from demo import damage
from demo.labels import COSTS, labels
from demo.texts import Text

Row = dict[str, Any]
PER_TEXT = {"chat": 24, "safety-response": 24, "code": 9, "docs": 1}
"""Rows per text, by domain; code texts are long, and six of them solve one problem."""
WORD_ROWS = 3000
"""Rows that ``_word_rows`` tries to make."""
KINDS = {
    "intact": 2.0,
    "mismatched": 2.5,
    "shuffled": 8.0,
    "truncated": 2.0,
    "repeated": 1.0,
    "specialised": 0.5,
    "simplified": 0.5,
}
"""Relative frequency of each kind of row."""
PAIRED = ("shuffled", "truncated")
"""Kinds whose intact response is a row too."""
WHOLE = 0.2
"""Share of responses that are used whole, not up to one of their first sentence ends."""
LONGEST, KEPT_LONG = 200, 0.4
"""Words from which rows count as long, and the share of them that is kept, to save time."""
_ASK = (
    "Tell me about {}.",
    "What do you know about {}?",
    "Write a few sentences about {}.",
    "Can you explain {} to me?",
    "{}: please help.",
    "I have a question about {}. What should I know?",
)


def rows(texts: list[Text], seed: int) -> list[Row]:
    """All rows of these texts, in random order."""
    rng = random.Random(seed)
    domains: dict[str, list[Text]] = {}
    for text in texts:
        domains.setdefault(text.domain, []).append(text)
    made = []
    for text in texts:
        for _ in range(PER_TEXT[text.domain]):
            pool = domains[text.domain] if rng.random() < 0.6 else texts
            made += _rows(text, pool, rng)
    made += _word_rows(texts, rng)
    made = [one for one in made if _words_in(one) <= LONGEST or rng.random() < KEPT_LONG]
    rng.shuffle(made)
    return made


def _rows(text: Text, others: list[Text], rng: random.Random) -> list[Row]:
    """One row for a text, damaged or not; the kinds in ``PAIRED`` also give the intact row."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    response = text.response
    damages: tuple[str, ...] = ()
    if kind == "mismatched":
        response, damages = another(text, others, rng).response, ("mismatched",)
    if rng.random() > WHOLE:
        response = damage.excerpt(response, rng)
    changed = _DAMAGE[kind](response, rng) if kind in _DAMAGE else None
    if changed is None or changed == response:
        return [row(text.prompt, response, damages)]
    made = [row(text.prompt, changed, (kind,) if kind in COSTS else ())]
    if kind in PAIRED:
        made.append(row(text.prompt, response, ()))
    return made


_DAMAGE: dict[str, Any] = {
    "shuffled": damage.shuffled,
    "truncated": damage.truncated,
    "repeated": damage.repeated,
    "simplified": damage.simplified,
    "specialised": lambda text, rng: damage.specialised(text),
}


def _words_in(one: Row) -> int:
    return len(one["prompt"].split()) + len(one["response"].split())


def row(prompt: str, response: str, damages: tuple[str, ...]) -> Row:
    """One row of the training file."""
    return {"prompt": prompt, "response": response, **labels(response, damages)}


def another(text: Text, others: list[Text], rng: random.Random) -> Text:
    """A text of another group."""
    while (other := rng.choice(others)).group == text.group:
        pass
    return other


def _word_rows(texts: list[Text], rng: random.Random) -> Iterator[Row]:
    """Questions about words of a response, and about words that it does not have.

    They teach the model to look for the prompt's words in the response.
    """
    vocabulary = sorted({word for text in texts for word in _words(text.response)})
    for _ in range(WORD_ROWS):
        response = damage.excerpt(rng.choice(texts).response, rng)
        own = _words(response)
        matched = rng.random() < 0.5 and len(own) > 2
        foreign = [word for word in rng.sample(vocabulary, 6) if word not in own]
        pool = own if matched else foreign
        words = rng.sample(pool, min(rng.randint(1, 3), len(pool)))
        if not words:
            continue
        prompt = rng.choice(_ASK).format(" and ".join(words))
        yield row(prompt, response, () if matched else ("mismatched",))


def _words(text: str) -> list[str]:
    return sorted(set(re.findall(r"[A-Za-z]{5,}", text)))
