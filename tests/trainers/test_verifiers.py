"""verifiers, whose environments prime-rl trains on, asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestVerifiers(Scenarios):
    trainer = Trainer(
        "verifiers",
        "verifiers",
        "`SingleAgentEnv.run_slot`, with its interception server and `Task.score`",
        row="verifiers, tinker-cookbook, SkyRL, ROLL, Axolotl",
        markers=True,
        emulated="the model's endpoint and the agent, which asks it once",
    )
