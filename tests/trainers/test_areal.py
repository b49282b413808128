"""AReaL asks for rewards with its own code."""

import pytest

from tests.trainers.conftest import Reference
from tests.trainers.samples import plain
from tests.trainers.scenarios import TOLERANCE, Scenarios
from tests.trainers.slowed import slowed
from tests.trainers.trainer import Process, Trainer


class TestAreal(Scenarios):
    trainer = Trainer(
        "areal",
        "AReaL",
        "`RemotevLLMEngine.submit`, as its controller's workers are asked, with our"
        " `RewardWorkflow`, which is its `RLVRWorkflow`",
        markers=True,
        emulated="the policy's vLLM server: the responses are given",
    )

    def test_rewards_take_longer_than_its_own_limit(
        self, process: Process, reference: Reference
    ) -> None:
        """A ``reward_fn`` would have 15 seconds from the moment it waits for AReaL's pool."""
        samples = plain(320)
        expected = reference.rewards(samples)
        with slowed(reference.server.url, pair_seconds=0.2) as url:
            assert process.rewards(url, samples) == pytest.approx(expected, abs=TOLERANCE)
