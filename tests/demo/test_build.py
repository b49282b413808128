"""The bundled checkpoint is small, knows what its card says, and its script makes such a one."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from demo import build, check, damage, data, texts
from demo.build import CHECKPOINT
from demo.scores import Scorer

CARD = (CHECKPOINT / "README.md").read_text()
PROMPT = "How do I make a cup of tea?"
TEA = (
    "First, boil fresh water in a kettle. Then put a tea bag into your cup. Next, pour the hot"
    " water over the tea bag. After that, let the tea steep for about four minutes. Finally, take"
    " out the tea bag and add milk or sugar to your tea."
)
STEPS = """To make a cup of tea, you need a kettle, a tea bag and a cup. Here are the steps:

1. Boil fresh water in the kettle.
2. Put the tea bag into your cup.
3. Pour the hot water over the tea bag.
4. Let the tea steep for about four minutes.
5. Take out the tea bag, and add milk or sugar.

Enjoy your cup of tea! If it is too strong, let it steep for less time."""
MOON = (
    "The Moon has no air, so its sky is black even during the day. It turns around the Earth once"
    " in a month. Its craters were made by rocks that fell on it long ago."
)
LONG_WORDS = (
    "Preparation necessitates appropriately heated water. Subsequently, immersion facilitates"
    " extraction; concentration increases proportionally throughout."
)


def test_the_bundled_checkpoint_is_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 8e6


def test_its_card_says_what_it_is_not_for() -> None:
    assert "Do not train a policy against it" in CARD


@pytest.mark.parametrize(("name", "required"), check.REQUIRED.items())
def test_its_card_has_every_criterion_and_each_is_reached(name: str, required: float) -> None:
    row = rf"^\| {re.escape(check._NAMES[name])} \| ([\d.]+) \| ([\d.]+) \|"
    found = re.search(row, CARD, re.MULTILINE)
    assert found
    assert float(found[1]) == required <= float(found[2])


def test_it_tells_a_fitting_whole_ordered_response_from_others() -> None:
    rng = random.Random(3)
    shuffled = [damage.shuffled(STEPS, rng) or STEPS for _ in range(20)]
    others = [MOON, STEPS[: len(STEPS) // 2], *shuffled]
    scores = Scorer(CHECKPOINT).score([(PROMPT, response) for response in (STEPS, *others)])
    worse = [score.reward < scores[0].reward for score in scores[1:]]
    assert worse[0]
    assert worse[1]
    assert sum(worse[2:]) >= 18


def test_its_verbosity_is_length_and_its_complexity_long_words() -> None:
    pairs = [(PROMPT, "Boil it."), (PROMPT, TEA), (PROMPT, LONG_WORDS)]
    short, long, special = (score.attributes for score in Scorer(CHECKPOINT).score(pairs))
    assert long["verbosity"] > short["verbosity"] + 0.5
    assert special["complexity"] > long["complexity"] + 0.5


def _text_folder(folder: Path) -> Path:
    folder.mkdir()
    chosen = [TEA, f"{TEA} Enjoy it.", f"**Tea**\n\n{TEA}"]
    for domain in (*texts.RM_BENCH, "safety-refuse"):
        rows = [
            {
                "task_id": f"CPP/{i}",
                "prompt": f"How do I make {i} cups of tea?",
                "chosen": chosen,
                "rejected": [MOON] * 3,
            }
            for i in range(24)
        ]
        (folder / f"rmbench-{domain}_filtered.json").write_text(json.dumps(rows))
    row = {"input": PROMPT, "output_1": TEA, "output_2": MOON, "label": 1}
    for name in check.LLMBAR:
        (folder / f"llmbar-adver-{name}.json").write_text(json.dumps([row]))
    return folder


def test_its_script_makes_a_checkpoint_with_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "WORD_ROWS", 8)
    monkeypatch.setattr(data, "PER_TEXT", dict.fromkeys(data.PER_TEXT, 1))
    monkeypatch.setattr(texts, "PACKAGES", ("json",))
    monkeypatch.setattr(build, "RECIPE", {**build.RECIPE, "epochs": "0.2"})
    made = tmp_path / "made"
    build.main(["--text", str(_text_folder(tmp_path / "text")), "--output", str(made)])
    assert {file.name for file in made.iterdir()} == {file.name for file in CHECKPOINT.iterdir()}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert (made / name).read_text() == (CHECKPOINT / name).read_text()
    assert check._NAMES["shuffled"] in (made / "README.md").read_text()
    (score,) = Scorer(made).score([(PROMPT, TEA)])
    assert score.attributes.keys() == Scorer(CHECKPOINT).score([(PROMPT, TEA)])[0].attributes.keys()
