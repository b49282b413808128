"""Published reward models whose reward is a logit of the language model: NVIDIA's Nemotron."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.published import templates
from tests.published.bodies import HIDDEN, body, weight, write
from tests.published.published import Published, Values
from tests.published.rendering import Rendering
from tests.published.vocabularies import llama3

YES, NO = 9642, 2822
"""Token ids of the answers (card of Llama-3.3-Nemotron-70B-Reward-Principle)."""
ROWS = 128256


def nemotron_31(folder: Path) -> Published:
    """Llama-3.1-Nemotron-70B-Reward-HF: the logit of id 0 after [user, assistant].

    No generation prompt. From the card: ``scores[0][0][0]`` of one generated token.
    """
    return _nemotron(folder / "Llama-3.1-Nemotron-70B-Reward-HF", seed=21)


def nemotron_33(folder: Path) -> Published:
    """Llama-3.3-Nemotron-70B-Reward: the same, without BOS, as the ids on its card are."""
    return _nemotron(folder / "Llama-3.3-Nemotron-70B-Reward", seed=22, bos=False)


def nemotron_33_principle(folder: Path) -> Published:
    """Llama-3.3-Nemotron-70B-Reward-Principle: logit(Yes) - logit(No) after a question.

    The question is one more turn of the user, and a generation prompt follows. From the card.
    """
    name = "Llama-3.3-Nemotron-70B-Reward-Principle"
    return _nemotron(folder / name, seed=23, token=YES, minus=NO, principle=True)


def _nemotron(
    folder: Path,
    seed: int,
    *,
    token: int = 0,
    minus: int | None = None,
    bos: bool = True,
    principle: bool = False,
) -> Published:
    template = templates.LLAMA3 if bos else templates.LLAMA3_NO_BOS
    vocabulary = llama3(template)
    made = body("llama3.1", ROWS, seed=seed, eos_token_id=[128001, 128008, 128009])
    head = weight(ROWS, HIDDEN, seed=seed)
    config = {"architectures": ["LlamaForCausalLM"], **made.config}
    write(folder, config, {**made.tensors, "lm_head.weight": head}, form="sharded")
    vocabulary.write(folder)

    def values(ids: Sequence[int]) -> Values:
        logits = head.float() @ made.hidden(ids)[-1]
        return {"reward": float(logits[token] - (0 if minus is None else logits[minus]))}

    rendering = Rendering(vocabulary, bos="auto" if bos else "never", principle=principle)
    preset = f"llama-3.{1 if '3.1' in folder.name else 3}-nemotron-70b-reward"
    preset += "-principle" if principle else ""
    return Published(folder, rendering, values, direct=("--manifest", preset))
