"""Typing, scoring, and what is shown of it, against ``POST /score`` of the same pairs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("playwright", reason="NOT CHECKED: 'make install' installs playwright")

from playwright.async_api import Browser, Error, Locator, expect

from tests.browser.conftest import HOSTILE_NAME, LIMIT, ODD_MANIFEST
from tests.browser.visit import ask, shown, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "Name a prime number."
RESPONSES = ("Seven.", "A prime number is 7, for nothing but 1 and 7 divides it.", "Eight")
FIVE = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "it's \"quoted\" $HOME `id` $(id) \\n \\' '' ! \u2028 \x07 \ud7ff 😀\nnext line\t",
)


async def edges(bar: Locator) -> tuple[float, float]:
    """Where a bar's fill begins and ends, as shares of its track."""
    left, right, start, width = await bar.evaluate(
        """(track) => {
          const [whole, fill] = [track, track.firstChild].map((e) => e.getBoundingClientRect());
          return [fill.left, fill.right, whole.left, whole.width];
        }"""
    )
    return (left - start) / width, (right - start) / width


async def shown_attributes(card: Locator) -> dict[str, str]:
    names = await card.locator("dt").all_inner_texts()
    values = await card.locator("dd").all_inner_texts()
    return {name.split()[0]: value.strip() for name, value in zip(names, values, strict=True)}


async def test_three_responses_are_ranked_as_post_score_scores_them(
    browser: Browser, plain: str
) -> None:
    entries = dict(zip("ABC", await ask(plain, PROMPT, *RESPONSES), strict=True))
    best_first = sorted(entries, key=lambda letter: -entries[letter]["reward"])
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.score(PROMPT, *RESPONSES)
        assert await visit.titles() == [
            f"{place}. Response {letter}" for place, letter in enumerate(best_first, 1)
        ]
        await expect(visit.status).to_contain_text(f"3 responses scored. Best: {best_first[0]}.")
        for place, letter in enumerate(best_first):
            card, entry = visit.cards.nth(place), entries[letter]
            assert await card.locator("strong").inner_text() == shown(entry["reward"], 3)
            assert await card.locator(".said").inner_text() == RESPONSES["ABC".index(letter)]
            attributes = await shown_attributes(card)
            assert list(attributes) == FIVE
            assert attributes == {name: shown(entry[name], 2) for name in FIVE}
            await expect(card).to_contain_text(f"{entry['tokens']} tokens")


