"""verl: its manager ``naive``, the default, and our ``compute_score``."""

import verl_rewards

verl_rewards.run(
    f"reward.custom_reward_function.path={verl_rewards.OURS}",
)
