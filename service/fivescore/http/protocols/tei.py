"""Text Embeddings Inference's ``POST /predict``."""

from __future__ import annotations

from typing import Any

from fivescore.errors import InvalidPair
from fivescore.http.protocols.shapes import malformed, members
from fivescore.http.protocols.surface import Ask, Context, Truncate, surface
from fivescore.types import Pair, Score, parse_pair


@surface({"inputs": [["Name a prime.", "7"], ["Name a prime.", "Seven is one."]]})
def predict(body: Any, context: Context) -> Ask:
    """TEI: `"text"` or one `["prompt", "response"]`, or a list of `["text"]` and such pairs.

    Scores are raw whatever `raw_scores` says; an over-long input loses its start.
    """
    body = members(body, "inputs")
    value = body["inputs"]
    several = isinstance(value, list) and not (value and isinstance(value[0], str))
    items = value if several else [value]

    def answer(scores: list[Score]) -> Any:
        labels = [_labels(score, context) for score in scores]
        return labels if several else labels[0]

    truncate: Truncate | None = None
    if isinstance(body.get("truncate"), bool):
        truncate = "prompt_start" if body["truncate"] else "never"
    pairs = [_pair(item, i) for i, item in enumerate(items)]
    return Ask("inputs", pairs, answer, truncate=truncate)


def _pair(item: Any, place: int) -> Pair | InvalidPair:
    if isinstance(item, str):
        return parse_pair({"text": item})
    if isinstance(item, list) and len(item) == 1:
        return parse_pair({"text": item[0]})
    if isinstance(item, list) and len(item) == 2:
        return parse_pair({"prompt": item[0], "response": item[1]})
    raise malformed(f"inputs.{place}", 'must be ["text"] or ["prompt", "response"]')


def _labels(score: Score, context: Context) -> list[dict[str, Any]]:
    """By score, the highest first, as TEI sorts them."""
    values = {"reward": score.reward}
    if context.settings.vector == "attributes":
        values.update(score.attributes)
    labels = [{"score": value, "label": name} for name, value in values.items()]
    return sorted(labels, key=lambda label: float(label["score"]), reverse=True)
