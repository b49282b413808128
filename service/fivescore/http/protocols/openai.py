"""Chat completions as NVIDIA's hosted reward models (NIM) answer them."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import orjson
from starlette.responses import Response

from fivescore.http.health import SCALAR
from fivescore.http.protocols.fields import MESSAGES, dialogue, malformed, members, usage
from fivescore.http.protocols.protocol import Context, Translated, protocol
from fivescore.http.schema import FLAG, JSON, NUMBER, STRING, Description, list_of, obj
from fivescore.types import Score

MOST_CHOICES = 128
"""OpenAI's own limit on ``n``."""


@protocol(
    Description(
        body=obj(
            ("messages",), messages=MESSAGES, model=STRING, stream=FLAG,
            n={"type": "integer", "minimum": 1, "maximum": MOST_CHOICES},
        ),
        answer=obj(
            ("id", "choices", "usage", "reward", "truncated"),
            choices=list_of(obj(("index", "message", "logprobs")), 1),
            reward=NUMBER, truncated=FLAG,
        ),
        media=(JSON, "text/event-stream"),
        example={
            "model": "fivescore-demo",
            "messages": [
                {"role": "user", "content": "Name a prime."},
                {"role": "assistant", "content": "7"},
            ],
        },
    )
)  # fmt: skip
def chat_completions(body: Any, context: Context) -> Translated:
    """NIM: the scores of a conversation's last message, which is the response.

    The content is `helpfulness:1.5,correctness:...`; `logprobs.content` has the same numbers, and
    `reward` is the combined reward. For a model name that ends in `-scalar` the content is
    `reward:<number>`. Sampling parameters are accepted and ignored; `stream` and `n` are honoured.
    Whatever else would be part of the prompt, such as `tools`, is refused.
    """
    body = members(body, "messages", read=("messages",))
    choices = 1 if body.get("n") is None else body["n"]
    if not isinstance(choices, int) or not 1 <= choices <= MOST_CHOICES:
        raise malformed("n", f"must be a whole number from 1 to {MOST_CHOICES}")
    requested = body.get("model")
    streams = bool(body.get("stream"))
    alone = (
        isinstance(requested, str)
        and requested.endswith(SCALAR)
        and requested != context.model.name
    )

    def answer(scores: list[Score]) -> Any:
        completion = _completion(scores[0], alone, choices, context)
        return _streamed(completion) if streams else completion

    return Translated("messages", [dialogue(body["messages"], "messages", context)], answer)


def _completion(score: Score, alone: bool, choices: int, context: Context) -> dict[str, Any]:
    scalar = {"reward": score.reward}
    values = scalar if alone else score.attributes or scalar
    content = ",".join(f"{name}:{_plain(value)}" for name, value in values.items())
    tokens: list[dict[str, Any]] = [
        {"token": name, "bytes": None, "logprob": value, "top_logprobs": []}
        for name, value in values.items()
    ]
    return {
        "id": f"chatcmpl-{context.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": context.model.name + (SCALAR if alone else ""),
        "choices": [
            {
                "index": index,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": content},
                "logprobs": {"content": tokens},
            }
            for index in range(choices)
        ],
        "usage": usage([score]),
        "reward": score.reward,
        "truncated": score.truncated,
    }


def _plain(value: float) -> str:
    """The shortest digits that read back the same, without an exponent."""
    return format(Decimal(repr(value)), "f")


def _streamed(completion: dict[str, Any]) -> Response:
    """The completion as server-sent events: one chunk and the end."""
    choices = [
        {**{k: v for k, v in choice.items() if k != "message"}, "delta": choice["message"]}
        for choice in completion["choices"]
    ]
    chunk = {**completion, "object": "chat.completion.chunk", "choices": choices}
    body = b"data: " + orjson.dumps(chunk) + b"\n\ndata: [DONE]\n\n"
    return Response(body, media_type="text/event-stream")
