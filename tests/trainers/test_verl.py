"""verl asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer

SAMPLING = "sampling: the rollouts are given"


class TestOurManager(Scenarios):
    trainer = Trainer(
        "verl",
        "verl",
        "`RewardLoopManager.compute_rm_score` with `RewardLoopWorker` and our `RewardManager` in"
        " Ray, then `extract_reward`",
        markers=True,
        emulated=SAMPLING,
    )


class TestNaive(Scenarios):
    trainer = Trainer(
        "verl_naive",
        "verl `naive`",
        "the same, with its manager `naive` and our `compute_score`",
        row="verl",
        environment="verl",
        emulated=SAMPLING,
    )


class TestRateLimited(Scenarios):
    trainer = Trainer(
        "verl_rate_limited",
        "verl `rate_limited`",
        "the same, with its manager `rate_limited` and our `compute_score`",
        row="verl",
        environment="verl",
        emulated=SAMPLING,
    )


class TestRemote(Scenarios):
    trainer = Trainer(
        "verl_remote",
        "verl `remote`",
        "the same, with its manager `remote` and our `compute_score_sync`",
        row="verl",
        environment="verl",
        emulated=SAMPLING,
    )
