"""vLLM's pooling routes, for verl and for clients of ``vllm serve``.

Activation flags are accepted and ignored: scores are raw. A text in ``input`` is already rendered;
BOS is added if it is missing.
"""

from __future__ import annotations

import base64
import time
from array import array
from collections.abc import Collection
from typing import Any

import orjson
from starlette.responses import Response

from fivescore.errors import InvalidPair, printable
from fivescore.http.body import json_written
from fivescore.http.protocols import sglang
from fivescore.http.protocols.fields import (
    INPUTS,
    MESSAGES,
    TEXTS,
    TOKEN_IDS,
    USAGE,
    dialogue,
    inputs,
    malformed,
    members,
    message_text,
    one_of,
    part_of,
    response_of,
    texts,
    usage,
    vector,
)
from fivescore.http.protocols.protocol import Context, Translated, Truncate, protocol
from fivescore.http.schema import COUNT, NUMBER, STRING, Description, either, list_of, obj
from fivescore.http.slices import dumps, written
from fivescore.scoring.chunks import check_repeated
from fivescore.types import PAIR_FIELDS, Pair, Score, parse_pair

LEFT = ("text_1", "queries", "data_1", "query")
"""Names of the prompts in vLLM's ``/score``, over its versions."""
RIGHT = ("text_2", "documents", "items", "data_2")
"""Names of the responses."""
TASKS = ("classify", "score")
"""vLLM's pooling tasks that give one vector for each text; the second is the older name."""
NATIVE_FIELDS = PAIR_FIELDS | {"pairs"}

SIDES = (
    obj(("text_1", "text_2"), text_1=TEXTS, text_2=TEXTS),
    obj(("queries", "documents"), queries=TEXTS, documents=TEXTS),
)
_VECTORS = either(
    obj(("input",), input=INPUTS, encoding_format={"type": "string", "enum": ["float", "base64"]}),
    obj(("messages",), messages=MESSAGES),
)
DATA = obj(
    ("id", "object", "created", "model", "usage", "data"),
    usage=USAGE,
    model=STRING,
    data=list_of(obj(("index", "truncated"))),
)
SCORE = Description(
    body=either(*SIDES),
    answer=DATA,
    example={"text_1": "Name a prime.", "text_2": ["7", "Seven is one."]},
)
_CLASSIFY = Description(
    body=either(
        obj(("input",), input=INPUTS),
        obj(("messages",), messages=MESSAGES),
        obj(("text",), text=TEXTS),
        obj(("input_ids",), input_ids=either(TOKEN_IDS, list_of(TOKEN_IDS))),
    ),
    answer=either(DATA, sglang.ANSWER, list_of(sglang.ANSWER)),
    example={"input": ["<s>Name a prime. 7</s>"], "use_activation": False},
)
_POOLING = Description(body=_VECTORS, answer=DATA, example={"input": ["<s>Name a prime. 7</s>"]})
_RERANK = Description(
    body=obj(("query", "documents"), query=STRING, documents=list_of(STRING), top_n=either(COUNT)),
    answer=obj(
        ("id", "model", "results", "usage"),
        results=list_of(obj(("index", "relevance_score"), relevance_score=NUMBER)),
    ),
    example={"query": "Name a prime.", "documents": ["7", "Seven is one."]},
)


@protocol(_CLASSIFY)
def classify(body: Any, context: Context) -> Translated:
    """vLLM or SGLang, by the body's members: rendered texts, token ids or messages.

    `input` or `messages` is vLLM's: the answer has `data[].probs`, the last of which is the reward.
    `text` or `input_ids` is SGLang's: the answer has `embedding` and `meta_info`.
    """
    body = _asked(body, read=("messages",))
    if body.get("text") is not None or body.get("input_ids") is not None:
        return sglang.classify(body, context)

    def entry(index: int, score: Score) -> dict[str, Any]:
        probs = vector(score, context)
        return {
            "index": index,
            "label": "reward",
            "probs": probs,
            "num_classes": len(probs),
            "truncated": score.truncated,
        }

    return _translated(body, context, "classify", entry)


@protocol(_POOLING)
def pooling(body: Any, context: Context) -> Translated:
    """vLLM: vectors, whose last element is the reward, for texts, token ids or messages."""
    return _vectors(body, context, "pooling", "data")


@protocol(_POOLING)
def embeddings(body: Any, context: Context) -> Translated:
    """OpenAI's embeddings, which verl requests from SGLang: the last element is the reward."""
    return _vectors(body, context, "embedding", "embedding")


def scores(body: Any, context: Context) -> Translated:
    """vLLM: scores of prompts and responses; one prompt or response may stand for all."""
    body = _asked(body, read=RIGHT)
    (left_field, left), (field, right) = _side(body, LEFT), _side(body, RIGHT)
    if len(left) == 1:
        left = _repeated(left, len(right), left_field)
    elif len(right) == 1:
        right = _repeated(right, len(left), field)
    if len(left) != len(right):
        raise malformed(
            field,
            f"has {len(right)} responses for {len(left)} prompts in {left_field}: send as"
            " many, or one of either",
        )
    pairs = [_pair(prompt, response) for prompt, response in zip(left, right, strict=True)]

    def answer(scores: list[Score]) -> dict[str, Any]:
        data = [
            {"index": i, "object": "score", "score": s.reward, "truncated": s.truncated}
            for i, s in enumerate(scores)
        ]
        return {**_head("score", "list", context), "data": data, "usage": usage(scores)}

    return Translated(field, pairs, answer, *_truncation(body))


