"""RewardBench: a running server as one of its reward models.

::

    # run.py, with FIVESCORE_URL in the environment
    from rewardbench import REWARD_MODEL_CONFIG
    from rewardbench.rewardbench import main  # RewardBench 2: from scripts.run_v2 import main
    from fivescore.client.integrations.rewardbench import CONFIG

    REWARD_MODEL_CONFIG["fivescore"] = CONFIG
    main()

    python run.py --model fivescore --tokenizer <the reward model's folder or hub id>

RewardBench renders with that tokenizer's chat template, so it must be the reward model's own. The
server's limit of tokens replaces RewardBench's ``--max_length``: longer texts lose their start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fivescore.client import RewardClient

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def model_builder(name: str = "fivescore", **options: Any) -> torch.nn.Module:
    """A module without weights, because RewardBench needs one; the model is on the server."""
    from torch import nn

    module = nn.Module()
    module.config = SimpleNamespace(pad_token_id=0)
    return module


class Pipeline:
    """A pipeline for RewardBench: batches of texts in, rewards out.

    Args:
        task: not used.
        client_options: of ``fivescore.client.RewardClient``.
    """

    def __init__(
        self, task: str = "", *, model: Any = None, tokenizer: Any = None, **client_options: Any
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._client = RewardClient(**client_options)

    def __call__(self, texts: Sequence[str], **options: Any) -> torch.Tensor:
        """Combined rewards, float32, shape ``[len(texts)]``.

        Args:
            texts: whole conversations in the reward model's template.
            options: those of a transformers pipeline; not used.

        Raises:
            FivescoreError: a text could not be scored.
        """
        import torch

        scores = self._client.score([{"text": text} for text in texts], truncate="prompt_start")
        if cut := sum(score.truncated for score in scores):
            log.warning("%d of %d texts were too long: their start was cut off", cut, len(scores))
        return torch.tensor([score.reward for score in scores], dtype=torch.float32)


CONFIG = {
    "model_builder": model_builder,
    "pipeline_builder": Pipeline,
    "quantized": False,
    "custom_dialogue": False,
    "model_type": "Seq. Classifier",
}
"""An entry for ``REWARD_MODEL_CONFIG``."""