async def test_bars_are_as_long_as_the_numbers_beside_them(browser: Browser, plain: str) -> None:
    entries = await ask(plain, PROMPT, *RESPONSES)
    best_first = sorted(entries, key=lambda entry: -entry["reward"])
    most = max(4, *(-(-entry[name] // 1) for entry in entries for name in FIVE))
    rewards = -(-best_first[0]["reward"] // 1)
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.score(PROMPT, *RESPONSES)
        await expect(visit.status).to_contain_text(f"Bars run from 0 to {most:.0f}.")
        for place, entry in enumerate(best_first):
            card = visit.cards.nth(place)
            assert await edges(card.locator(".bar.reward")) == pytest.approx(
                (0, entry["reward"] / rewards), abs=0.01
            )
            for row, name in enumerate(FIVE):
                drawn = await edges(card.locator("dd .bar").nth(row))
                assert drawn == pytest.approx((0, entry[name] / most), abs=0.01)


async def test_scores_outside_the_scale_and_attributes_of_any_order(
    browser: Browser, odd: str
) -> None:
    texts = [f"response {n}" for n in range(8)]
    entries = await ask(odd, PROMPT, *texts)
    names = list(ODD_MANIFEST["attributes"])  # type: ignore[call-overload]
    values = [entry[name] for entry in entries for name in names]
    low, high = min(values) // 1, max(4, -(-max(values) // 1))
    assert low < 0, "the test has no negative score"
    assert min(entry["reward"] for entry in entries) < 0, "the test has no negative reward"
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await visit.score(PROMPT, *texts)
        await expect(visit.status).to_contain_text(f"from −{-low:.0f} to {high:.0f}.")
        for place, entry in enumerate(sorted(entries, key=lambda entry: -entry["reward"])):
            card = visit.cards.nth(place)
            assert await card.locator("strong").inner_text() == shown(entry["reward"], 3)
            assert list((await shown_attributes(card)).items()) == [
                (name, shown(entry[name], 2)) for name in names
            ]
            for row, name in enumerate(names):
                ends = sorted((x - low) / (high - low) for x in (0, entry[name]))
                drawn = await edges(card.locator("dd .bar").nth(row))
                assert drawn == pytest.approx(ends, abs=0.01)


async def test_a_weight_stands_beside_its_attribute(browser: Browser, odd: str) -> None:
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await visit.score(PROMPT, "7")
        names = await visit.cards.locator("dt").all_inner_texts()
        assert [name.strip() for name in names] == [
            "verbosity × −0.25", "safety × 2", "correctness",
        ]  # fmt: skip


async def test_a_model_without_attributes(browser: Browser, scalar: str) -> None:
    entries = await ask(scalar, PROMPT, *RESPONSES)
    async with visiting(browser, scalar) as visit:
        await visit.ready()
        await visit.score(PROMPT, *RESPONSES)
        rewards = await visit.cards.locator("strong").all_inner_texts()
        assert rewards == sorted((shown(e["reward"], 3) for e in entries), key=float, reverse=True)
        assert await visit.cards.locator("dl").count() == 0
        await expect(visit.page.locator("#facts")).to_contain_text("a reward without attributes")


async def test_equal_rewards_share_a_place(browser: Browser, plain: str) -> None:
    entries = await ask(plain, PROMPT, "7", "8")
    better, worse = ("7", "8") if entries[0]["reward"] > entries[1]["reward"] else ("8", "7")
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.score(PROMPT, worse, better, worse, better)
        assert await visit.titles() == [
            "1. Response B", "1. Response D", "3. Response A", "3. Response C",
        ]  # fmt: skip
        assert await visit.cards.get_by_text("tie", exact=True).count() == 4
        await expect(visit.status).to_contain_text("Best: B and D.")
        await visit.response("B").fill("something else")
        await visit.button("Score").click()
        await expect(visit.cards.get_by_text("tie", exact=True)).to_have_count(2)


async def test_a_json_list_of_messages_is_sent_as_messages(browser: Browser, plain: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a prime."},
    ]
    [entry] = await ask(plain, messages, "7")
    async with visiting(browser, plain) as visit:
        await visit.ready()
        hint = visit.page.locator("#prompt-hint")
        await expect(hint).to_contain_text("Plain text, or a JSON list")
        await visit.score(json.dumps(messages, indent=1), "7")
        await expect(hint).to_have_text("Read as 2 messages: system, user.")
        assert await visit.cards.locator("strong").inner_text() == shown(entry["reward"], 3)
        sent = json.loads(await visit.page.locator("#request").text_content() or "")
        assert sent["pairs"] == [{"prompt": messages, "response": "7"}]


@pytest.mark.parametrize("text", ['[{"role": "user", "content": "a"}', '[{"role": "user"}]', "[]",
                                  "[1, 2]", "[a] is a list", "null"])  # fmt: skip
async def test_what_only_looks_like_messages_is_text(
    browser: Browser, plain: str, text: str
) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.score(text, "7")
        sent = json.loads(await visit.page.locator("#request").text_content() or "")
        assert sent["pairs"][0]["prompt"] == text
        hint = "Read as plain text" if text.startswith("[{") else "Plain text, or"
        await expect(visit.page.locator("#prompt-hint")).to_contain_text(hint)


async def test_a_pair_that_is_too_long_says_so_in_its_place(browser: Browser, odd: str) -> None:
    long = "many words " * 200
    entries = await ask(odd, PROMPT, "7", long, "8")
    assert entries[1]["error"]["code"] == "too_long"
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await visit.score(PROMPT, "7", long, "8")
        assert (await visit.titles())[2] == "Response B"
        failed = visit.cards.nth(2)
        await expect(failed).to_contain_text("not ranked")
        await expect(failed).to_contain_text("too long")
        await expect(failed).to_contain_text(entries[1]["error"]["detail"])
        await expect(visit.status).to_contain_text("2 responses scored. 1 failed.")


async def test_a_pair_that_is_too_long_can_lose_its_start(browser: Browser, odd: str) -> None:
    long = "many words " * 200
    [entry] = await ask(odd, PROMPT, long, truncate="prompt_start")
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await visit.page.get_by_label("Drop the oldest tokens").check()
        await visit.score(PROMPT, long)
        await expect(visit.cards).to_contain_text(f"{LIMIT} tokens · truncated")
        assert await visit.cards.locator("strong").inner_text() == shown(entry["reward"], 3)


async def test_what_is_wrong_with_a_pair_is_readable(browser: Browser, plain: str) -> None:
    prompt = '[{"role": "bot", "content": "a"}]'
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.score(prompt, "7")
        await expect(visit.cards).to_contain_text("invalid pair")
        await expect(visit.cards).to_contain_text("prompt.0.role")


async def test_hostile_texts_and_names_are_shown_as_text(browser: Browser, odd: str) -> None:
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await expect(visit.page.locator("#model")).to_have_text(HOSTILE_NAME)
        await visit.score(HOSTILE[0], *HOSTILE)
        said = await visit.cards.locator(".said").all_text_contents()
        assert sorted(said) == sorted(HOSTILE)
        assert await visit.page.locator("img").count() == 0
        assert await visit.page.locator("script").count() == 1


async def test_the_browser_itself_refuses_text_as_markup(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        refused = await visit.page.evaluate(
            "try { document.body.innerHTML = '<b>x</b>'; } catch (error) { error.name; }"
        )
        assert refused == "TypeError"
        visit.complaints.clear()  # the policy's own report of it


async def test_the_json_and_the_curl_command_are_the_same_call(browser: Browser, odd: str) -> None:
    async with visiting(browser, odd) as visit:
        await visit.ready()
        await visit.score(HOSTILE[0], *HOSTILE)
        request = json.loads(await visit.page.locator("#request").text_content() or "")
        assert request == {"pairs": [{"prompt": HOSTILE[0], "response": r} for r in HOSTILE]}
        answer = json.loads(await visit.page.locator("#answer").text_content() or "")
        command = await visit.page.locator("#curl").text_content() or ""
    assert "FIVESCORE_API_KEY" not in command
    assert without_cache(await run(command)) == without_cache(answer)


async def run(command: str, **environment: str) -> Any:
    """What a shell makes of the command that the page shows."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", command],
        capture_output=True,
        check=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nowhere", **environment},
    )
    return json.loads(done.stdout)


def without_cache(answer: Any) -> Any:
    return [{**entry, "cached_tokens": 0} for entry in answer["scores"]]


async def test_copy_takes_the_command_with_and_without_a_clipboard(
    browser: Browser, plain: str
) -> None:
    async with visiting(browser, plain, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.page
        await visit.ready()
        await visit.score(PROMPT, "7")
        for prepare in (
            "",
            "Object.defineProperty(navigator.clipboard, 'writeText', {value: null})",
        ):
            await page.evaluate("navigator.clipboard.writeText('nothing')")
            await page.evaluate(prepare)
            details = page.locator("details").first
            await details.evaluate("(element) => { element.open = true; }")
            await details.get_by_role("button", name="Copy").click()
            await expect(details.get_by_role("button")).to_have_text("Copied")
            copied = await page.evaluate("navigator.clipboard.readText()")
            assert copied == await page.locator("#curl").text_content()
            await expect(details.get_by_role("button")).to_have_text("Copy")


async def test_the_stages_of_the_answers_server_timing_are_shown(
    browser: Browser, plain: str
) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.fill(PROMPT, "7")
        async with visit.page.expect_response("**/score") as answered:
            await visit.button("Score").click()
        header = (await (await answered.value).all_headers())["server-timing"]
        stages = [part.split(";dur=") for part in header.split(", ")]
        assert [stage for stage, _ in stages] == ["admit", "render", "tokenise", "engine", "reward"]
        told = ", ".join(f"{stage} {float(duration):.1f}" for stage, duration in stages)
        timing = visit.page.locator("#timing")
        await expect(timing).to_contain_text("round trip")
        await expect(timing).to_contain_text(f"in the service {told}.")


async def test_up_to_eight_responses(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        boxes = visit.page.locator("#responses textarea")
        await expect(boxes).to_have_count(2)
        while await boxes.count() < 8:
            await visit.button("Add a response").click()
            await expect(boxes.last).to_be_focused()
        await expect(visit.button("Eight responses are the most")).to_be_disabled()
        texts = [f"response {n}" for n in range(8)]
        await visit.score(PROMPT, *texts)
        await visit.button("Remove response C").click()
        await expect(boxes).to_have_count(7)
        await expect(visit.response("C")).to_be_focused()
        await expect(visit.response("C")).to_have_value("response 3")
        await expect(visit.button("Add a response")).to_be_enabled()


async def test_the_last_response_cannot_be_removed(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.button("Remove response A").click()
        await expect(visit.response("A")).to_be_focused()
        await expect(visit.button("Remove response A")).to_be_hidden()


async def test_empty_boxes_are_left_out_and_an_empty_form_says_what_is_missing(
    browser: Browser, plain: str
) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.button("Score").click()
        await expect(visit.prompt).to_be_focused()
        await visit.prompt.fill(PROMPT)
        await visit.button("Score").click()
        await expect(visit.response("A")).to_be_focused()
        missing = await visit.response("A").evaluate("(box) => box.validationMessage")
        assert missing == "Write at least one response."
        assert "POST /score" not in visit.paths
        await visit.response("B").fill("7")
        await visit.button("Score").click()
        await expect(visit.cards).to_have_count(1)
        assert await visit.titles() == ["1. Response B"]


async def test_the_example_is_one_press_away(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        await visit.button("Load an example").click()
        await expect(visit.button("Score")).to_be_focused()
        await visit.page.keyboard.press("Enter")
        await expect(visit.cards).to_have_count(3)


async def test_everything_can_be_done_with_the_keyboard(browser: Browser, plain: str) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        press, typing = visit.page.keyboard.press, visit.page.keyboard.type
        await press("Tab")
        await expect(visit.prompt).to_be_focused()
        await typing("Two lines,")
        await press("Enter")
        await typing("one prompt.")
        for letter in "AB":
            await press("Tab")
            await expect(visit.button(f"Remove response {letter}")).to_be_focused()
            await press("Tab")
            await expect(visit.response(letter)).to_be_focused()
            await typing(f"Response number {letter}")
        await press("Control+Enter")
        await expect(visit.cards).to_have_count(2)
        await expect(visit.response("B")).to_be_focused()  # so that one can go on writing
        await press("Tab")
        await press("Enter")
        await expect(visit.response("C")).to_be_focused()
        await typing("third")
        await press("Meta+Enter")
        await expect(visit.cards).to_have_count(3)
        for focused in ("#add", "#truncate", "#submit", "#example", "summary"):
            await press("Tab")
            await expect(visit.page.locator(focused).first).to_be_focused()
            outline = await visit.page.locator(":focus").evaluate(
                "(element) => getComputedStyle(element).outlineStyle"
            )
            assert outline == "solid", focused
        await press("Enter")
        await expect(visit.page.locator("#curl")).to_be_visible()
        await expect(visit.page.locator("#curl")).to_contain_text("Two lines,\\none prompt.")


@pytest.mark.parametrize("prefix", ["/rm", "/rm/"])
async def test_the_page_works_behind_a_proxys_path_prefix(
    browser: Browser, plain: str, prefix: str
) -> None:
    async with visiting(browser, plain) as visit:
        await visit.ready()
        asked = len(visit.requests)

        async def forward(route: Any) -> None:
            path = route.request.url.removeprefix(plain).removeprefix("/rm") or "/"
            with suppress(Error):  # the page polls, and is closed at the end of the test
                response = await route.fetch(url=plain + path)
                await route.fulfill(response=response)

        await visit.page.context.route(f"{plain}/rm**", forward)
        await visit.page.context.route(f"{plain}/rm/**", forward)
        await visit.page.goto(plain + prefix)
        await visit.ready()
        await visit.score(PROMPT, "7")
        assert all(path.split()[1].startswith("/rm") for path in visit.paths[asked:])
        assert f"'{plain}/rm/score'" in (await visit.page.locator("#curl").text_content() or "")
        assert await visit.page.locator("#docs").evaluate("(a) => a.href") == f"{plain}/rm/docs"