score = protocol(SCORE)(scores)


@protocol(_RERANK)
def rerank(body: Any, context: Context) -> Translated:
    """vLLM: responses (`documents`) to one prompt (`query`), the best first."""
    body = _asked(body, "query", "documents", read=("documents",))
    (query,), (_, documents) = texts([body["query"]], "query"), _side(body, ("documents",))
    check_repeated("query", len(query), len(documents))
    top = body.get("top_n") or len(documents)
    if not isinstance(top, int) or top < 0:
        raise malformed("top_n", "must be a whole number of at least 0")

    pairs = [_pair(query, document) for document in documents]
    texts_written = [bytes(written({"text": document})) for document in documents]

    def answer(scores: list[Score]) -> Response:
        order = sorted(range(len(scores)), key=lambda i: scores[i].reward, reverse=True)
        answered = bytearray(dumps(_head("rerank", "list", context))[:-1] + b',"results":[')
        for place, i in enumerate(order[:top]):
            result = {
                "index": i,
                "document": orjson.Fragment(texts_written[i]),
                "relevance_score": scores[i].reward,
                "truncated": scores[i].truncated,
            }
            answered += (b"," if place else b"") + dumps(result)
        answered += b'],"usage":' + dumps(usage(scores)) + b"}"
        return json_written(answered)

    return Translated("documents", pairs, answer, *_truncation(body))


def asks_for_score(body: Any) -> bool:
    """Whether a body of ``POST /score`` is vLLM's and not fivescore's own."""
    return (
        isinstance(body, dict)
        and not NATIVE_FIELDS & body.keys()
        and bool({*LEFT, *RIGHT} & body.keys())
    )


def _pair(prompt: str, response: str) -> Pair | InvalidPair:
    return parse_pair({"prompt": prompt, "response": response})


def _repeated(text: list[str], times: int, field: str) -> list[str]:
    """The one text, as often as there are texts on the other side.

    Raises:
        BodyTooLarge: it is too long to be repeated so often.
    """
    check_repeated(field, len(text[0]), times)
    return text * times


def _side(body: dict[str, Any], names: tuple[str, ...]) -> tuple[str, list[str]]:
    """The one of ``names`` that the body has, and its texts."""
    name = one_of(body, names)
    if name is None:
        raise malformed(names[0], "is missing")
    value = body[name] if isinstance(body[name], list) else [body[name]]
    return name, [_item(item, f"{name}.{i}") for i, item in enumerate(value)]


def _item(item: Any, field: str) -> str:
    """A text, a message without a role, or a part of one."""
    if isinstance(item, dict) and "content" in item:
        return message_text(item, field)
    return part_of(item, field) if isinstance(item, dict) else response_of(item, field)


def _asked(
    body: Any, *required: str, read: Collection[str], tasks: Collection[str] = TASKS
) -> dict[str, Any]:
    """The body, as ``members`` reads it, of a request for one vector or score for each text.

    Raises:
        InvalidRequest: it asks for another pooling task, such as a vector for each token.
    """
    read_body = members(body, *required, read=read)
    if (task := read_body.get("task")) and task not in tasks:
        raise malformed(
            "task",
            f"{printable(str(task))[:40]} is not what a reward model gives, which is one vector for"
            f" each text and nothing for its tokens: send {TASKS[0]}, or leave it out",
        )
    return read_body


def _vectors(body: Any, context: Context, kind: str, field: str) -> Translated:
    tasks = (*TASKS, "embed") if kind == "embedding" else TASKS
    body = _asked(body, read=("messages",), tasks=tasks)
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise malformed("encoding_format", "must be float or base64")
    if body.get("dimensions") is not None:
        raise malformed("dimensions", "scores cannot be shortened: leave it out")

    def entry(index: int, score: Score) -> dict[str, Any]:
        values: list[float] | str = vector(score, context)
        if encoding == "base64":
            values = base64.b64encode(array("f", values)).decode()
        return {"object": kind, "index": index, field: values, "truncated": score.truncated}

    return _translated(body, context, kind, entry)


def _translated(body: dict[str, Any], context: Context, kind: str, entry: Any) -> Translated:
    field = one_of(body, ("messages", "input"))
    if field is None:
        raise malformed("input", "is missing; or give messages")
    pairs = (
        [dialogue(body[field], field, context)]
        if field == "messages"
        else inputs(body[field], field)
    )

    def answer(scores: list[Score]) -> dict[str, Any]:
        data = [entry(index, score) for index, score in enumerate(scores)]
        return {**_head(kind, "list", context), "data": data, "usage": usage(scores)}

    return Translated(field, pairs, answer, *_truncation(body))


def _truncation(body: dict[str, Any]) -> tuple[Truncate | None, int | None]:
    """The truncation that the body asks for, and the number of tokens that it allows."""
    limit = body.get("truncate_prompt_tokens")
    if limit is None:
        return None, None
    if limit == -1:  # to vLLM, the model's own limit
        return "prompt_start", None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise malformed("truncate_prompt_tokens", "must be a whole number of at least 1, or -1")
    return "prompt_start", limit


def _head(kind: str, object_: str, context: Context) -> dict[str, Any]:
    return {
        "id": f"{kind}-{context.request_id}",
        "object": object_,
        "created": int(time.time()),
        "model": context.model.name,
    }
