"""Health, throughput and trouble, as the page shows them."""

from __future__ import annotations

import asyncio
import re
import signal

import httpx
import pytest

pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")

from playwright.async_api import Browser, expect

from tests.browser.visit import visiting
from tests.integration.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
POLL_MS = 4_000


async def test_the_model_and_what_it_can_are_told(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await expect(visit.page.locator("#model")).to_have_text("fivescore-demo")
        await expect(visit.page).to_have_title("fivescore-demo · fivescore")
        facts = visit.page.locator("#facts")
        await expect(facts).to_have_text(
            re.compile(
                r"^5 attributes · 4,096 tokens a pair · fivescore 0\.1\.0 on fake"
                r" · model [0-9a-f]{12} · unproved$"
            )
        )


async def test_throughput_is_measured_between_samples(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await expect(visit.page.locator("#inflight")).to_have_text("0 of 65,536")
        await expect(visit.page.locator("#pairs")).to_have_text("–")
        await visit.score("Q", "one", "two", "three")
        for name in ("pairs", "tokens"):
            await expect(visit.page.locator(f"#{name}")).not_to_have_text("–")
            value = await visit.page.locator(f"#{name}").inner_text()
            assert float(value.replace(",", "")) > 0, name
        await expect(visit.page.locator("#cached")).to_have_text("0 %")
        for name in ("p50", "p99"):
            await expect(visit.page.locator(f"#{name}")).to_contain_text("s")


async def test_nothing_is_asked_while_nobody_looks(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.page.clock.install()
        await visit.page.reload()
        await visit.ready()
        async with visit.page.expect_response("**/metrics"):
            await visit.page.clock.run_for(POLL_MS)
        await visit.page.evaluate(HIDE, True)
        await visit.page.wait_for_load_state("networkidle")
        asked = len(visit.requests)
        await visit.page.clock.run_for(20 * POLL_MS)
        await visit.page.wait_for_load_state("networkidle")
        assert len(visit.requests) == asked
        async with visit.page.expect_response("**/metrics"):
            await visit.page.evaluate(HIDE, False)
        assert len(visit.requests) > asked


async def test_while_the_model_loads_the_page_says_so(
    browser: Browser, loading: ServerProcess
) -> None:
    async with visiting(browser, loading.url, failures=True) as visit:
        await expect(visit.state).to_have_text("loading")
        assert visit.complaints == []
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.problem).to_contain_text("The model is loading")
        await expect(visit.problem).to_contain_text("Try again in 5 seconds.")
        await expect(visit.problem).to_contain_text("loading · request ")
        await expect(visit.status).to_have_text("Nothing was scored.")


async def until_inflight(url: str, pairs: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.timeout(60):
        while f"fivescore_inflight_pairs {pairs}.0" not in (await http.get("/metrics")).text:
            pass


async def test_a_full_service_says_when_to_come_again(
    browser: Browser, slow: ServerProcess
) -> None:
    async with (
        httpx.AsyncClient(base_url=slow.url, timeout=60) as http,
        visiting(browser, slow.url, failures=True) as visit,
    ):
        await visit.ready()
        waiting = asyncio.create_task(http.post("/score", json={"prompt": "Q", "response": "A"}))
        await until_inflight(slow.url, 1)
        await visit.fill("Q", "B")
        await visit.button("Score").click()
        await expect(visit.problem).to_contain_text("overloaded · request ")
        refused = await http.post("/score", json={"prompt": "Q", "response": "B"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        for told in (refused.json()["title"], refused.json()["detail"], "Try again in 1 second."):
            await expect(visit.problem).to_contain_text(told)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_stop_takes_the_work_back(browser: Browser, slow: ServerProcess) -> None:
    async with visiting(browser, slow.url) as visit:
        await visit.ready()
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.status).to_have_text("Scoring…")
        await until_inflight(slow.url, 1)
        await visit.button("Stop").click()
        await expect(visit.status).to_have_text("Stopped.")
        await expect(visit.button("Score")).to_be_visible()
        await until_inflight(slow.url, 0)


async def test_a_service_that_drains_and_goes_away_is_told_readably(
    browser: Browser, slow: ServerProcess
) -> None:
    async with (
        httpx.AsyncClient(base_url=slow.url, timeout=60) as http,
        visiting(browser, slow.url, failures=True) as visit,
    ):
        await visit.ready()
        waiting = asyncio.create_task(http.post("/score", json={"prompt": "Q", "response": "A"}))
        await until_inflight(slow.url, 1)
        slow.signal(signal.SIGTERM)
        await expect(visit.state).to_have_text("draining")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await expect(visit.state).to_have_text("unreachable")
        await expect(visit.page.locator("#inflight")).to_have_text("–")
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.problem).to_contain_text("The service did not answer")
        await expect(visit.cards).to_have_count(0)


async def test_what_a_proxy_says_is_told_without_its_markup(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain, failures=True) as visit:
        await visit.ready()
        await visit.page.route(
            "**/score",
            lambda route: route.fulfill(status=502, body="<h1>no</h1>", content_type="text/html"),
        )
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.problem).to_contain_text("502")
        await expect(visit.problem).not_to_contain_text("<h1>")
