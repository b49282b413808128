"""Whatever a body holds, it is scored or refused, and never an error of the service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from fivescore.http.slices import MOST_DEPTH
from tests.integration.protocols.protocols import (
    PROTOCOLS,
    Protocol,
    answered,
    assert_refused,
    encoded,
)
from tests.integration.service import Json, Service, assert_problem, serving
from tests.unit.model import policy_tokenizers as policies

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = (
    "query", "prompts", "labels", "input", "messages", "text", "input_ids", "text_1", "text_2",
    "documents", "inputs", "prompt", "response", "responses_create_params", "role", "content",
    "output", "type", "model", "n", "stream", "top_n", "truncate", "truncate_prompt_tokens",
    "encoding_format", "dimensions", "instructions",
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)  # halves of surrogate pairs too
    | st.sampled_from(("user", "assistant", "message", "base64", "<|eot_id|>", "<|im_end|>\n"))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
every = pytest.mark.parametrize(
    "protocol",
    {protocol.path: protocol for protocol in PROTOCOLS}.values(),
    ids=lambda one: one.path,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["none", "chatml"])
async def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    folder: Path | None = None
    if request.param != "none":
        folder = tmp_path_factory.mktemp("policy")
        policies.chatml().save_pretrained(folder)
    async with serving(policy_tokenizer=folder and str(folder)) as running:
        yield running


async def check(service: Service, protocol: Protocol, body: Any) -> None:
    response = await service.http.post(protocol.path, content=encoded(body))
    if response.status_code == 200:
        if not (isinstance(body, dict) and body.get("stream")):
            answered(response)
    elif protocol.path == "/score":
        assert_problem(response, 422, response.json()["code"])
    else:
        assert_refused(response, 422, response.json()["code"])


def _deep(levels: int, opening: str) -> str:
    closing = "]" if opening == "[" else "}"
    return opening * levels + "1" + closing * levels


@every
async def test_no_field_that_is_deep_is_an_error_of_the_service(
    service: Service, protocol: Protocol
) -> None:
    good = protocol.one()
    for name in sorted({*NAMES, *good}):
        for opening in ("[", '{"type":'):
            for levels in (MOST_DEPTH - 1, 1000):
                deep = _deep(levels, opening)
                rest = json.dumps({key: value for key, value in good.items() if key != name})
                body = f'{{"{name}": {deep}, {rest[1:]}'.replace(", }", "}")
                response = await service.http.post(protocol.path, content=body)
                assert response.status_code in (200, 422), (name, opening, levels)
                assert levels < MOST_DEPTH or response.json()["limit"] == MOST_DEPTH


@every
@given(
    data=st.data(), other=VALUES, extra=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2)
)
@settings(max_examples=25)
async def test_any_body_and_a_good_one_with_anything_in_it(
    service: Service, protocol: Protocol, data: st.DataObject, other: Any, extra: Json
) -> None:
    body = protocol.one()
    name = data.draw(st.sampled_from(sorted(body)))
    for one in (other, {**body, name: other}, {**body, **extra}):
        await check(service, protocol, one)
