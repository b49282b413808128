"""ms-swift's ``swift sample`` asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestMsSwiftSample(Scenarios):
    trainer = Trainer(
        "ms_swift_sample",
        "ms-swift `swift sample`",
        "the command, with `--orm_model`",
        row="ms-swift",
        environment="ms_swift",
        markers=True,
        emulated="the engine that samples: the responses are given",
    )
