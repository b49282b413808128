"""Every route that trainers score by, in one table: what to send, where the rewards are.

The table knows the wire formats and nothing of the service, so that tests on the fake engine and on
the real one ask in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from fivescore.settings import DEMO
from tests.integration.service import Service, assert_problem, strict

Json = dict[str, Any]

QUESTION = "What is 1+1?"
PAIRS: tuple[Json, ...] = (
    {"prompt": QUESTION, "response": "1+1=2"},
    {"prompt": QUESTION, "response": "3"},
    {"prompt": QUESTION, "response": "Two, as every child knows."},
)
"""One prompt, because ``/rerank`` has one."""


@cache
def tokenizer() -> Any:
    """The demo reward model's own."""
    return AutoTokenizer.from_pretrained(DEMO)


def conversation(pair: Json) -> list[Json]:
    """The pair as messages, of which the last is the response."""
    prompt = pair["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [*turns, {"role": "assistant", "content": pair["response"]}]


def rendered(pair: Json) -> str:
    """The text that the demo's chat template makes of a pair; it starts with BOS."""
    return str(tokenizer().apply_chat_template(conversation(pair), tokenize=False))


def rendered_prompt(pair: Json) -> str:
    """What a policy with the demo's chat template would go on from."""
    turns = conversation(pair)[:-1]
    return str(tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def token_ids(pair: Json) -> list[int]:
    ids: list[int] = tokenizer().apply_chat_template(
        conversation(pair), tokenize=True, return_dict=False
    )
    return ids


@dataclass(frozen=True)
class Protocol:
    """One wire format.

    ``body`` takes pairs of one prompt; ``rewards`` reads an answer in their order; ``flags`` reads
    which of them were truncated, and is None where the header alone says so.
    """

    name: str
    path: str
    body: Callable[[Sequence[Json]], Json]
    rewards: Callable[[Any], list[float]]
    flags: Callable[[Any], list[bool]] | None
    many: bool = True

    def one(self, pair: Json = PAIRS[0]) -> Json:
        return self.body([pair])


def _data(*keys: str | int) -> Callable[[Any], list[Any]]:
    """Read each entry of ``data`` down some keys, in the order of their ``index``."""

    def read(answer: Any) -> list[Any]:
        assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
        return [reduce(getitem, keys, entry) for entry in answer["data"]]

    return read


def _ranked(key: str) -> Callable[[Any], list[Any]]:
    def read(answer: Any) -> list[Any]:
        return [entry[key] for entry in sorted(answer["results"], key=lambda e: int(e["index"]))]

    return read


def _texts(pairs: Sequence[Json]) -> list[str]:
    return [rendered(pair) for pair in pairs]


def _listed(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


def _response_body(pairs: Sequence[Json]) -> Json:
    *prompt, answer = conversation(pairs[0])
    said = {"type": "output_text", "text": answer["content"], "annotations": []}
    message = {"type": "message", "role": "assistant", "content": [said]}
    response = {"id": "resp_1", "object": "response", "output": [message]}
    return {"responses_create_params": {"input": prompt}, "response": response}


def _openrlhf(pairs: Sequence[Json]) -> Json:
    prompts = [rendered_prompt(pair) for pair in pairs]
    return {"query": _texts(pairs), "prompts": prompts, "labels": [None] * len(pairs)}


def _sides(left: str, right: str) -> Callable[[Sequence[Json]], Json]:
    return lambda pairs: {
        left: [pair["prompt"] for pair in pairs],
        right: [pair["response"] for pair in pairs],
    }


def _reranking(pairs: Sequence[Json]) -> Json:
    return {"query": pairs[0]["prompt"], "documents": [pair["response"] for pair in pairs]}


def _tei(answer: Any) -> list[float]:
    labels = answer if isinstance(answer[0], list) else [answer]
    return [next(one["score"] for one in each if one["label"] == "reward") for each in labels]


def _vector(name: str, path: str, *keys: str | int) -> Protocol:
    flags = _data("truncated")
    return Protocol(name, path, lambda pairs: {"input": _texts(pairs)}, _data(*keys), flags)


PROTOCOLS = (
    Protocol(
        "openrlhf", "/get_reward", _openrlhf, lambda a: list(a["rewards"]),
        lambda a: list(a["truncated"]),
    ),
    _vector("vllm-classify", "/classify", "probs", -1),
    _vector("vllm-pooling", "/pooling", "data", -1),
    _vector("embeddings", "/v1/embeddings", "embedding", -1),
    Protocol(
        "vllm-classify-ids", "/classify",
        lambda pairs: {"input": [token_ids(pair) for pair in pairs]},
        _data("probs", -1), _data("truncated"),
    ),
    Protocol(
        "vllm-classify-messages", "/classify",
        lambda pairs: {"messages": conversation(pairs[0])},
        _data("probs", -1), _data("truncated"), many=False,
    ),
    Protocol(
        "vllm-score", "/score", _sides("text_1", "text_2"), _data("score"), _data("truncated")
    ),
    Protocol(
        "vllm-v1-score", "/v1/score", _sides("queries", "documents"), _data("score"),
        _data("truncated"),
    ),
    Protocol(
        "vllm-rerank", "/rerank", _reranking, _ranked("relevance_score"), _ranked("truncated")
    ),
    Protocol(
        "sglang-text", "/classify", lambda pairs: {"text": _texts(pairs)},
        lambda a: [one["embedding"][-1] for one in _listed(a)],
        lambda a: [one["meta_info"]["truncated"] for one in _listed(a)],
    ),
    Protocol(
        "sglang-ids", "/classify",
        lambda pairs: {"input_ids": [token_ids(pair) for pair in pairs]},
        lambda a: [one["embedding"][-1] for one in _listed(a)],
        lambda a: [one["meta_info"]["truncated"] for one in _listed(a)],
    ),
    Protocol(
        "nim", "/v1/chat/completions",
        lambda pairs: {"model": "fivescore-demo", "messages": conversation(pairs[0])},
        lambda a: [a["reward"]], lambda a: [a["truncated"]], many=False,
    ),
    Protocol(
        "slime", "/reward",
        lambda pairs: {**pairs[0], "label": None},
        lambda a: [a], None, many=False,
    ),
    Protocol(
        "llama-factory", "/v1/score/evaluation",
        lambda pairs: {"model": "model", "messages": _texts(pairs)},
        lambda a: list(a["scores"]), None,
    ),
    Protocol(
        "nemo-gym", "/verify", _response_body,
        lambda a: [a["reward"]], lambda a: [a["truncated"]], many=False,
    ),
    Protocol(
        "tei", "/predict",
        lambda pairs: {"inputs": [[pair["prompt"], pair["response"]] for pair in pairs]},
        _tei, None,
    ),
)  # fmt: skip
BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}
SEVERAL = tuple(protocol for protocol in PROTOCOLS if protocol.many)
of_trainers_alone = pytest.mark.parametrize(
    "protocol", [one for one in PROTOCOLS if one.path != "/score"], ids=lambda one: one.name
)
"""What is not JSON on /score is not known to be a trainer's."""


def encoded(body: Any) -> bytes:
    """JSON in which halves of surrogate pairs stand as escapes, as Python's clients write them."""
    return json.dumps(body).encode()


def answered(response: httpx.Response) -> Any:
    """The body of an answer: JSON proper, no NaN and no null reward in it."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    return strict(response)


def assert_refused(response: httpx.Response, status: int, code: str) -> Json:
    """A problem document that OpenAI's clients can read too, with nothing of an answer in it."""
    problem = assert_problem(response, status, code)
    assert problem["error"] == {
        "message": problem["detail"], "type": code, "param": None, "code": status,
    }  # fmt: skip
    assert not {"rewards", "data", "choices", "reward", "embedding"} & problem.keys()
    return problem


async def post(service: Service, protocol: Protocol, *bodies: Any) -> httpx.Response:
    (body,) = bodies or (protocol.one(),)
    return await service.http.post(protocol.path, content=encoded(body))


def demo_with_template(folder: Path, template: str) -> str:
    """A folder with the demo checkpoint and another chat template."""
    for file in Path(DEMO).iterdir():
        (folder / file.name).symlink_to(file)
    manifest = json.loads((folder / "reward.json").read_text())
    del manifest["proof"]  # which is of the demo's own template
    for name, text in (("chat_template.jinja", template), ("reward.json", json.dumps(manifest))):
        (folder / name).unlink()
        (folder / name).write_text(text)
    return str(folder)
