"""What slime does with fivescore's reward function, without slime.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_slime.py
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace

from transformers import AutoTokenizer

from fivescore.client.integrations.slime import reward
from fivescore.settings import DEMO

# slime's own function, which reads the tokenizer of --hf-checkpoint.
for name in ("slime", "slime.utils", "slime.utils.processing_utils"):
    sys.modules.setdefault(name, ModuleType(name))
sys.modules["slime.utils.processing_utils"].load_tokenizer = AutoTokenizer.from_pretrained  # type: ignore[attr-defined]

args = SimpleNamespace(
    hf_checkpoint=DEMO, apply_chat_template=False, reward_key="reward", eval_reward_key="reward"
)
samples = [
    SimpleNamespace(
        prompt=[{"role": "user", "content": "Name a prime."}],
        response=text,
        metadata={},
        multimodal_inputs=None,
    )
    for text in ("7<|eot_id|>", "Eight, I think.<|eot_id|>")
]
for value in asyncio.run(reward(args, samples)):  # type: ignore[arg-type]  # a list, for a list
    print(value)
