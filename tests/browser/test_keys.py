"""A service with keys: nothing is asked without one, and the key stays in the tab."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")

from playwright.async_api import Browser, expect

from tests.browser.conftest import KEY
from tests.browser.test_scoring import run
from tests.browser.visit import Visit, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def offer(visit: Visit, key: str) -> None:
    await visit.page.get_by_label("Key", exact=True).fill(key)
    await visit.page.keyboard.press("Enter")


async def test_without_a_key_only_health_is_asked(browser: Browser, keyed: str) -> None:
    async with visiting(browser, keyed) as visit:
        await visit.ready()
        await expect(visit.page.get_by_label("Key", exact=True)).to_be_focused()
        await expect(visit.page.locator("#model")).to_have_text("")
        await expect(visit.page.locator("#docs")).to_be_hidden()
        assert set(visit.paths) == {"GET /", "GET /health/live"}


async def test_a_wrong_key_is_refused_and_a_right_one_opens_everything(
    browser: Browser, keyed: str
) -> None:
    async with visiting(browser, keyed, failures=True) as visit:
        key = visit.page.get_by_label("Key", exact=True)
        await offer(visit, "schlüssel")  # no header can carry it
        assert await key.evaluate("(input) => input.validity.patternMismatch")
        assert "GET /version" not in visit.paths
        await offer(visit, "wrong")
        hint = visit.page.locator("#key-hint")
        await expect(hint).to_have_text("The service did not accept the key.")
        await expect(key).to_have_attribute("aria-invalid", "true")
        await expect(key).to_be_focused()
        await offer(visit, KEY)
        await expect(visit.page.locator("#key-form")).to_be_hidden()
        await expect(visit.prompt).to_be_focused()
        await expect(visit.page.locator("#model")).to_have_text("fivescore-demo")
        await visit.score("Q", "A", "B")
        command = await visit.page.locator("#curl").text_content() or ""
        assert '"Authorization: Bearer $FIVESCORE_API_KEY"' in command
        assert KEY not in await visit.page.content()
        assert len((await run(command, FIVESCORE_API_KEY=KEY))["scores"]) == 2
        assert all(KEY not in url for _, url in visit.requests)


async def test_scoring_without_a_key_asks_for_it(browser: Browser, keyed: str) -> None:
    async with visiting(browser, keyed, failures=True) as visit:
        await visit.ready()
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.problem).to_contain_text("The key is missing or wrong")
        await expect(visit.page.get_by_label("Key", exact=True)).to_be_focused()
        await offer(visit, KEY)
        await expect(visit.problem).to_be_empty()
        await visit.button("Score").click()
        await expect(visit.cards).to_have_count(1)


async def test_the_key_lives_in_this_tab_until_it_is_forgotten(
    browser: Browser, keyed: str
) -> None:
    async with visiting(browser, keyed) as visit:
        await offer(visit, KEY)
        await expect(visit.page.locator("#model")).to_have_text("fivescore-demo")
        await visit.page.reload()
        await expect(visit.page.locator("#model")).to_have_text("fivescore-demo")
        await expect(visit.page.locator("#key-form")).to_be_hidden()
        assert await visit.page.evaluate("localStorage.length") == 0
        assert await visit.page.context.cookies() == []
        other = await visit.page.context.new_page()
        await other.goto(keyed)
        await expect(other.get_by_label("Key", exact=True)).to_be_visible()
        await visit.button("Forget the key").click()
        await expect(visit.page.get_by_label("Key", exact=True)).to_be_focused()
        assert await visit.page.evaluate("sessionStorage.length") == 0


async def test_a_key_that_is_withdrawn_is_asked_for_again(browser: Browser, keyed: str) -> None:
    async with visiting(browser, keyed, failures=True) as visit:
        await visit.page.evaluate("sessionStorage.setItem('fivescore-key', 'withdrawn')")
        await visit.page.reload()
        await expect(visit.page.locator("#key-hint")).to_contain_text("did not accept")
        assert await visit.page.evaluate("sessionStorage.length") == 0
        await visit.prompt.focus()
        async with visit.page.expect_response("**/health/live"):
            pass
        await expect(visit.prompt).to_be_focused()


@pytest.mark.parametrize(("service", "sent"), [("keyed", None), ("plain", "proxy=1")])
async def test_the_browsers_own_credentials_are_sent_only_where_no_key_is_wanted(
    browser: Browser, request: pytest.FixtureRequest, service: str, sent: str | None
) -> None:
    # With them, some browsers answer a 401 with a password dialog of their own; without them, no
    # proxy in front of a service without keys would know its user.
    url = request.getfixturevalue(service)
    async with visiting(browser, url) as visit:
        await visit.page.context.add_cookies([{"name": "proxy", "value": "1", "url": url}])
        async with visit.page.expect_request("**/health/live") as asked:
            pass
        assert (await (await asked.value).all_headers()).get("cookie") == sent
