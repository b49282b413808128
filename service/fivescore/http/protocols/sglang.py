"""SGLang's native ``/classify``, which AReaL's reward service uses."""

from __future__ import annotations

import time
from typing import Any

from fivescore.http.protocols.fields import VECTOR, inputs, malformed, one_of, vector
from fivescore.http.protocols.protocol import Context, Translated
from fivescore.http.schema import obj
from fivescore.types import Pair, Score

ANSWER = obj(("embedding", "meta_info"), embedding=VECTOR)


def classify(body: dict[str, Any], context: Context) -> Translated:
    """One entry for one ``text`` or ``input_ids``; a list of entries for a list of them."""
    field = one_of(body, ("text", "input_ids", "input", "messages"))
    assert field in ("text", "input_ids")
    value = body[field]
    pairs = inputs(value, field)
    if field == "input_ids" and any(isinstance(pair, Pair) and pair.text for pair in pairs):
        raise malformed(field, "must be token ids, or a list of them: put texts into text")
    several = isinstance(value, list) and not (value and isinstance(value[0], int))
    started = time.perf_counter()

    def answer(scores: list[Score]) -> Any:
        seconds = time.perf_counter() - started
        entries = [_entry(i, score, seconds, context) for i, score in enumerate(scores)]
        return entries if several else entries[0]

    return Translated(field, pairs, answer)


def _entry(index: int, score: Score, seconds: float, context: Context) -> dict[str, Any]:
    return {
        "embedding": vector(score, context),
        "meta_info": {
            "id": f"{context.request_id}-{index}",
            "finish_reason": {"type": "length", "length": 0},
            "prompt_tokens": score.tokens,
            "completion_tokens": 0,
            "cached_tokens": score.cached_tokens,
            "e2e_latency": seconds,
            "truncated": score.truncated,
        },
    }
