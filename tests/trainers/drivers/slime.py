"""slime: its rollout, with ``--rm-type remote_rm``."""

from __future__ import annotations

import slime_rollout

from driver import Job, Rewards, commit, main


def rewards(job: Job) -> Rewards:
    return slime_rollout.rewards(job, rm_type="remote_rm", rm_url=f"{job.url}/reward")


main(commit("slime"), rewards)
