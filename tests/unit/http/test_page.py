"""``GET /`` without a browser: what is served, with which headers, and to whom."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest

from tests.integration.service import PAIR, assert_problem, serving

ROOT = Path(__file__).parents[3]
MOST_BYTES = 32 * 1024
"""The page is meant to be small: no framework fits into this."""
KEY = "s3cret-Key+/=:1"


def policy_of(response: httpx.Response) -> dict[str, list[str]]:
    """The Content-Security-Policy, directive by directive."""
    directives = response.headers["Content-Security-Policy"].split("; ")
    return {name: values for name, *values in (directive.split() for directive in directives)}


def inline(document: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", document, re.DOTALL)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def get(path: str = "/", **settings: object) -> httpx.Response:
    async with serving(**settings) as service:  # type: ignore[arg-type]
        return await service.http.get(path)


async def test_the_page_is_served_at_the_root() -> None:
    response = await get()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.text.startswith("<!doctype html>")
    assert "{{" not in response.text.split("<script", 1)[0]
    assert len(response.content) <= MOST_BYTES


async def test_head_answers_like_get() -> None:
    async with serving() as service:
        shown, head = await service.http.get("/"), await service.http.head("/")
    assert head.status_code == 200
    for name in ("Content-Security-Policy", "Content-Type", "Content-Length"):
        assert head.headers[name] == shown.headers[name]


async def test_the_policy_allows_its_own_script_and_style_and_nothing_else() -> None:
    response = await get()
    policy = policy_of(response)
    assert policy.pop("default-src") == ["'none'"]
    assert policy.pop("script-src") == [digest(text) for text in inline(response.text, "script")]
    assert policy.pop("style-src") == [digest(text) for text in inline(response.text, "style")]
    assert policy == {
        "connect-src": ["'self'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }


async def test_the_document_needs_nothing_but_itself() -> None:
    document = (await get()).text
    addresses = set(re.findall(r"""\b(?:src|href|action)\s*=\s*["']([^"']*)""", document))
    assert {address.partition(",")[0] for address in addresses} == {"data:image/svg+xml", "docs"}
    assert set(re.findall(r"\bhttps?://[^\s'\"%)]+", document)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in document
    assert all("url(" not in style for style in inline(document, "style"))
    assert " style=" not in document  # the policy would refuse it


async def test_no_script_writes_markup() -> None:
    script = inline((await get()).text, "script")[0]
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in script


@pytest.mark.parametrize(("keys", "said"), [((), "none"), (KEY, "required")])
async def test_the_page_is_open_and_says_whether_a_key_is_wanted(keys: object, said: str) -> None:
    async with serving(name="unreleased-model", api_key=keys) as service:
        response = await service.http.get("/")
        assert response.status_code == 200
        assert f'data-key="{said}"' in response.text
        assert "unreleased-model" not in response.text
        assert KEY not in response.text


@pytest.mark.parametrize(
    "path", ["/manifest", "/v1/models", "/version", "/metrics", "/score", "//", "/page.js", "/docs"]
)
async def test_with_the_page_open_everything_else_still_wants_the_key(path: str) -> None:
    async with serving(api_key=KEY) as service:
        response = await service.http.get(httpx.URL(f"http://localhost{path}"))
        assert_problem(response, 401, "unauthorized")


async def test_the_page_is_there_while_the_model_loads_and_after_it_failed() -> None:
    async with serving(options={"load_seconds": 3600}, settle=False) as service:
        assert (await service.http.get("/")).status_code == 200
    async with serving(options={"die_after": 1}, engine_restarts=0) as service:
        await service.score({"pairs": [PAIR]})
        async with asyncio.timeout(20):
            while not service.failures:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.01)
        assert service.scorer.service.state == "failed"
        assert (await service.http.get("/")).status_code == 200
