"""Scores that are kept, and what becomes of requests that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from tqdm import tqdm

from fivescore.client import BadAnswer, Unreachable
from fivescore.errors import (
    ConfigurationError,
    EngineError,
    FivescoreError,
    Overloaded,
    TooLong,
    Unauthorized,
)
from fivescore.evaluation.requests import Requests, Truncate
from fivescore.evaluation.store import Failure, Store, pair_key
from fivescore.types import Score

MODEL = {"model": "m", "manifest": {"outputs": 5}}
PROBE = Score({"helpfulness": 2.0}, 1.0, 5)


def score(reward: float) -> Score:
    return Score({"helpfulness": reward}, reward, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "scores.jsonl"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(path, MODEL, PROBE)
    yield made
    made.close()


def filled(path: Path) -> Store:
    store = Store(path, MODEL, PROBE)
    store.add({"a": score(1.0), "b": Failure("too_long", "so long")})
    store.add_temporary({"c": Failure("engine_error", "once")})
    return store


def test_what_is_kept_is_there_again(path: Path) -> None:
    store = filled(path)
    assert store["c"] == Failure("engine_error", "once")
    store.close()
    again = Store(path, MODEL, PROBE)
    assert (again["a"], again["b"]) == (score(1.0), Failure("too_long", "so long"))
    assert "c" not in again
    again.close()


def test_a_torn_last_line_is_cut_off(path: Path) -> None:
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"pair": "d", "att')
    store = Store(path, MODEL, PROBE)
    store.add({"e": score(5.0)})
    store.close()
    assert path.read_bytes().startswith(whole + b'{"pair": "e"')
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 4


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_start_that_was_killed_is_no_obstacle(path: Path, kept: int) -> None:
    filled(path).close()
    path.write_bytes(path.read_bytes()[:kept])
    Store(path, MODEL, PROBE).close()
    assert json.loads(path.read_bytes())["model"] == "m"


@pytest.mark.parametrize(
    ("identity", "probe", "told"),
    [
        ({**MODEL, "model": "n"}, PROBE, "another model than n has now"),
        ({**MODEL, "manifest": {"outputs": 1}}, PROBE, "another manifest than m has now"),
        (MODEL, Score({"helpfulness": 2.5}, 1.0, 5), "other weights that were also served as m"),
        (MODEL, Score({"humor": 2.0}, 1.0, 5), "other weights that were also served as m"),
    ],
)
def test_scores_of_another_model_are_refused_and_kept(
    path: Path, identity: dict[str, Any], probe: Score, told: str
) -> None:
    filled(path).close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=told) as caught:
        Store(path, identity, probe)
    assert "--fresh" in caught.value.detail
    assert path.read_bytes() == before
    fresh = Store(path, identity, probe, fresh=True)
    assert "a" not in fresh
    fresh.close()


def test_rounding_and_a_probe_that_failed_are_no_other_model(path: Path) -> None:
    filled(path).close()
    Store(path, MODEL, Score({"helpfulness": 2.03}, 0.98, 5)).close()
    Store(path, MODEL, None).close()


@pytest.mark.parametrize("content", [b"my notes\n", b"[]\n", b"{}\n", b'{"version": 9}\n'])
def test_another_file_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"scores\.jsonl"):
        Store(path, MODEL, PROBE)
    assert path.read_bytes() == content


def test_a_key_is_of_the_pair_and_how_it_is_scored() -> None:
    pair = {"prompt": "Q", "response": "A"}
    assert pair_key(pair, "never") == pair_key(dict(reversed(pair.items())), "never")
    keys = {pair_key(pair, "never"), pair_key(pair, "prompt_start"),
            pair_key({**pair, "response": "B"}, "never"),
            pair_key({"prompt": "A", "response": "Q"}, "never")}  # fmt: skip
    assert len(keys) == 4


Answer = Callable[[str], Score | FivescoreError]


class FakeClient:
    """Answers each pair by its response; notes what it was asked."""

    def __init__(self, answer: Answer, whole: bool = False) -> None:
        self.answer, self.whole = answer, whole
        self.asked: list[list[str]] = []

    async def score(
        self, pairs: Sequence[dict[str, Any]], *, truncate: Truncate, errors: Literal["return"]
    ) -> Sequence[Score | FivescoreError]:
        texts = [pair["response"] for pair in pairs]
        self.asked.append(texts)
        await asyncio.sleep(0)
        answers = [self.answer(text) for text in texts]
        failed = [one for one in answers if isinstance(one, FivescoreError)]
        if self.whole and failed:
            return [failed[0]] * len(texts)
        return answers


def ask(client: FakeClient, store: Store, texts: str, size: int = 2, concurrency: int = 1) -> Any:
    pairs = {text: {"prompt": "Q", "response": text} for text in texts}
    with tqdm(total=len(texts), disable=True) as bar:
        requests = Requests(client, store, "never", size, bar)
        asyncio.run(requests.run(pairs, concurrency))
    return requests


def failing(**errors: FivescoreError) -> Answer:
    return lambda text: errors.get(text) or score(float(ord(text)))


def test_each_answer_is_in_the_file_before_the_next_request(path: Path, store: Store) -> None:
    lines: list[int] = []

    def answer(text: str) -> Score:
        lines.append(len(path.read_bytes().splitlines()))
        return score(1.0)

    ask(FakeClient(answer), store, "abcdef")
    assert lines == [1, 1, 3, 3, 5, 5]


def test_pairs_that_fail_for_good_leave_the_others_alone(path: Path) -> None:
    store = Store(path, MODEL, PROBE)
    client = FakeClient(failing(b=TooLong("long"), d=EngineError("broken")))
    assert ask(client, store, "abcde").unavailable is None
    assert store["b"] == Failure("too_long", "long")
    assert store["d"] == Failure("engine_error", "broken")
    assert store["e"] == score(float(ord("e")))
    store.close()
    again = Store(path, MODEL, PROBE)
    assert "b" in again  # it is as long the next time
    assert "d" not in again  # the engine may be well
    again.close()


def test_a_request_that_fails_is_asked_pair_by_pair(store: Store) -> None:
    client = FakeClient(failing(b=BadAnswer("odd")), whole=True)
    ask(client, store, "abcd", size=4)
    assert client.asked == [["a", "b", "c", "d"], ["a"], ["b"], ["c"], ["d"]]
    assert store["b"] == Failure("bad_answer", "odd")
    assert store["d"] == score(float(ord("d")))


def test_one_request_that_finds_the_server_away_stops_nothing(store: Store) -> None:
    requests = ask(FakeClient(failing(c=Unreachable("gone")), whole=True), store, "abcdefgh")
    assert requests.unavailable.detail == "gone"
    assert [text for text in "abcdefgh" if text not in store] == ["c", "d"]


def test_a_server_that_stays_away_ends_the_run_soon(store: Store) -> None:
    client = FakeClient(lambda text: score(1.0) if text < "e" else Overloaded("full"))
    requests = ask(client, store, "abcdefghijklmnop")
    assert requests.unavailable.code == "overloaded"
    assert len(client.asked) == 5  # two answered, three did not
    assert "d" in store


def test_a_wrong_key_ends_the_run_at_once(store: Store) -> None:
    class Refusing(FakeClient):
        async def score(self, *arguments: Any, **options: Any) -> Any:
            raise Unauthorized("which key?")

    with pytest.raises(ExceptionGroup) as caught:
        ask(Refusing(score), store, "abcd", concurrency=2)  # type: ignore[arg-type]
    assert isinstance(caught.value.exceptions[0], Unauthorized)
