"""A visit to the page that remembers what the page asked for and what the browser complained of."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.async_api import Browser, Locator, Page, expect

Json = dict[str, Any]

PATIENCE_MS = 60_000
"""How long anything may take to appear on a busy machine; nothing waits longer than it must."""
NETWORK = re.compile(r"Failed to load resource")
"""The browser's own note of an answer that is no 2xx, or of none."""

expect.set_options(timeout=PATIENCE_MS)


class Visit:
    """``requests`` and ``complaints`` grow while ``page`` is open."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[tuple[str, str]] = []
        self.complaints: list[str] = []
        page.context.on("request", lambda asked: self.requests.append((asked.method, asked.url)))
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    @property
    def paths(self) -> list[str]:
        """What was asked, method and path, in order."""
        return [f"{method} {urlsplit(url).path}" for method, url in self.requests]

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_label("Prompt", exact=True)

    @property
    def state(self) -> Locator:
        return self.page.locator("#state")

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def cards(self) -> Locator:
        return self.page.locator("#ranking > li")

    @property
    def problem(self) -> Locator:
        return self.page.locator("#problem")

    def response(self, letter: str) -> Locator:
        return self.page.get_by_label(f"Response {letter}", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def ready(self) -> None:
        await expect(self.state).to_have_text("ready")

    async def fill(self, prompt: str, *responses: str) -> None:
        await self.prompt.fill(prompt)
        for letter, text in zip("ABCDEFGH", responses, strict=False):
            if await self.response(letter).count() == 0:
                await self.button("Add a response").click()
            await self.response(letter).fill(text)

    async def score(self, prompt: str, *responses: str) -> None:
        """Score what is given and wait for the answer."""
        await self.fill(prompt, *responses)
        await self.button("Score").click()
        await expect(self.cards).to_have_count(len(responses))

    async def titles(self) -> list[str]:
        return await self.cards.locator("h3").all_inner_texts()


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, failures: bool = False, path: str = "/", **options: Any
) -> AsyncIterator[Visit]:
    """Open the page; at the end nothing of it may have gone to another host or gone wrong.

    Args:
        failures: whether the test makes requests fail, of which the browser writes a note.
        options: of the browser's context.
    """
    context = await browser.new_context(**options)
    try:
        visit = Visit(await context.new_page(), url)
        await visit.page.goto(url + path)
        yield visit
        assert {urlsplit(asked).netloc for _, asked in visit.requests} == {urlsplit(url).netloc}
        unexpected = [c for c in visit.complaints if not (failures and NETWORK.search(c))]
        assert unexpected == []
    finally:
        await context.close()


async def ask(url: str, prompt: Any, *responses: str, **options: Any) -> list[Json]:
    """What ``POST /score`` itself answers to the same pairs."""
    pairs = [{"prompt": prompt, "response": response} for response in responses]
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{url}/score", json={"pairs": pairs, **options})
    assert answer.status_code == 200, answer.text
    entries: list[Json] = answer.json()["scores"]
    return entries


def shown(number: float, places: int) -> str:
    """A number as the page writes it."""
    return f"{number:.{places}f}".replace("-", "−")
