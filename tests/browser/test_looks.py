"""Readable by everybody: axe-core's rules, small screens, both colour schemes, names and roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")

from playwright.async_api import Browser, Page, expect

from tests.browser.screenshots import VIEWS, take
from tests.browser.visit import Visit, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = {"width": 320, "height": 640}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LONG = "unbroken" * 40


async def violations(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)
    found = await page.evaluate("(tags) => axe.run({ runOnly: tags })", RULES)
    assert found["passes"], "axe checked nothing"
    return [
        f"{violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


async def fill_every_corner(visit: Visit) -> None:
    """Ranks, a tie, an error in place, and every fold open."""
    await visit.ready()
    await visit.score("Q " + LONG, "A", "A", LONG + " many words" * 200)
    for fold in await visit.page.locator("details").all():
        await fold.evaluate("(element) => { element.open = true; }")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [SMALL, {"width": 1280, "height": 800}], ids=["320", "1280"])
async def test_axe_finds_nothing(
    browser: Browser, odd: str, axe: str, scheme: Any, viewport: Any
) -> None:
    async with visiting(browser, odd, color_scheme=scheme, viewport=viewport) as visit:
        await visit.ready()
        assert await violations(visit.page, axe) == []
        await fill_every_corner(visit)
        assert await violations(visit.page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_where_a_key_is_wanted_or_scoring_failed(
    browser: Browser, keyed: str, axe: str, scheme: Any
) -> None:
    async with visiting(browser, keyed, failures=True, color_scheme=scheme) as visit:
        await visit.ready()
        await visit.fill("Q", "A")
        await visit.button("Score").click()
        await expect(visit.problem).not_to_be_empty()
        assert await violations(visit.page, axe) == []


async def test_dark_is_dark(browser: Browser, plain: str) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        async with visiting(browser, plain, color_scheme=scheme) as visit:
            colours = await visit.page.evaluate(
                "['body', '#prompt', '.card'].map((selector) => document.querySelector(selector))"
                ".map((element) => getComputedStyle(element).backgroundColor.match(/\\d+/g))"
            )
            brightness[scheme] = [sum(map(int, colour)) / 3 for colour in colours]
    assert min(brightness["light"]) > 200
    assert max(brightness["dark"]) < 60


async def width(page: Page) -> tuple[int, int]:
    """What there is to see and what fits, in CSS pixels."""
    full, fits = await page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    return full, fits


async def test_a_phone_needs_no_sideways_scrolling(browser: Browser, odd: str) -> None:
    async with visiting(browser, odd, viewport=SMALL) as visit:
        await fill_every_corner(visit)
        full, fits = await width(visit.page)
        assert full <= fits == SMALL["width"]


async def test_a_phone_needs_no_sideways_scrolling_for_a_key(browser: Browser, keyed: str) -> None:
    async with visiting(browser, keyed, viewport=SMALL) as visit:
        await expect(visit.page.get_by_label("Key", exact=True)).to_be_visible()
        full, fits = await width(visit.page)
        assert full <= fits == SMALL["width"]


async def test_a_phone_shows_the_ranking_once_it_is_there(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain, viewport=SMALL) as visit:
        await visit.ready()
        await visit.score("Q", "A", "B")
        await expect(visit.page.get_by_role("heading", name="Ranking")).to_be_in_viewport()


async def test_a_screen_reader_hears_names_ranks_and_numbers(browser: Browser, odd: str) -> None:
    async with visiting(browser, odd) as visit:
        await fill_every_corner(visit)
        tree = await visit.page.locator("body").aria_snapshot()
    for line in (
        '- textbox "Prompt"',
        '- group "Responses"',
        '- textbox "Response A"',
        '- button "Remove response A"',
        '- heading "Ranking" [level=2]',
        '- heading "1. Response A" [level=3]',
        '- heading "Response C" [level=3]',
        "- term: safety × 2",
        '- region "curl command"',
    ):
        assert line in tree, tree
    assert tree.count("- status") >= 2
    assert "- alert" in tree


async def test_what_happens_is_announced(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        live = visit.page.locator("[role=status], [role=alert], [aria-live]")
        named = await live.evaluate_all("(elements) => elements.map((element) => element.id)")
        assert set(named) == {"state", "status", "problem", "prompt-hint", "key-hint"}


async def test_it_can_be_read_with_forced_colours_and_without_motion(
    browser: Browser, plain: str
) -> None:
    async with visiting(browser, plain, forced_colors="active", reduced_motion="reduce") as visit:
        await visit.ready()
        await visit.score("Q", "A")
        fill, track = await visit.page.locator("dd .bar").first.evaluate(
            "(bar) => [bar.firstChild, bar].map((e) => getComputedStyle(e).backgroundColor)"
        )
        assert fill != track
        moving = await visit.page.evaluate("document.getAnimations().length")
        assert moving == 0


async def test_the_pictures_of_the_documents_can_be_taken(
    browser: Browser, plain: str, tmp_path: Path
) -> None:
    files = await take(browser, plain, tmp_path)
    assert [file.name for file in files] == [f"{name}.png" for name in VIEWS]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
