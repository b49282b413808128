"""LLaMA-Factory's PPO, ``reward_model: http://host:8000/v1/score/evaluation`` with
``reward_model_type: api``."""

from __future__ import annotations

from typing import Any

from fivescore.http.protocols.fields import members, texts
from fivescore.http.protocols.protocol import Context, Translated, protocol
from fivescore.http.schema import NUMBER, STRING, Description, list_of, obj
from fivescore.types import parse_pair


@protocol(
    Description(
        body=obj(("messages",), model=STRING, messages=list_of(STRING)),
        answer=obj(
            ("id", "object", "model", "scores"),
            id=STRING, object=STRING, model=STRING, scores=list_of(NUMBER),
        ),
        example={"model": "model", "messages": ["<s>Name a prime.7</s>"]},
    ),
    held=True,
)  # fmt: skip
def evaluation(body: Any, context: Context) -> Translated:
    """LLaMA-Factory: `scores`, one combined reward for each of `messages`, which are texts.

    A text is prompt and response in the policy's template; the end of its last turn is written as
    the reward model's template does. With `--policy-tokenizer` it is taken apart and rendered with
    that template.
    """
    body = members(body, "messages", read=("messages",))
    rendered = texts(body["messages"], "messages")
    policy = context.model.policy
    pairs = [
        policy.whole(text) if policy else parse_pair({"text": context.model.completed(text)})
        for text in rendered
    ]
    return Translated(
        "messages",
        pairs,
        lambda scores: {
            "id": f"scoreeval-{context.request_id}",
            "object": "score.evaluation",
            "model": context.model.name,
            "scores": [score.reward for score in scores],
        },
    )
