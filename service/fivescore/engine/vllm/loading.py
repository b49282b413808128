"""Loads weights so that no parameter stays as the memory was."""

from __future__ import annotations

from typing import Any

from fivescore.engine.vllm import internals


class Tracked:
    """A part of a worker that refuses a checkpoint without a parameter that vLLM's class has.

    ``model/weights.py`` compares checkpoints with transformers' classes. vLLM's may have more, such
    as a bias that config.json turns off.
    """

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the weights.

        Raises:
            ValueError: names the parameters that the checkpoint does not set.
        """
        internals.track_every_parameter()
        super().load_model(*args, **kwargs)  # type: ignore[misc]
