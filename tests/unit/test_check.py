"""``fivescore check``, with transformers in the place of the engine."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fivescore import check as checking
from fivescore.cli import main
from fivescore.engine.vllm import entrance
from fivescore.errors import NotProved
from fivescore.model import manifest as manifests
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.proof import PAIRS
from fivescore.model.reference import Reference, ReferenceTokenizer
from fivescore.settings import DEMO, Settings
from fivescore.types import ModelInfo, Output
from tests.unit.engines import DEMO_INFO, RecordingEngine

pytestmark = pytest.mark.filterwarnings("default")  # transformers warns of its own plans


class TransformersEngine(RecordingEngine):
    """Outputs of transformers, moved by ``off``."""

    off = 0.0

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._reference = Reference(settings.model, 5)

    async def load(self) -> ModelInfo:
        return DEMO_INFO

    async def encode(self, token_ids: list[int], *arguments: Any, **others: Any) -> Output:
        return Output([value + self.off for value in self._reference.outputs(token_ids)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the demo without its proof; checks of it need no vLLM."""
    monkeypatch.setattr(checking, "make_engine", lambda settings, *_: TransformersEngine(settings))
    monkeypatch.setattr(entrance, "prepare", lambda settings: None)
    folder = Path(shutil.copytree(DEMO, tmp_path / "mine"))
    written = json.loads((folder / "reward.json").read_text())
    del written["proof"]
    (folder / "reward.json").write_text(json.dumps(written))
    return folder


Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], folder: Path) -> Check:
    """Runs the command; gives its status, output and errors."""

    def run(*flags: str) -> tuple[int, str, str]:
        status = main(["check", str(folder), *flags])
        return status, *capsys.readouterr()

    return run


def pairs_file(folder: Path, *rows: Mapping[str, object]) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_sides_that_agree_are_shown_pair_by_pair_and_kept_on_request(
    check: Check, folder: Path
) -> None:
    before = (folder / "reward.json").read_bytes()
    status, out, _ = check()
    assert status == 0
    assert out.count("| equal |") == len(PAIRS)
    assert "agree: token ids are equal, outputs within 0.0e+00" in out
    assert (folder / "reward.json").read_bytes() == before
    status, out, _ = check("--write")
    assert (status, "a proof of 10 pairs is written" in out) == (0, True)
    written = json.loads((folder / "reward.json").read_text())
    assert written["version"] == 2
    assert {**json.loads(before), "version": 2} == {
        k: v for k, v in written.items() if k != "proof"
    }
    assert len(Checkpoint(Settings(model=str(folder))).samples()) == 10


def test_a_proof_of_a_template_with_a_date_has_the_date(check: Check, folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    status, out, _ = check("--write")
    today = str(datetime.datetime.now().date())
    assert (status, f"prompt.date is now {today}" in out) == (0, True)
    written = folder / "reward.json"
    assert json.loads(written.read_text())["prompt"]["date"] == today
    assert len(Checkpoint(Settings(model=str(folder))).samples()) == 10
    written.write_text(written.read_text().replace(today, "2024-07-26"))
    with pytest.raises(NotProved):
        Checkpoint(Settings(model=str(folder))).samples()


def test_other_numbers_are_said_to_be_numbers_and_are_not_kept(
    check: Check, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TransformersEngine, "off", 0.25)
    status, out, _ = check()
    assert status == 1
    assert "outputs" in out.splitlines()[-1]
    assert "differ, while token ids are equal: output" in out
    status, _, err = check("--write")
    assert (status, "is not written: see the line above" in err) == (1, True)
    assert "proof" not in json.loads((folder / "reward.json").read_text())


def test_a_head_that_gives_the_same_for_all_pairs_proves_nothing(
    check: Check, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "outputs", lambda self, token_ids: [0.5, 0.0, 0.0, 0.0, 0.0])
    status, out, _ = check()
    assert (status, "the same for all pairs" in out) == (1, True)
    assert check("--write")[0] == 1
    assert "proof" not in json.loads((folder / "reward.json").read_text())


def test_a_reference_that_is_not_finite_never_agrees(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Reference.outputs
    calls: list[object] = []

    def outputs(self: Reference, token_ids: Any) -> list[float]:
        calls.append(token_ids)
        found = right(self, token_ids)
        # The engine of this test asks first.
        return [math.nan, *found[1:]] if len(calls) == len(PAIRS) + 4 else found

    monkeypatch.setattr(Reference, "outputs", outputs)
    assert check()[0] == 1


def test_other_token_ids_are_said_to_be_ids_and_where(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ReferenceTokenizer.token_ids

    def wrong(self: ReferenceTokenizer, pair: Any) -> list[int]:
        return [*right(self, pair)[:5], 7, *right(self, pair)[6:]]

    monkeypatch.setattr(ReferenceTokenizer, "token_ids", wrong)
    status, out, _ = check()
    assert status == 1
    assert "The token ids of pair 0 ('Name a prime number.') differ at token 5: the" in out
    assert "reference has 7 " in out


def test_pairs_of_ones_own_are_compared_instead(check: Check, folder: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
             {"role": "user", "content": "c"}]  # fmt: skip
    rows = ({"prompt": "Q", "response": "A", "id": 1}, {"prompt": turns, "response": "d"})
    status, out, _ = check("--pairs", pairs_file(folder, *rows), "--write")
    assert (status, out.count("| equal |")) == (0, 2)
    kept = manifests.read(str(folder / "reward.json")).proof
    assert kept is not None
    assert [pair.response for pair in kept.pairs] == ["A", "d"]


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        ([], (), "has no pairs"),
        ([{"prompt": "Q"}], (), "pairs.jsonl:1: give prompt and response"),
        ([{"prompt": "Q", "response": 1}], (), "pairs.jsonl:1: response: "),
        ([{"prompt": "Q", "response": "A"}] * 65, ("--write",), "and a proof at most 64"),
    ],
)
def test_a_file_of_pairs_that_cannot_be_used_is_refused(
    check: Check, folder: Path, rows: list[dict[str, Any]], flags: tuple[str, ...], said: str
) -> None:
    status, _, err = check("--pairs", pairs_file(folder, *rows), *flags)
    assert status == 1
    assert said in err


def test_a_pair_that_has_no_room_is_left_out_by_name(check: Check) -> None:
    status, out, err = check("--max-tokens", "100")
    assert (status, out.count("| equal |")) == (0, 9)
    assert (
        "pair 8 ('Summarise: The tide comes in, the tid...') is left out: it has 991 tokens" in err
    )


def test_made_up_scores_are_not_checked(check: Check) -> None:
    status, _, err = check("--backend", "fake")
    assert (status, "nothing to check" in err) == (1, True)
