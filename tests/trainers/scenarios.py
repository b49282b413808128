"""What every trainer must survive, and is asked by its own code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from tests.trainers.conftest import Record, Reference
from tests.trainers.samples import Sample, awkward, plain
from tests.trainers.trainer import Process, RunEnded, Trainer

TOLERANCE = 1e-4
FAILING: Sample = {
    "messages": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Fine."}],
    "response": "It is good.",
}
"""Its prompt ends with the assistant's turn: the pair fails for good."""
PLACE = 5
"""Where the failing sample stands among others."""
ROUND = 24
"""Samples that are asked for at once while the server restarts."""
MOST_CHARACTERS = 200
"""Of an error that is recorded."""


class Scenarios:
    """Inherited by the tests of each trainer, which name it."""

    trainer: Trainer
    failing: ClassVar[Sample] = FAILING
    """A sample that fails for good."""

    def test_128_samples_at_once(
        self, process: Process, reference: Reference, record: Record
    ) -> None:
        samples = awkward(self.trainer.markers, self.trainer.turns)
        rewards = process.rewards(reference.server.url, samples)
        expected = reference.rewards(samples, self.trainer.renders)
        record(samples=len(samples), largest_difference=_difference(rewards, expected))
        assert rewards == pytest.approx(expected, abs=TOLERANCE)

    def test_a_pair_that_fails(
        self, process: Process, reference: Reference, record: Record
    ) -> None:
        if self.trainer.renders:
            self._no_text_fails(process, reference)
            record(failing="no text fails: it is read as it was rendered")
            return
        samples = plain(ROUND)
        samples[PLACE] = self.failing
        try:
            rewards = process.rewards(reference.server.url, samples)
        except RunEnded as error:
            record(failing=_short(error, reference))
        else:
            assert rewards[PLACE] is None
            samples.pop(PLACE)
            rewards.pop(PLACE)
            assert rewards == pytest.approx(reference.rewards(samples), abs=TOLERANCE)
            record(failing="no reward for this pair, the others right")

    def _no_text_fails(self, process: Process, reference: Reference) -> None:
        samples = plain(ROUND)
        if self.trainer.turns:
            samples[PLACE] = self.failing
        rewards = process.rewards(reference.server.url, samples)
        assert rewards == pytest.approx(reference.rewards(samples, rendered=True), abs=TOLERANCE)

    def test_the_server_is_loading_when_the_first_call_comes(
        self, process: Process, reference: Reference, record: Record
    ) -> None:
        samples = plain(ROUND)
        expected = reference.rewards(samples)
        reference.restart()
        assert reference.server.status("/health/ready") == 503
        assert process.rewards(reference.server.url, samples) == pytest.approx(
            expected, abs=TOLERANCE
        )
        record(loading=len(samples))

    def test_the_server_restarts_in_the_middle(
        self, process: Process, reference: Reference, record: Record
    ) -> None:
        reference.server.until_ready()
        samples = plain(ROUND)
        expected = reference.rewards(samples)
        asked, lost, sees = 0, 0, ""
        with ThreadPoolExecutor(1) as thread:
            restarted = None
            while not sees and (restarted is None or not restarted.done()):
                asked += len(samples)
                try:
                    rewards = process.rewards(reference.server.url, samples)
                    wrong = [one for one in zip(rewards, expected, strict=True) if _wrong(*one)]
                    assert not wrong
                    lost += rewards.count(None)
                except RunEnded as error:
                    lost += len(samples)
                    sees = _short(error, reference)
                if restarted is None:
                    restarted = thread.submit(reference.restart_until_ready)
            assert restarted is not None
            restarted.result()
        record(restart={"asked": asked, "lost": lost, "sees": sees or self.trainer.loses})
        assert asked > len(samples)
        assert lost == 0 or self.trainer.loses, sees


def _short(error: RunEnded, reference: Reference) -> str:
    said = str(error).replace(reference.server.url, "http://HOST")
    return re.sub(r"127\.0\.0\.1:\d+", "TRAINER", said)[:MOST_CHARACTERS]


def _wrong(reward: float | None, expected: float) -> bool:
    return reward is not None and abs(reward - expected) > TOLERANCE


def _difference(rewards: Sequence[float | None], expected: Sequence[float]) -> float | None:
    both = zip(rewards, expected, strict=True)
    return max((abs(one - other) for one, other in both if one is not None), default=None)
