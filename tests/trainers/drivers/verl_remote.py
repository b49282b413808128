"""verl: its manager ``remote`` and our ``compute_score_sync``."""

import verl_rewards

verl_rewards.run(
    "reward.reward_manager.name=remote",
    f"reward.custom_reward_function.path={verl_rewards.OURS}",
    "reward.custom_reward_function.name=compute_score_sync",
    "reward.num_workers=1",  # each has a process of its own
)
