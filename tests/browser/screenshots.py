"""Pictures of the page for the documents, of a running service.

``python -m tests.browser.screenshots --url http://127.0.0.1:8000 --output docs/images``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, expect

from tests.browser.chromium import chromium

VIEWS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"},
    "page-phone": {
        "viewport": {"width": 360, "height": 740},
        "color_scheme": "light",
        "has_touch": True,
        "is_mobile": True,
    },
}
READY_MS = 300_000
RATES_MS = 60_000


async def take(browser: Browser, url: str, output: Path, key: str = "") -> list[Path]:
    """Score the page's own example in every view; returns the PNG files."""
    files = []
    for name, view in VIEWS.items():
        context = await browser.new_context(device_scale_factor=2, **view)
        page = await context.new_page()
        await page.goto(url)
        if key:
            await page.get_by_label("Key", exact=True).fill(key)
            await page.get_by_role("button", name="Use this key").click()
        await expect(page.locator("#state")).to_have_text("ready", timeout=READY_MS)
        await page.get_by_role("button", name="Load an example").click()
        await page.get_by_role("button", name="Score").click()
        await expect(page.locator("#ranking li")).to_have_count(3, timeout=RATES_MS)
        await expect(page.locator("#p50")).not_to_have_text("–", timeout=RATES_MS)
        await page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        files.append(output / f"{name}.png")
        await page.screenshot(path=files[-1], full_page=True)
        await context.close()
    return files


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        parser.error("there is no chromium on the PATH; 'make tools' installs it")
    async with chromium(program) as browser:
        key = os.environ.get("FIVESCORE_API_KEY", "")
        await take(browser, given.url, given.output, key)


if __name__ == "__main__":
    asyncio.run(_main())
