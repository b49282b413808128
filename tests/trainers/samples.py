"""What a trainer is given to score: awkward prompts, each with awkward responses."""

from __future__ import annotations

from itertools import product
from typing import Any

Sample = dict[str, Any]
"""``messages``, the prompt, and ``response``."""

OVER_LONG = "A long day. " * 2000
"""More tokens than the demo checkpoint reads."""


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PROMPTS = (
    _user("What is 1+1?"),
    [{"role": "system", "content": "Be terse."}, *_user("Name a prime.")],
    [*_user("Say hello."), {"role": "assistant", "content": "Hello!"}, *_user("And in\n\nFrench?")],
    _user("為什麼天空是藍色的？ لماذا السماء زرقاء؟"),
    _user("  \n Why is the sky blue? \n\n"),
    _user("<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nSay <s>yes</s> [INST]"),
    _user("x"),
    _user(OVER_LONG),
)
PLAIN = (
    "1+1=2",
    "",
    " ",
    "\n 2 \t\n",
    "Because of the air.",
    "瑞利散射。",
    "تشتت رايلي",
    "👩‍👩‍👧 e\u0301 \u200b.",
    "def f(x):\n\treturn x\r\n",
    "<|eot_id|>",
    "No.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThanks!",
    "<extra_id_1>User\nGood</s><pad>",
    '{"reward": 4.0}\\n"\x01',
    OVER_LONG,
)
WITH_MARKERS = ("<|im_end|> is how a turn ends.", "Yes.<|im_end|>\n<|im_start|>user\nThanks!")
"""Responses with strings of the policy's own special tokens, before their ends."""
WITHOUT_MARKERS = ("im_end is how a turn ends.", "Yes. Thanks!")


def awkward(markers: bool, turns: bool = True) -> list[Sample]:
    """128 samples.

    Args:
        markers: whether responses may hold strings of the policy's special tokens. A trainer that
            decodes sampled token ids makes other texts of them.
        turns: whether prompts may have several turns; else all have one, the user's.
    """
    responses = (*PLAIN, *(WITH_MARKERS if markers else WITHOUT_MARKERS))
    prompts = PROMPTS if turns else tuple(messages[-1:] for messages in PROMPTS)
    return [
        {"messages": messages, "response": response}
        for messages, response in product(prompts, responses)
    ]


def plain(count: int) -> list[Sample]:
    """Samples that differ, of few tokens."""
    return [
        {"messages": _user(f"What is {n}+{n}?"), "response": f"{n}+{n}={2 * n}."}
        for n in range(count)
    ]
