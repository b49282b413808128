"""verl: its manager ``rate_limited`` and our ``compute_score``."""

import verl_rewards

verl_rewards.run(
    "reward.reward_manager.name=rate_limited",
    "+reward.max_concurrent=64",
    f"reward.custom_reward_function.path={verl_rewards.OURS}",
)
