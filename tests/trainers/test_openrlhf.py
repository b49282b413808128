"""OpenRLHF asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestOpenRlhf(Scenarios):
    trainer = Trainer(
        "openrlhf",
        "OpenRLHF",
        "`SamplesGenerator.generate_samples` with `RolloutRayActor` in Ray, then"
        " `RemoteExperienceMaker.make_experience`",
        emulated="vLLM: the responses are given; the policy's log probabilities are zeros",
        loses="a sample that finds nothing listening for five seconds has no reward, and the run"
        " ends where its rewards are merged",
    )
