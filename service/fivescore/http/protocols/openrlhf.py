"""OpenRLHF's remote reward model, ``--reward.remote_url http://host:8000/get_reward``."""

from __future__ import annotations

import math
from typing import Any

from fivescore.errors import InvalidPair
from fivescore.http.protocols.fields import TEXTS, malformed, members, texts
from fivescore.http.protocols.protocol import Context, Translated, protocol
from fivescore.http.schema import FLAG, NUMBER, Description, list_of, obj
from fivescore.model.manifest import ATTRIBUTE_RANGE, Affine, Manifest
from fivescore.policy import PolicyTemplate
from fivescore.types import Pair, Score, parse_pair


@protocol(
    Description(
        body=obj(("query",), query=TEXTS, prompts=TEXTS, labels={}),
        answer=obj(
            ("rewards", "scores", "extra_logs", "truncated"),
            rewards=list_of(NUMBER), scores=list_of({**NUMBER, "minimum": 0, "maximum": 1}),
            truncated=list_of(FLAG),
        ),
        example={"query": ["Name a prime.7</s>"], "prompts": ["Name a prime."], "labels": [None]},
    ),
    held=True,
)  # fmt: skip
def get_reward(body: Any, context: Context) -> Translated:
    """OpenRLHF: `rewards`, `scores` from 0 to 1, and a list per attribute, for `query` texts.

    A query is the policy's own text, and the end of its last turn is written as the reward model's
    template does. With `--policy-tokenizer` the text in `prompts` is cut off its start, and both
    are rendered with that template.
    """
    body = members(body, "query")
    queries = texts(body["query"], "query")
    policy = context.model.policy
    if policy is None:
        pairs = [parse_pair({"text": context.model.completed(query)}) for query in queries]
    else:
        pairs = _taken_apart(queries, body.get("prompts"), policy)
    return Translated("query", pairs, lambda scores: _answer(scores, context))


def _taken_apart(
    queries: list[str], prompts: Any, policy: PolicyTemplate
) -> list[Pair | InvalidPair]:
    cut = texts(prompts or [], "prompts")
    if len(cut) != len(queries):
        raise malformed(
            "prompts",
            f"has {len(cut)} texts, query has {len(queries)}: with --policy-tokenizer each query"
            " needs its prompt",
        )
    return [policy.take_apart(query, prompt) for query, prompt in zip(queries, cut, strict=True)]


def _answer(scores: list[Score], context: Context) -> dict[str, Any]:
    manifest = context.model.manifest
    bounds = context.settings.score_range or reward_range(manifest)
    return {
        "rewards": [score.reward for score in scores],
        "scores": [unit(score.reward, bounds) for score in scores],
        "extra_logs": {
            name: [score.attributes[name] for score in scores] for name in manifest.attributes
        },
        "truncated": [score.truncated for score in scores],
    }


def reward_range(manifest: Manifest) -> tuple[float, float] | None:
    """The range of the combined reward while attributes are in theirs; None for a scalar model."""
    if isinstance(manifest.reward, Affine):
        return None
    ends = [
        sorted(weight * bound for bound in ATTRIBUTE_RANGE)
        for weight in manifest.reward.weights.values()
    ]
    bias = manifest.reward.bias
    low, high = sum((end[0] for end in ends), bias), sum((end[1] for end in ends), bias)
    return (low, high) if low < high else None


def unit(reward: float, bounds: tuple[float, float] | None) -> float:
    """A reward scaled from its bounds to 0..1; without bounds, its logistic function."""
    if bounds is None:
        return 0.5 * (1.0 + math.tanh(0.5 * reward))  # exp(-reward) can overflow
    low, high = bounds
    return min(1.0, max(0.0, (reward - low) / (high - low)))
