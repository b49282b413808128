"""slime asks for rewards with its own code, by our function."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestSlimeCustom(Scenarios):
    trainer = Trainer(
        "slime_custom",
        "slime `--custom-rm-path`",
        "`generate_rollout` of a `RolloutDataSourceWithBuffer`, with our `--custom-rm-path`,"
        " `--group-rm` and `--reward-key`",
        row="slime",
        environment="slime",
        markers=True,
        emulated="SGLang's router: the responses are given",
    )
