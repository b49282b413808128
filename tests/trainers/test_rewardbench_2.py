"""RewardBench 2 asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestRewardBench2(Scenarios):
    trainer = Trainer(
        "rewardbench_2",
        "RewardBench 2",
        "`scripts/run_v2.py`, on a file of its format",
        row="RewardBench",
        environment="rewardbench",
        turns=False,
        renders=True,
        markers=True,
    )
