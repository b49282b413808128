"""The path of a pair without HTTP: order, sharing, limits, aborts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from fivescore.engine.base import Engine
from fivescore.errors import (
    DeadlineExceeded,
    EngineDead,
    InvalidPair,
    InvalidRequest,
    TooLong,
    TooManyPairs,
)
from fivescore.model.conversation import Conversation
from fivescore.scoring import window
from fivescore.scoring.chunks import CHUNK_CHARACTERS, CHUNK_PAIRS, characters
from fivescore.scoring.inflight import Headers
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Options, Scorer
from fivescore.settings import DEMO, Settings
from fivescore.telemetry.metrics import Metrics
from fivescore.telemetry.trace import Trace
from fivescore.types import Message, Output, Pair, Score
from tests.unit.engines import HeldEngine, RecordingEngine, turns


@asynccontextmanager
async def scoring(engine: Engine, **settings: Any) -> AsyncIterator[Scorer]:
    scorer = Scorer(Service(Settings(**settings), lambda *_: engine, Metrics()))
    await scorer.load()
    yield scorer
    await scorer.close()


def pair(prompt: str = "Q", response: str = "A") -> Pair:
    return Pair(prompt=prompt, response=response)


def ids(scorer: Scorer, pairs: Sequence[Pair]) -> list[list[int]]:
    """What the engine should get for some texts."""
    encoded = scorer.service.model.conversation.encode(pairs)
    assert all(isinstance(one, list) for one in encoded)
    return [one for one in encoded if isinstance(one, list)]


async def score(scorer: Scorer, *pairs: Pair | InvalidPair, **options: Any) -> list[Any]:
    return list(await scorer.score(pairs, Options(**options)))


async def test_the_engine_gets_the_ids_of_the_conversation_and_the_manifest_reads_its_outputs() -> (
    None
):
    engine = RecordingEngine()
    async with scoring(engine) as scorer:
        (result,) = await score(scorer, pair())
        (expected,) = ids(scorer, [pair()])
    assert engine.submitted == [expected]
    offsets = {n: a.offset for n, a in scorer.service.model.manifest.attributes.items()}
    assert result.attributes == {name: len(expected) + offset for name, offset in offsets.items()}
    weights = dict(zip(offsets, (0.3, 0.74, 0.46, 0.47, -0.33), strict=True))
    assert result.reward == pytest.approx(
        sum(weight * result.attributes[name] for name, weight in weights.items())
    )
    assert (result.tokens, result.cached_tokens, result.truncated) == (len(expected), 1, False)


async def test_pairs_of_one_prompt_are_submitted_together_and_answered_in_the_order_asked() -> None:
    engine = RecordingEngine()
    prompts = ["a", "long prompt", "a", "another one", "long prompt", "a"]
    pairs = [pair(prompt, "x " * index) for index, prompt in enumerate(prompts)]
    many = [pair(f"prompt {n % 7}", "word " * n) for n in range(3 * CHUNK_PAIRS)]
    async with scoring(engine) as scorer:
        for asked in (pairs, many, []):
            results = await score(scorer, *asked)
            assert [result.tokens for result in results] == list(map(len, ids(scorer, asked)))
        expected = ids(scorer, pairs)
    assert engine.submitted[:6] == [expected[index] for index in (0, 2, 5, 1, 4, 3)]


async def test_identical_pairs_are_submitted_once_within_and_across_requests() -> None:
    engine = HeldEngine(sequences=2)
    async with scoring(engine) as scorer:
        first = asyncio.create_task(score(scorer, pair(), pair(), pair("Other")))
        await engine.busy.wait()
        (known,) = ids(scorer, [pair()])
        second = asyncio.create_task(score(scorer, Pair(token_ids=known)))
        await asyncio.sleep(0)  # token ids need no tokeniser: its first step brings it there
        engine.gate.set()
        one, same, _ = await first
        assert one == same == (await second)[0]
    assert len(engine.submitted) == 2


def many(count: int) -> list[Pair]:
    return [Pair(token_ids=[10 + n // 1000, 10 + n % 1000]) for n in range(count)]


async def test_of_a_large_request_no_more_is_in_the_engine_than_it_needs() -> None:
    engine = HeldEngine(sequences=window.LEAST)
    async with scoring(engine) as scorer:
        large = asyncio.create_task(score(scorer, *many(4 * window.LEAST)))
        await engine.busy.wait()
        await turns(20)
        assert window.LEAST <= len(engine.submitted) < window.LEAST + CHUNK_PAIRS
        single = asyncio.create_task(score(scorer, Pair(token_ids=[7])))
        await turns(20)  # token ids need no tokeniser
        assert engine.submitted[-1] == [7]
        engine.gate.set()
        results = await large
        assert len(results) == 4 * window.LEAST
        assert all(isinstance(result, Score) for result in [*results, *await single])
    assert engine.submitted[-1] == many(4 * window.LEAST)[-1].token_ids


async def test_room_in_the_engine_comes_back_however_a_request_ends() -> None:
    engine = HeldEngine(sequences=window.LEAST)
    async with scoring(engine) as scorer:
        for ends in ({"timeout_seconds": 0.05}, {}):
            large = asyncio.create_task(score(scorer, *many(2 * window.LEAST), **ends))
            if ends:
                with pytest.raises(DeadlineExceeded):
                    await large
        await engine.busy.wait()
        engine.gate.set()
        assert len(await large) == 2 * window.LEAST
        same = await score(scorer, *many(64), *many(64), pair("", "word " * 5000))
        assert len(same) == 129
        assert scorer._window.inside == 0


async def test_nothing_more_of_a_large_request_is_tokenised_once_the_engine_is_lost() -> None:
    engine = Dying()
    async with scoring(engine) as scorer:
        with pytest.raises(EngineDead):
            await score(scorer, *many(8 * window.LEAST))
    assert len(engine.submitted) < 2 * CHUNK_PAIRS


async def test_a_token_id_outside_the_vocabulary_fails_its_pair_alone() -> None:
    engine = RecordingEngine()
    async with scoring(engine) as scorer:
        bad, good = await score(scorer, Pair(token_ids=[6144]), Pair(token_ids=[6143]))
    assert isinstance(bad, InvalidPair)
    assert bad.facts["limit"] == 6143
    assert isinstance(good, Score)
    assert engine.submitted == [[6143]]


async def test_a_pair_without_a_token_fails_alone(tmp_path: Path) -> None:
    raw = {"outputs": 5, "reward": {"output": 0}, "prompt": {"format": "raw"}}
    (tmp_path / "reward.json").write_text(json.dumps(raw))
    # The demo's tokenizer without its BOS, as a checkpoint that has none.
    tokenizer = Tokenizer.from_file(f"{DEMO}/tokenizer.json")
    tokenizer.post_processor = processors.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    shutil.copy(f"{DEMO}/config.json", tmp_path)
    engine = RecordingEngine()
    async with scoring(engine, model=str(tmp_path)) as scorer:
        empty, fine = await score(scorer, pair("", ""), pair("a", ""))
    assert isinstance(empty, InvalidPair)
    assert isinstance(fine, Score)
    assert len(engine.submitted) == 1


async def test_a_pair_found_malformed_before_keeps_its_error_in_its_place() -> None:
    bad = InvalidPair("found before")
    async with scoring(RecordingEngine()) as scorer:
        results = await score(scorer, pair(), bad, pair())
    assert results[1] is bad
    assert isinstance(results[0], Score)
    assert results[0] == results[2]


async def test_too_many_pairs_and_weights_that_do_not_fit_are_refused_before_any_work() -> None:
    engine = RecordingEngine()
    async with scoring(engine, max_pairs=2) as scorer:
        with pytest.raises(TooManyPairs) as caught:
            await score(scorer, pair(), pair(), pair())
        with pytest.raises(InvalidRequest, match="humor"):
            await score(scorer, pair(), weights={"humor": 1.0})
    assert caught.value.facts == {"limit": 2}
    assert engine.submitted == []


async def test_a_deadline_aborts_the_work_in_the_engine() -> None:
    engine = HeldEngine(sequences=2)
    async with scoring(engine) as scorer:
        with pytest.raises(DeadlineExceeded, match="timeout_seconds"):
            await score(scorer, pair("a"), pair("b"), timeout_seconds=0.05)
        await asyncio.sleep(0)
        assert (engine.aborted, engine.unfinished()) == (2, 0)


async def test_a_cancelled_request_aborts_only_what_no_other_waits_for() -> None:
    engine = HeldEngine(sequences=3)
    async with scoring(engine) as scorer:
        gone = asyncio.create_task(score(scorer, pair("shared"), pair("own")))
        stays = asyncio.create_task(score(scorer, pair("shared"), pair("third")))
        await engine.busy.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await asyncio.sleep(0)
        assert engine.aborted == 1
        engine.gate.set()
        assert all(isinstance(one, Score) for one in await stays)


async def test_a_large_request_lets_others_to_the_engine_between_its_chunks() -> None:
    engine = RecordingEngine()
    async with scoring(engine) as scorer:
        large = [Pair(token_ids=[1, number]) for number in range(300)]
        small = Pair(token_ids=[2, 2])
        await asyncio.gather(score(scorer, *large), score(scorer, small))
    assert engine.submitted.index([2, 2]) < 100


@pytest.mark.parametrize(
    ("one", "pairs", "step"),
    [
        (Pair(token_ids=[1, 2]), 8 * CHUNK_PAIRS, CHUNK_PAIRS),  # computed once: all land at once
        (Pair(token_ids=[1] * (CHUNK_CHARACTERS + 1)), 8, 1),  # too long: nothing is submitted
    ],
    ids=["answers", "errors"],
)
async def test_the_event_loop_has_turns_while_nothing_has_to_wait(
    one: Pair, pairs: int, step: int
) -> None:
    looked = 0

    async def look() -> None:
        nonlocal looked
        while True:
            looked += 1
            await asyncio.sleep(0)

    async with scoring(RecordingEngine()) as scorer:
        looking = asyncio.create_task(look())
        await score(scorer, one)
        looked = 0
        await score(scorer, one)
        alone, looked = looked, 0
        await score(scorer, *[one] * pairs)
        looking.cancel()
    assert looked - alone >= pairs // step - 1


class Dying(RecordingEngine):
    """Dies at its second sequence."""

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        output = await super().encode(token_ids, request_id, trace_headers, priority, rank, prefix)
        if len(self.submitted) > 1:
            raise EngineDead("the engine has stopped")
        return output


async def test_on_loaded_is_called_once_before_the_first_request_is_taken() -> None:
    states: list[str] = []
    service = Service(
        Settings(), lambda *_: RecordingEngine(), Metrics(), lambda: states.append(service.state)
    )
    scorer = Scorer(service)
    await scorer.load()
    assert states == ["loading"]
    await scorer.close()


# Texts far beyond the limit


FAR = 2**20 + 500_000
"""Characters, more than are ever tokenised of one pair."""


def far_too_long() -> dict[str, Pair]:
    words = "many words " * (FAR // 11)
    said = [Message(role="system", content=words), Message(role="user", content="Well?")]
    return {
        "prompt": pair(words, "The end."),
        "messages": Pair(prompt=said, response="The end."),
        "response": pair("Well?", words + "The end."),
        "text": Pair(text=f"<|begin_of_text|>{words}The end.<|eot_id|>"),
    }


@pytest.mark.parametrize("form", far_too_long())
async def test_a_text_far_too_long_is_cut_before_it_is_tokenised_scored_by_its_end_and_flagged(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    render = Conversation.render

    def recorded(self: Conversation, pairs: Sequence[Pair]) -> list[str | InvalidPair]:
        lengths.extend(characters(one) for one in pairs)
        return render(self, pairs)

    engine = RecordingEngine()
    long = far_too_long()[form]
    async with scoring(engine, max_tokens=64) as scorer:
        with monkeypatch.context() as patched:
            patched.setattr(Conversation, "render", recorded)
            (result,) = await score(scorer, long, truncate="prompt_start")
        assert lengths == [scorer.service.model.max_characters] == [2**20]
        bos = scorer.service.model.conversation.tokenizer.bos_id
        (whole,) = ids(scorer, [long])
        assert await score(scorer, Pair(token_ids=[bos or 0, *whole[-63:]])) == [
            dataclasses.replace(result, truncated=False)
        ]
    assert (result.tokens, result.truncated) == (64, True)
    assert engine.submitted[0] == [bos, *whole[-63:]]


@pytest.mark.parametrize("form", far_too_long())
async def test_a_text_far_too_long_is_refused_unread_unless_it_may_be_truncated(form: str) -> None:
    engine = RecordingEngine()
    async with scoring(engine, max_tokens=64) as scorer:
        (error,) = await score(scorer, far_too_long()[form])
    assert isinstance(error, TooLong)
    assert error.facts["limit"] == 2**20
    assert error.facts["characters"] == characters(far_too_long()[form])
    assert engine.submitted == []


async def test_a_text_cut_before_tokenising_is_flagged_though_its_tokens_fit() -> None:
    spaces = Pair(text=" " * FAR + "The end.")
    engine = RecordingEngine()
    async with scoring(engine) as scorer:
        scorer.service.model.conversation.tokenise = lambda rendered: [[5, 6] for _ in rendered]  # type: ignore[method-assign]
        (result,) = await score(scorer, spaces, truncate="prompt_start")
    assert (result.tokens, result.truncated) == (2, True)


@pytest.mark.parametrize(("asked", "limit"), [(None, 16), (10, 10), (10**6, 16)])
async def test_a_pair_beyond_the_lower_limit_is_cut_where_that_is_allowed_or_fails_alone(
    asked: int | None, limit: int
) -> None:
    engine = RecordingEngine()
    long, fits = list(range(100, 101 + limit)), list(range(100, 100 + limit))
    pairs = [Pair(token_ids=long), Pair(token_ids=fits)]
    async with scoring(engine, max_tokens=16) as scorer:
        refused, whole = await score(scorer, *pairs, max_tokens=asked)
        cut, same = await score(scorer, *pairs, max_tokens=asked, truncate="prompt_start")
    assert engine.submitted == [fits, long[1:], fits]
    assert isinstance(refused, TooLong)
    assert refused.facts == {"limit": limit, "tokens": limit + 1}
    assert "prompt_start" in refused.detail
    assert (cut.tokens, cut.truncated) == (limit, True)
    assert (whole.tokens, whole.truncated) == (limit, False)
    assert same == whole


async def test_the_engine_works_from_the_first_chunk_on_while_others_are_tokenised() -> None:
    trace = Trace()
    async with scoring(RecordingEngine()) as scorer:
        await scorer.score([pair(f"prompt {n}") for n in range(3 * CHUNK_PAIRS)], trace=trace)
    tokenise, engine, reward = (trace.stages[name] for name in ("tokenise", "engine", "reward"))
    assert tokenise.began < engine.began < tokenise.ended
    assert engine.began < reward.began < reward.ended < engine.ended
    assert trace.stages["admit"].ended <= trace.stages["render"].began < tokenise.began


async def test_a_batch_is_one_piece_of_each_requests_time() -> None:
    """However many pairs are in it."""
    trace = Trace()
    async with scoring(RecordingEngine()) as scorer:
        await scorer.score([pair("the same", str(n)) for n in range(8)], trace=trace)
    for name in ("render", "tokenise"):
        stage = trace.stages[name]
        assert stage.seconds == stage.ended - stage.began
    assert trace.stages["render"].ended == trace.stages["tokenise"].began
