"""NeMo-RL asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestNemoRl(Scenarios):
    trainer = Trainer(
        "nemo_rl",
        "NeMo-RL",
        "`run_nemo_gym_rollout_sync` with `spinup_nemo_gym_actor` in Ray, which starts NeMo-Gym's"
        " servers and our resources server",
        row="NeMo-RL with NeMo-Gym",
        markers=True,
        emulated="vLLM: an endpoint gives the responses; Python and torch are of fivescore's"
        " installation, where NeMo-RL asks for 3.13 and 2.11",
    )
