"""TRL asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestTrl(Scenarios):
    trainer = Trainer(
        "trl",
        "TRL",
        "`GRPOTrainer._prepare_inputs`",
        own_environment=False,
        emulated="sampling: a `rollout_func` gives the responses",
    )
