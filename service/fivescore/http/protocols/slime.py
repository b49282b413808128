"""slime's remote reward model, ``--rm-type remote_rm --rm-url http://host:8000/reward``."""

from __future__ import annotations

from typing import Any

from fivescore.errors import InvalidPair
from fivescore.http.protocols.fields import MESSAGES, members, prompt_turns, response_of
from fivescore.http.protocols.protocol import Context, Translated, protocol
from fivescore.http.schema import NUMBER, STRING, Description, either, obj
from fivescore.types import Pair, parse_pair


@protocol(
    Description(
        body=obj(
            ("prompt", "response"),
            prompt=either(STRING, MESSAGES),
            response=STRING,
            label={},
        ),
        answer=NUMBER,
        example={"prompt": "Name a prime.", "response": "7", "label": None},
    )
)
def reward(body: Any, context: Context) -> Translated:
    """slime: the combined reward of one pair, as a bare number.

    A prompt is messages or a text; the text is a user's turn or, with `--policy-tokenizer`, what
    slime rendered. What ends the response, such as `<|im_end|>`, is cut off it.
    """
    body = members(body, "prompt", "response")
    response = response_of(body["response"], "response")
    pair = _pair(body["prompt"], response, context)
    return Translated("", [pair], lambda scores: scores[0].reward)


def _pair(prompt: Any, response: str, context: Context) -> Pair | InvalidPair:
    policy = context.model.policy
    if isinstance(prompt, str) and policy and policy.rendered(prompt):
        return policy.pair(prompt, response)
    response = context.model.endings.cut(response)
    if isinstance(prompt, str):
        return parse_pair({"prompt": prompt, "response": response})
    return parse_pair({"prompt": prompt_turns(prompt, "prompt", context), "response": response})
