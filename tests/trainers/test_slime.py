"""slime asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestSlime(Scenarios):
    trainer = Trainer(
        "slime",
        "slime",
        "`generate_rollout` of a `RolloutDataSourceWithBuffer`, with `--rm-type remote_rm`",
        markers=True,
        emulated="SGLang's router: the responses are given",
    )
