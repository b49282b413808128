"""A large body is answered as a small one is, and the event loop has no part in its reading."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from fivescore.http import body as bodies
from fivescore.http import request as requests
from fivescore.http import slices
from fivescore.http.beside import free_pairs
from tests.integration.protocols.protocols import PROTOCOLS, encoded
from tests.integration.service import PAIR, Service, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
NATIVE = ("/score", {"pairs": [PAIR, {"prompt": 1}, PAIR]})


class Large:
    """Makes every body a large one; ``threads`` are those that read them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.threads: set[int] = set()
        self.freed: list[list[Any]] = []
        read = slices.read

        def spied(body: bytes) -> Any:
            self.threads.add(threading.get_ident())
            return read(body)

        def freed(pairs: list[Any]) -> None:
            free_pairs(pairs)
            self.freed.append(pairs)

        patch.setattr(bodies, "LARGE", 0)
        patch.setattr(slices, "SLICE", 32)
        patch.setattr(slices, "_WINDOW", 64)
        patch.setattr(slices, "read", spied)
        patch.setattr(requests, "free_pairs", freed)


async def ask(service: Service, path: str, body: Any) -> Any:
    """The status, and the answer without what differs from one request to the next."""
    response = await service.http.post(path, content=body)
    text = re.sub(
        r'[0-9a-f]{32}|(?<="created":)\d+|(?<=e2e_latency":)[0-9.e-]+', "0", response.text
    )
    return response.status_code, json.loads(text) if text.startswith(("{", "[")) else text


async def test_the_messages_of_all_prompts_have_a_limit(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"prompt": [{"role": "user", "content": "Q"}] * 3, "response": "A"}
    Large(monkeypatch)
    monkeypatch.setattr(requests, "MOST_MESSAGES", 6)
    assert len(await service.scores(asked, PAIR, asked)) == 3
    refused = await service.score({"pairs": [asked, asked, asked]})
    problem = assert_problem(refused, 422, "invalid_request")
    assert problem["limit"] == 6
    assert "9 messages together, the limit is 6: split the request" in problem["detail"]


ASKED = [pytest.param(one.path, one.one(), id=one.name) for one in PROTOCOLS]


@pytest.mark.parametrize(("path", "body"), [*ASKED, pytest.param(*NATIVE, id="native")])
async def test_a_large_body_is_answered_as_a_small_one_and_read_beside_the_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    content = encoded(body)
    broken = content[:-1]
    expected = await ask(service, path, content)
    refused = await ask(service, path, broken)
    with monkeypatch.context() as patch:
        large = Large(patch)
        assert await ask(service, path, content) == expected
        status, problem = await ask(service, path, broken)
        assert large.threads
        assert threading.get_ident() not in large.threads
        await service.until(lambda: large.freed == [[]])
    assert (status, sorted(problem)) == (refused[0], sorted(refused[1]))
