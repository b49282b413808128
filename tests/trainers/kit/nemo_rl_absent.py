"""Stand-ins for what NeMo-RL imports for its logs."""

from __future__ import annotations

from absent import absent


def install() -> None:
    absent("mlflow", "swanlab", "tensorboard", "torch.utils.tensorboard")
