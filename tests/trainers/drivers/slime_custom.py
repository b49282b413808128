"""slime: its rollout, with our ``--custom-rm-path``, ``--group-rm`` and ``--reward-key``."""

from __future__ import annotations

import os

import slime_rollout

from driver import Job, Rewards, commit, main


def rewards(job: Job) -> Rewards:
    os.environ["FIVESCORE_URL"] = job.url
    return slime_rollout.rewards(
        job,
        custom_rm_path="fivescore.client.integrations.slime.reward",
        group_rm=True,
        reward_key="reward",
    )


main(commit("slime"), rewards)
