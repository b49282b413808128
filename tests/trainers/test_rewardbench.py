"""RewardBench asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestRewardBench(Scenarios):
    trainer = Trainer(
        "rewardbench",
        "RewardBench",
        "its command, on a file of conversations",
        renders=True,
        markers=True,
    )
