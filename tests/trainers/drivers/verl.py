"""verl: our reward manager."""

import verl_rewards

verl_rewards.run(
    "reward.reward_manager.source=importlib",
    "reward.reward_manager.name=RewardManager",
    f"reward.reward_manager.module.path={verl_rewards.OURS}",
)
