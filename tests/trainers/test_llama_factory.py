"""LLaMA-Factory's PPO asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestLlamaFactory(Scenarios):
    trainer = Trainer(
        "llama_factory",
        "LLaMA-Factory PPO",
        "`CustomPPOTrainer.get_rewards`",
        loses="it asks once: the end of the server ends the run",
    )
