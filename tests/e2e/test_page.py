"""The page in front of vLLM with the bundled demo checkpoint: what a newcomer sees first."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")

from playwright.async_api import expect

from tests.browser.chromium import chromium
from tests.browser.visit import ask, visiting
from tests.e2e.server import Server
from tests.tools import tool


async def test_the_example_on_vllm(demo: Server) -> None:
    async with chromium(tool("chromium")) as browser, visiting(browser, demo.url) as visit:
        await visit.ready()
        await visit.button("Load an example").click()
        boxes = await visit.page.locator("#responses textarea").all()
        texts = [await box.input_value() for box in boxes]
        entries = await ask(demo.url, await visit.prompt.input_value(), *texts)
        await visit.page.keyboard.press("Enter")
        await expect(visit.cards).to_have_count(3)
        best_first = sorted(zip("ABC", entries, strict=True), key=lambda e: -e[1]["reward"])
        assert await visit.titles() == [
            f"{place}. Response {letter}" for place, (letter, _) in enumerate(best_first, 1)
        ]
        for card, (_, entry) in zip(await visit.cards.all(), best_first, strict=True):
            reward = (await card.locator("strong").inner_text()).replace("−", "-")
            assert float(reward) == pytest.approx(entry["reward"], abs=1e-3)
        # The same prompt again: the last answer's tokens are in the prefix cache.
        await expect(visit.page.locator("#timing")).to_contain_text("of them cached")
        await expect(visit.cards.first).to_contain_text("from the prefix cache")
        await expect(visit.page.locator("#facts")).to_contain_text("on vllm")
