"""The proof of a load: pairs whose token ids and outputs a reference gave, kept in ``reward.json``.

Other token ids mean another tokenizer or template; other outputs mean other weights, another head
or another rotary embedding. ``fivescore check`` and ``fivescore train`` write a proof, and every
start of an engine is compared with it before the first request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fivescore.errors import InvalidPair, NotProved
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat, Proof, ProvedPair
from fivescore.model.token_ids import digest
from fivescore.types import Message, ModelInfo, Pair

TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""The largest difference by the engine's dtype, as a share of an output's range over the pairs.
``docs/model.md`` has what was measured."""
QUANTIZED_TOLERANCE = 3e-1
"""The same where weights or the KV cache are quantised."""
LEAST_RANGE = 0.05
"""The smallest range that counts, as a share of the largest absolute output: a head may give nearly
the same for every pair."""
ROUNDING = 1e-5
"""A difference that is always allowed."""
PRINCIPLE = "correctness"
"""What pairs without a principle are judged by where the model is asked about one; the example of
the model card of nvidia/Llama-3.3-Nemotron-70B-Reward-Principle."""
SHOWN = 40
"""Characters of a prompt in an error."""

_LONG = "The tide comes in, the tide goes out, and nobody on the pier has counted how often. " * 30


def _turns(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [
        Message.model_validate({"role": roles[i % 2], "content": content})
        for i, content in enumerate(contents)
    ]


PAIRS = (
    Pair(prompt="Name a prime number.", response="7"),
    Pair(prompt="Name a prime number.", response="Nine is one, because it is odd."),
    Pair(prompt="  Two spaces before, a tab\tand two newlines after.\n\n", response=" Yes.  \n"),
    Pair(
        prompt=_turns("What is 2 + 2?", "4", "And if you add 3?"),
        response="7, since 4 + 3 = 7.\n\nDone.",
    ),
    Pair(
        prompt="Write a function that reverses a list.",
        response="```python\ndef turned(items):\n    # the last one first\n"
        "    return [*reversed(items)]\n```",
    ),
    Pair(prompt="\u7528\u4e00\u53e5\u8bdd\u4ecb\u7ecd\u957f\u57ce\u3002",
         response="\u957f\u57ce\u662f\u4e2d\u56fd\u53e4\u4ee3\u7684\u9632\u5fa1\u5de5\u7a0b\u3002"),
    Pair(prompt="\u041f\u0440\u0438\u0432\u0435\u0442! \u0645\u0631\u062d\u0628\u0627",
         response="na\u00efve caf\u00e9 \U0001f9d1\U0001f3fd\u200d\U0001f680 12345,67 'LL I'm"),
    Pair(prompt="What does <|im_end|> mean?",
         response="It ends a turn.<|im_end|>\n<|im_start|>user\nThanks</s><|eot_id|>"),
    Pair(prompt="Summarise: " + _LONG, response="Tides repeat. " + _LONG[:600]),
    Pair(prompt="Is this empty?", response=""),
)  # fmt: skip
"""Pairs of a proof unless others are given: white space at the ends, several turns, code, other
scripts, strings of special tokens, a long pair, an empty response."""


def with_principle(pairs: Sequence[Pair], prompt: PromptFormat) -> list[Pair]:
    """The pairs, with ``PRINCIPLE`` where they need one and have none."""
    if prompt.principle is None:
        return list(pairs)
    return [one.judged_by(PRINCIPLE) for one in pairs]


class Sample(NamedTuple):
    """A pair of the proof that fits the model's limit of tokens."""

    place: int
    pair: ProvedPair
    token_ids: list[int]


def proved_pair(pair: Pair, token_ids: list[int], outputs: Sequence[float]) -> ProvedPair:
    """A pair as a proof keeps it, with the reference's token ids and outputs ``[outputs]``."""
    return ProvedPair(
        prompt=pair.prompt or "",
        response=pair.response or "",
        **({} if pair.principle is None else {"principle": pair.principle}),
        ids_sha256=digest(token_ids).hex(),
        outputs=tuple(outputs),
    )


def samples(proof: Proof, conversation: Conversation, limit: int | None) -> list[Sample]:
    """The proof's pairs with their token ids, without those of more than ``limit`` tokens.

    Raises:
        NotProved: a pair's ids are not those of the reference.
    """
    pairs = [
        Pair(prompt=one.prompt, response=one.response, principle=one.principle)
        for one in proof.pairs
    ]
    found = []
    for place, (pair, ids) in enumerate(zip(proof.pairs, conversation.encode(pairs), strict=True)):
        if isinstance(ids, InvalidPair):
            raise NotProved(_other_ids(place, pair, ids.detail))
        if digest(ids).hex() != pair.ids_sha256:
            raise NotProved(
                _other_ids(place, pair, f"its token ids are not those of {proof.reference}")
            )
        if limit is None or len(ids) <= limit:
            found.append(Sample(place, pair, ids))
    return found


def _other_ids(place: int, pair: ProvedPair, what: str) -> str:
    return (
        f"the manifest's proof does not hold for {named(place, pair)}: {what}, so the tokenizer,"
        " the chat template or the prompt format has changed: fivescore check MODEL shows where"
    )


def named(place: int, pair: ProvedPair | Pair) -> str:
    """A pair by its place and its prompt, for an error."""
    prompt = pair.prompt if isinstance(pair.prompt, str) else (pair.prompt or [])[-1].content
    shown = prompt if len(prompt) <= SHOWN else prompt[: SHOWN - 3] + "..."
    return f"pair {place} ({shown!r})"


def check_outputs(
    proof: Proof, checked: Sequence[Sample], outputs: Sequence[Sequence[float]], info: ModelInfo
) -> float:
    """Compare an engine's outputs ``[pairs, outputs]`` with the proof's.

    Returns the largest difference, as a share of the output's range.

    Raises:
        NotProved: a difference is over the tolerance of the engine's dtype.
    """
    expected = [sample.pair.outputs for sample in checked]
    allowed = tolerance(info)
    ranges = output_ranges([pair.outputs for pair in proof.pairs])
    largest = 0.0
    for sample, wanted, found in zip(checked, expected, outputs, strict=True):
        for output, (one, other) in enumerate(zip(wanted, found, strict=True)):
            share = difference(one, other, ranges[output])
            if not share <= allowed:
                raise NotProved(
                    "the manifest's proof does not hold for"
                    f" {named(sample.place, sample.pair)}: output {output} is {other:.6g}, that"
                    f" of {proof.reference} is {one:.6g}, and {allowed * ranges[output]:.2g} is"
                    f" allowed ({precision(info)}), so weights, head, rotary embedding or pooling"
                    " have changed: fivescore check MODEL compares all pairs"
                )
            largest = max(largest, share)
    return largest


def output_ranges(outputs: Sequence[Sequence[float]]) -> list[float]:
    """The range of each output over the pairs ``[pairs, outputs]``, not below ``LEAST_RANGE``."""
    columns = list(zip(*outputs, strict=True))
    return [max(max(c) - min(c), LEAST_RANGE * max(map(abs, c))) for c in columns]


def shows_something(outputs: Sequence[Sequence[float]]) -> bool:
    """Whether an output differs between the pairs ``[pairs, outputs]``; of one pair, always."""
    columns = list(zip(*outputs, strict=True))
    return len(outputs) == 1 or any(max(c) - min(c) > ROUNDING for c in columns)


def difference(expected: float, found: float, output_range: float) -> float:
    """The difference as a share of the output's range; infinite where one side is not finite."""
    if not (math.isfinite(found) and math.isfinite(expected)):
        return math.inf
    beyond = abs(found - expected) - ROUNDING
    if beyond <= 0:
        return 0.0
    return beyond / output_range if output_range else math.inf


def tolerance(info: ModelInfo) -> float:
    """The largest difference that is allowed, as a share of an output's range."""
    if info.quantization is not None:
        return QUANTIZED_TOLERANCE
    return TOLERANCES.get(info.dtype, max(TOLERANCES.values()))


def precision(info: ModelInfo) -> str:
    """The dtype and quantisation that decide the tolerance."""
    return info.dtype if info.quantization is None else f"{info.dtype}, {info.quantization}"
