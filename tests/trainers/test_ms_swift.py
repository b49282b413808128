"""ms-swift asks for rewards with its own code."""

from typing import ClassVar

from tests.trainers.samples import Sample
from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestMsSwift(Scenarios):
    trainer = Trainer(
        "ms_swift",
        "ms-swift",
        "`GRPOTrainer._rollout_samples` and `_score_completions`, with both functions of our"
        " plugin",
        markers=True,
        emulated="the policy and its sampling: the responses are given",
    )
    # It replaces a prompt's last message with the response if that is the assistant's.
    failing: ClassVar[Sample] = {
        "messages": [{"role": "user", "content": "Well?"}, {"role": "system", "content": "Hm."}],
        "response": "It is good.",
    }
