"""What a request holds beside texts is refused by name on every route, and never left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from fivescore.content import CALLS
from tests.integration.protocols.protocols import (
    PAIRS,
    PROTOCOLS,
    assert_refused,
    demo_with_template,
)
from tests.integration.service import Json, Service, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

TURNS: list[Json] = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "Again"},
    {"role": "assistant", "content": "B"},
]


def _gym(turns: list[Json]) -> Json:
    return {
        "responses_create_params": {"input": turns[:-1]},
        "response": {"output": turns[-1:]},
    }


def _apart(turns: list[Json]) -> Json:
    return {"prompt": turns[:-1], "response": turns[-1]["content"]}


Route = tuple[str, Callable[[list[Json]], Json], str]
BY_MESSAGES: dict[str, Route] = {
    **{path: (path, lambda turns: {"messages": turns}, "messages")
       for path in ("/classify", "/pooling", "/v1/embeddings", "/v1/chat/completions")},
    "slime": ("/reward", _apart, "prompt"),
    "nemo-gym": ("/verify", _gym, "responses_create_params.input"),
    "native": ("/score", _apart, "prompt"),
}  # fmt: skip
"""Routes that take messages, and the field that holds them."""
BY_REQUEST: dict[str, tuple[str, Json, str]] = {
    **{one.name: (one.path, one.one(), "") for one in PROTOCOLS},
    **{name: (path, body(TURNS), "") for name, (path, body, _) in BY_MESSAGES.items()},
    "native batch": ("/score", {"pairs": [PAIRS[0]]}, ""),
}
"""Every route, with each kind of body that it takes."""

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}
SAID = {"type": "text", "text": "A"}
IN_MESSAGES: tuple[tuple[Json, str], ...] = (
    ({"tool_calls": [CALL]}, "tool_calls"),
    ({"tool_calls": [{}]}, "tool_calls.0.name"),
    ({"tool_calls": [{**CALL, "type": "custom"}]}, "tool_calls.0.type"),
    ({"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
     "tool_calls.0.function.arguments"),
    ({"content": None, "tool_calls": [CALL]}, "tool_calls"),
    ({"function_call": CALL["function"]}, "function_call"),
    *(({name: "because"}, name) for name in (
        "reasoning_content", "reasoning", "thinking", "refusal", "unheard_of")),
    ({"reasoning_details": [{"type": "reasoning.text", "text": "because"}]}, "reasoning_details"),
    ({"audio": {"id": "a"}}, "audio"),
    *(({name: ["x"]}, name) for name in ("images", "videos", "files", "documents")),
    *(({name: True}, name) for name in ("prefix", "partial")),
    ({"content": None}, "content"),
    ({"content": ...}, "content"),
    ({"content": []}, "content"),
    *(({"content": [SAID, part]}, "content.1") for part in (
        IMAGE, AUDIO, {**IMAGE, "text": "x"}, {"type": "video_url", "video_url": {"url": "x"}},
        {"type": "file", "file": {"file_id": "f"}}, {"type": "input_image", "image_url": "x"},
        {"type": "refusal", "refusal": "no"}, {"type": "thinking", "thinking": "because"},
        {"type": "reasoning", "text": "because"}, {"type": "text"}, {"type": "text", "text": None},
    )),
    ({"content": [{**SAID, "image_url": {"url": "x"}}]}, "content.0.image_url"),
)  # fmt: skip
"""What makes a message more than text, and the field that is named."""
EMPTY: Json = {
    "tool_calls": None, "function_call": {"name": None, "arguments": None}, "refusal": None,
    "reasoning_content": "", "reasoning": None, "audio": {}, "annotations": [], "images": [None],
    "prefix": False, "provider_specific_fields": {"refusal": None, "nested": {"x": []}},
}  # fmt: skip
"""What clients send in every message."""
NO_INFLUENCE: Json = {
    "id": "m", "status": "completed", "phase": "final_answer", "name": "somebody",
    "tool_call_id": "c", "created": 1.5,
    "logprobs": {"content": [{"token": "A", "logprob": -1}]}, "prompt_token_ids": [1, 2],
    "generation_log_probs": [-0.5], "metadata": {"x": "y"}, "annotations": [{"type": "citation"}],
}  # fmt: skip
IN_REQUESTS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "functions": [{"name": "f"}],
    "documents": [{"title": "t", "text": "x"}],
    "chat_template": "{{ 1 }}",
    "chat_template_kwargs": {"enable_thinking": False, "x": 1},
    "continue_final_message": True,
    "add_generation_prompt": True,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "high",
    "images": ["x"],
    "image_data": "x",
    "video_url": "x",
    "chat_history": [{"role": "user", "content": "x"}],
    "lora_path": "x",
    "adapter_id": "x",
    "multi_modal_data": {"image": ["x"]},
}
EMPTY_REQUEST: Json = {
    "tools": [], "functions": None, "chat_template": None, "chat_template_kwargs": {},
    "continue_final_message": False, "add_generation_prompt": False, "response_format": None,
    "reasoning_effort": None, "images": [], "image_data": None, "lora_path": None,
    "multi_modal_data": {"image": []},
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


def with_turn(place: int, change: Json) -> list[Json]:
    changed = {**TURNS[place], **change}
    kept = {name: value for name, value in changed.items() if value is not ...}
    return [*TURNS[:place], kept, *TURNS[place + 1 :]]


async def refused(service: Service, path: str, body: Json, field: str, exact: bool = True) -> None:
    response = await service.http.post(path, json=body)
    native = path == "/score" and not {"text_1", "queries"} & body.keys()
    if native:
        problem = response.json()
        assert (response.status_code, "error" in problem) == (422, False), problem
    else:
        problem = assert_refused(response, 422, "invalid_request")
        (fault,) = problem["errors"]
        assert fault["field"] == field if exact else fault["field"].startswith(field)
    assert field in problem["detail"]
    assert len(problem["detail"]) <= 200


@pytest.mark.parametrize(("change", "field"), IN_MESSAGES)
@pytest.mark.parametrize("name", BY_MESSAGES)
async def test_a_message_that_is_more_than_text_is_refused(
    shared: Service, name: str, change: Json, field: str
) -> None:
    path, body, messages = BY_MESSAGES[name]
    for place in (0, 1):
        # Only an assistant's message may have calls, whatever they are.
        named = CALLS if place == 0 and CALLS in change else field
        await refused(shared, path, body(with_turn(place, change)), f"{messages}.{place}.{named}")


@pytest.mark.parametrize("name", BY_MESSAGES)
async def test_a_response_that_is_more_than_text_is_refused(shared: Service, name: str) -> None:
    path, body, messages = BY_MESSAGES[name]
    if name in ("slime", "native"):  # whose response is no message here
        turns = with_turn(3, {"content": [SAID, IMAGE]})
        await refused(shared, path, body(turns), "response", exact=False)
        return
    place = "response.output.0" if name == "nemo-gym" else f"{messages}.3"
    for change in ({"tool_calls": [CALL]}, {"reasoning_content": "because"}):
        await refused(shared, path, body(with_turn(3, change)), f"{place}.{next(iter(change))}")


@pytest.mark.parametrize("name", BY_MESSAGES)
async def test_empty_fields_and_those_without_influence_change_nothing(
    shared: Service, name: str
) -> None:
    path, body, _ = BY_MESSAGES[name]
    changes = (EMPTY,) if name == "native" else (EMPTY, NO_INFLUENCE)
    plain = await shared.http.post(path, json=body(TURNS))
    assert plain.status_code == 200
    for change in changes:
        turns = [{**turn, **change} for turn in TURNS]
        answer = await shared.http.post(path, json=body(turns))
        assert answer.status_code == 200, answer.text
        assert rewards(answer.json()) == rewards(plain.json())


def rewards(answer: Any) -> Any:
    """All numbers of an answer that a score may be among."""
    if isinstance(answer, float):
        return [answer]
    if isinstance(answer, dict):
        kept = answer.keys() - {"created", "responses_create_params", "response"}
        return [number for name in sorted(kept) for number in rewards(answer[name])]
    return [number for one in answer for number in rewards(one)] if isinstance(answer, list) else []


@pytest.mark.parametrize("field", IN_REQUESTS)
@pytest.mark.parametrize("name", BY_REQUEST)
async def test_a_request_for_more_than_texts_is_refused(
    shared: Service, name: str, field: str
) -> None:
    path, body, place = BY_REQUEST[name]
    if field in body:  # the responses of vLLM's score and rerank are called documents
        return
    if path == "/verify":
        parameters = {**body["responses_create_params"], field: IN_REQUESTS[field]}
        body = {**body, "responses_create_params": parameters}
        place = "responses_create_params."
    else:
        body = {**body, field: IN_REQUESTS[field]}
    await refused(shared, path, body, f"{place}{field}")


@pytest.mark.parametrize("name", BY_REQUEST)
async def test_a_request_with_empty_fields_is_answered(shared: Service, name: str) -> None:
    path, body, _ = BY_REQUEST[name]
    answer = await shared.http.post(path, json={**EMPTY_REQUEST, **body})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"response": {"output": [{"type": "function_call", "name": "f"}, TURNS[3]]}}, "output.0"),
        ({"response": {"output": [{"type": "reasoning", "summary": [SAID]}, TURNS[3]]}},
         "output.0"),
        ({"response": {"output": [TURNS[0]]}}, "response.output"),
        ({"responses_create_params": {"input": "Q", "text": {"format": {"type": "json_schema"}}}},
         "text.response_format"),
        *(({"responses_create_params": {"input": "Q", name: {"id": "x"}}}, name)
          for name in ("previous_response_id", "prompt", "reasoning")),
        ({"documents": ["x"]}, "documents"),
    ],
)  # fmt: skip
async def test_nemo_gyms_items_and_parameters_that_are_no_texts_are_refused(
    shared: Service, change: Json, field: str
) -> None:
    answer = await shared.http.post("/verify", json={**_gym(TURNS), **change})
    problem = assert_refused(answer, 422, "invalid_request")
    assert problem["errors"][0]["field"].endswith(field)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/classify", {"input": "x", "text": "y"}, "input"),
        ("/classify", {"text": "x", "input_ids": [1]}, "input_ids"),
        ("/pooling", {"input": "x", "messages": TURNS}, "input"),
        ("/v1/score", {"text_1": "x", "text_2": "y", "messages": TURNS}, "messages"),
        ("/get_reward", {"query": ["x"], "messages": TURNS}, "messages"),
        ("/reward", {"prompt": "x", "response": "y", "messages": TURNS}, "messages"),
        ("/v1/score", {"text_1": "x", "query": "y", "text_2": "z"}, "query"),
        ("/rerank", {"query": "x", "documents": [{"text": "y", "title": "t"}]},
         "documents.0.title"),
        ("/v1/score", {"text_1": "x", "text_2": [{"content": [SAID, IMAGE]}]},
         "text_2.0.content.1"),
        *((path, {**body, "task": task}, "task")
          for path, body in (("/pooling", {"input": "x"}), ("/classify", {"input": "x"}),
                             ("/v1/embeddings", {"input": "x"}),
                             ("/rerank", {"query": "x", "documents": ["y"]}),
                             ("/v1/score", {"text_1": "x", "text_2": "y"}))
          for task in ("token_classify", "token_embed", "plugin", ["classify"])),
    ],
)  # fmt: skip
async def test_another_input_or_task_beside_the_first_is_refused(
    shared: Service, path: str, body: Json, field: str
) -> None:
    await refused(shared, path, body, field)


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo with a template that raises on other roles, and renders names."""
    return demo_with_template(
        tmp_path_factory.mktemp("strict"),
        "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}"
        "{{ raise_exception('no') }}{% endif %}"
        "<|start_header_id|>{{ m.role }} {{ m.name }}<|end_header_id|>{{ m.content }}<|eot_id|>"
        "{% endfor %}",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(strict_model: str) -> AsyncIterator[Service]:
    async with serving(model=strict_model) as running:
        yield running


@pytest.mark.parametrize("name", BY_MESSAGES)
async def test_roles_and_names_are_what_the_models_template_knows(
    strict: Service, name: str
) -> None:
    path, body, messages = BY_MESSAGES[name]
    answers = [
        await strict.http.post(path, json=body([{"role": role, "content": "x"}, *TURNS]))
        for role in ("system", "developer")
    ]
    assert answers[0].status_code == 200
    assert rewards(answers[0].json()) == rewards(answers[1].json())
    turns = [*TURNS[:2], {"role": "tool", "content": "x"}, TURNS[3]]
    await refused(strict, path, body(turns), f"{messages}.2.role")
    answer = await strict.http.post(path, json=body(turns))
    assert "knows system, user, assistant" in answer.json()["detail"]
    named = await strict.http.post(path, json=body(with_turn(0, {"name": "x"})))
    assert rewards(named.json()) != rewards((await strict.http.post(path, json=body(TURNS))).json())
