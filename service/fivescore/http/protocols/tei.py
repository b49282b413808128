"""Text Embeddings Inference's ``POST /predict``."""

from __future__ import annotations

from typing import Any

from fivescore.errors import InvalidPair
from fivescore.http.protocols.fields import malformed, members
from fivescore.http.protocols.protocol import Context, Translated, Truncate, protocol
from fivescore.http.schema import FLAG, NUMBER, STRING, Description, either, list_of, obj
from fivescore.types import Pair, Score, parse_pair

_INPUT = either(STRING, {**list_of(STRING, 1), "maxItems": 2})
_LABELS = list_of(obj(("score", "label"), score=NUMBER, label=STRING), 1)


@protocol(
    Description(
        body=obj(
            ("inputs",), inputs=either(STRING, list_of(_INPUT)), truncate=FLAG, raw_scores=FLAG
        ),
        answer=either(_LABELS, list_of(_LABELS)),
        example={"inputs": [["Name a prime.", "7"], ["Name a prime.", "Seven is one."]]},
    )
)
def predict(body: Any, context: Context) -> Translated:
    """TEI: scores of `"text"`, of one `["prompt", "response"]`, or of a list of these.

    Scores are raw, whatever `raw_scores` says. The start of an input that is too long is dropped.
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
    return Translated("inputs", pairs, answer, truncate=truncate)


def _pair(item: Any, place: int) -> Pair | InvalidPair:
    if isinstance(item, str):
        return parse_pair({"text": item})
    if isinstance(item, list) and len(item) == 1:
        return parse_pair({"text": item[0]})
    if isinstance(item, list) and len(item) == 2:
        return parse_pair({"prompt": item[0], "response": item[1]})
    raise malformed(f"inputs.{place}", 'must be ["text"] or ["prompt", "response"]')


def _labels(score: Score, context: Context) -> list[dict[str, Any]]:
    """The scores with their names, the highest first, as TEI sorts them."""
    values = {"reward": score.reward}
    if context.settings.vector == "attributes":
        values.update(score.attributes)
    labels = [{"score": value, "label": name} for name, value in values.items()]
    return sorted(labels, key=lambda label: float(label["score"]), reverse=True)
