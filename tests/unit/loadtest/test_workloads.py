"""Arrivals and texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fivescore.settings import DEMO
from fivescore.types import Pair
from loadtest.arrivals import SHAPES, poisson
from loadtest.model import Measured
from loadtest.texts import TOKENS, Texts, from_rmbench, made, shuffled


@pytest.mark.parametrize("shape", SHAPES)
def test_arrivals_have_their_rate_rise_and_end_in_time(shape: str) -> None:
    due = SHAPES[shape](500, 10)
    assert due == sorted(due) == SHAPES[shape](500, 10)
    assert len(due) == pytest.approx(5000, rel=0.05)
    assert 0 <= due[0] <= due[-1] < 10


def test_another_seed_gives_other_arrivals_and_a_burst_comes_at_once() -> None:
    assert poisson(10, 10, seed=1) != poisson(10, 10, seed=2)
    assert set(Counter(SHAPES["bursts of 64"](640, 3)).values()) == {64}


@pytest.fixture(scope="module")
def model() -> Measured:
    return Measured(str(DEMO))


@pytest.fixture(scope="module")
def texts(model: Measured) -> Texts:
    return Texts(made(64, model.words()), model.ids)


def test_pairs_never_come_twice_and_have_the_length(model: Measured, texts: Texts) -> None:
    pairs = [*texts.take(100), *texts.take(100)]
    assert len({pair.prompt for pair in pairs}) == 2 * len(texts.pairs)
    assert len({(pair.prompt, pair.response) for pair in pairs[:64] + pairs[100:164]}) == 128
    least, most = TOKENS
    assert all(least <= len(ids) <= most + 8 for ids in model.ids(pairs))


def test_groups_share_prompts_of_the_length_asked_for(model: Measured, texts: Texts) -> None:
    pairs = texts.groups(4, 8, prompt_tokens=300)
    assert Counter(Counter(pair.prompt for pair in pairs).values()) == {8: 4}
    empty = [Pair(prompt=pair.prompt, response="") for pair in pairs[::8]]
    assert all(len(ids) == pytest.approx(300, rel=0.2) for ids in model.ids(empty))
    assert len({tuple(ids[:40]) for ids in model.ids(empty)}) == 4
    again = texts.groups(4, 8, prompt_tokens=300)
    assert not {pair.prompt for pair in pairs} & {pair.prompt for pair in again}


def test_pairs_of_a_length(model: Measured, texts: Texts) -> None:
    for tokens in (64, 1024):
        lengths = [len(ids) for ids in model.ids(texts.of_length(4, tokens))]
        assert lengths == pytest.approx([tokens] * 4, rel=0.35)


def test_texts_that_are_all_too_short_are_refused(model: Measured) -> None:
    with pytest.raises(ValueError, match="no pair has 100 to 400 tokens"):
        Texts([Pair(prompt="a", response="b")], model.ids)


def test_rmbench_gives_every_response_to_its_prompt_in_a_fixed_mix(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{n}", "chosen": [f"c{n}{i}" for i in range(3)],
         "rejected": [f"r{n}{i}" for i in range(3)]}
        for n in range(5)
    ]  # fmt: skip
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    pairs = from_rmbench([file, file])
    assert pairs == from_rmbench([file, file])
    assert len(pairs) == 60
    assert all(str(pair.response)[1] == str(pair.prompt)[1] for pair in pairs)


def test_a_shuffle_keeps_every_pair(texts: Texts) -> None:
    pairs = texts.take(50)
    mixed = shuffled(pairs, 1)
    assert mixed != pairs
    assert sorted(mixed, key=repr) == sorted(pairs, key=repr)


def test_answers_are_read_back_to_the_heads_outputs(model: Measured) -> None:
    offsets = model.raw(dict.fromkeys(model._manifest.attributes, 0.0))
    wanted = [-affine.offset for affine in model._manifest.attributes.values()]
    assert offsets == pytest.approx(wanted)
