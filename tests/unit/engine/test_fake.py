"""The fake engine: deterministic, with faults on demand."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from fivescore.engine.fake import FakeEngine
from fivescore.errors import ConfigurationError, EngineDead, EngineError
from fivescore.settings import DEMO
from fivescore.types import Output


async def loaded(**options: Any) -> FakeEngine:
    engine = FakeEngine(DEMO, options)
    await engine.load()
    return engine


async def encode(engine: FakeEngine, *token_ids: int) -> Output:
    return await engine.encode(list(token_ids), "r")


async def test_it_describes_the_checkpoint() -> None:
    info = await FakeEngine(DEMO, {}).load()
    assert (info.name, info.outputs, info.max_tokens, info.vocab_size) == (DEMO, 5, 4096, 6144)
    assert info.engine == "fake"


async def test_the_same_ids_always_get_the_same_outputs_and_others_get_others() -> None:
    one, another = await loaded(), await loaded()
    assert await encode(one, 1, 2) == await encode(one, 1, 2) == await encode(another, 1, 2)
    answers = [await encode(one, *ids) for ids in ((1,), (2,), (1, 2), (2, 1), (258,), (1, 0))]
    assert len({tuple(answer.values) for answer in answers}) == len(answers)
    for answer in answers:
        assert len(set(answer.values)) == 5
        assert all(0 <= value < 4 for value in answer.values)


async def test_the_number_of_outputs_can_be_chosen() -> None:
    engine = FakeEngine(DEMO, {"outputs": "9"})
    assert (await engine.load()).outputs == len((await encode(engine, 1)).values) == 9


async def test_every_nth_sequence_fails_alone() -> None:
    engine = await loaded(fail_every="3")
    answers = await asyncio.gather(
        *(encode(engine, n) for n in range(1, 8)), return_exceptions=True
    )
    assert [isinstance(answer, EngineError) for answer in answers] == [
        n % 3 == 0 for n in range(1, 8)
    ]


async def test_every_nth_sequence_is_nan() -> None:
    engine = await loaded(nan_every=2)
    assert not any(map(math.isnan, (await encode(engine, 1)).values))
    assert all(map(math.isnan, (await encode(engine, 1)).values))


async def test_it_dies_at_the_nth_sequence_with_what_is_in_flight_and_stays_dead() -> None:
    engine = await loaded(die_after=2, latency_seconds=0.01)
    answers = await asyncio.gather(*(encode(engine, n) for n in (1, 2, 3)), return_exceptions=True)
    assert isinstance(answers[0], Output)
    assert [type(answer) for answer in answers[1:]] == [EngineDead, EngineDead]
    with pytest.raises(EngineDead):
        await encode(engine, 1)


async def test_closing_ends_it() -> None:
    engine = await loaded()
    await engine.close()
    with pytest.raises(EngineDead):
        await encode(engine, 1)


async def test_it_can_fail_to_load_and_does_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="out of memory"):
        await FakeEngine(DEMO, {"load-error": "out of memory"}).load()
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        await FakeEngine(str(tmp_path), {}).load()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dtype": "float32"}, "--engine.dtype: "),
        ({"latency-seconds": "-1"}, "--engine.latency-seconds: "),
        ({"latency-seconds": "inf"}, "--engine.latency-seconds: "),
        ({"load_seconds": "nan"}, "--engine.load-seconds: "),
        ({"fail_every": "often"}, "--engine.fail-every: "),
        ({"outputs": "0"}, "--engine.outputs: "),
    ],
)
def test_a_faulty_option_is_named_with_those_there_are(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FakeEngine(DEMO, options)
    assert caught.value.detail.startswith(named)
    assert "latency-seconds" in caught.value.detail
    assert "nan-every" in caught.value.detail
