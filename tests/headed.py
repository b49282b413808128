"""Tiny checkpoints whose head is not one linear layer, and what plain torch computes for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from tests.checkpoints import MAKERS, SHAPE, write_manifest

FILE = "model.safetensors"
HIDDEN = int(SHAPE["hidden_size"])
PROMPT_END = {
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    "qwen": "<|im_end|>\n<|im_start|>assistant",
}
FUNCTIONS = {
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "selu": torch.selu,
    "tanh": torch.tanh,
}


class Headed:
    """A checkpoint of a family's maker with another head, and its reference.

    Args:
        head: ``head`` of reward.json.
        outputs: of reward.json; each becomes an attribute ``o0``, ``o1`` and so on, and the last is
            the reward.
        tied: of a token head, whether its rows are the embedding's.
    """

    def __init__(
        self, folder: Path, family: str, head: dict[str, Any], outputs: int, tied: bool = False
    ) -> None:
        self.folder = MAKERS[family](folder)
        self.head, self.outputs = head, outputs
        self._tied = tied
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if head["kind"] == "gated" and head["gate"].get("at") == "prompt":
            head["gate"]["at"] = self.tokenizer.encode(PROMPT_END[family], add_special_tokens=False)
        torch.manual_seed(11)
        found = load_file(folder / FILE)
        del found["score.weight"]
        self.tensors = self._made(found)
        save_file(found | self.tensors, folder / FILE, metadata={"format": "pt"})
        self._configure(tie_word_embeddings=tied)
        prompt = {"format": "chat_template"}
        attributes = {f"o{place}": {"output": place} for place in range(outputs)}
        reward = {"output": outputs - 1}
        self.manifest = {"version": 2, "outputs": outputs, "attributes": attributes,
                         "reward": reward, "prompt": prompt, "head": head}  # fmt: skip
        write_manifest(folder, self.manifest)

    def _made(self, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kind, n = self.head["kind"], self.outputs
        if kind == "token":
            self._rows = found["model.embed_tokens.weight"]
            if self._tied:
                return {}
            self._rows = torch.randn(self._rows.shape) * 0.3
            return {"lm_head.weight": self._rows}
        if kind == "mlp":
            return _chain("score", (HIDDEN, *self.head["hidden"], n))
        one = {"score.weight": torch.randn(n - 1, HIDDEN) * 0.3, "score.bias": torch.randn(n - 1)}
        return one | _chain("gate", (HIDDEN, *self.head["gate"].get("hidden", ()), n - 1))

    def _configure(self, **entries: Any) -> None:
        file = self.folder / "config.json"
        config = json.loads(file.read_text()) | entries
        for name in ("id2label", "label2id", "num_labels"):
            config.pop(name, None)
        if self.head["kind"] == "token":
            name = config["architectures"][0]
            config["architectures"] = [name.replace("SequenceClassification", "CausalLM")]
        file.write_text(json.dumps(config))

    @cached_property
    def _body(self) -> Any:
        return AutoModel.from_pretrained(
            self.folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def token_ids(self, prompt: str, response: str) -> list[int]:
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
        ]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def reference(self, token_ids: Sequence[int]) -> list[float]:
        """The outputs that the formula of the head's kind gives."""
        with torch.inference_mode():
            states = self._body(input_ids=torch.tensor([token_ids])).last_hidden_state[0]
            return [float(value) for value in self._formula(states, list(token_ids))]

    def _formula(self, states: torch.Tensor, ids: list[int]) -> torch.Tensor:
        head, last = self.head, states[-1]
        if head["kind"] == "token":
            minus = head.get("minus")
            row = self._rows[head["token"]]
            return (last @ (row if minus is None else row - self._rows[minus])).reshape(1)
        if head["kind"] == "mlp":
            return self._through("score", last, head.get("activation", "relu"))
        gate = head["gate"]
        rewards = self.tensors["score.weight"] @ last + self.tensors["score.bias"]
        logits = self._through("gate", self._at(states, ids), gate.get("activation", "relu"))
        weights = torch.softmax(logits, 0) if gate.get("softmax", True) else logits
        total = (weights * gate.get("scale", 1.0) * rewards).sum()
        return torch.cat([rewards, total.reshape(1)])

    def _at(self, states: torch.Tensor, ids: list[int]) -> torch.Tensor:
        at = list(self.head["gate"].get("at", ()))
        if not at:
            return states[-1]
        places = [i for i in range(len(ids)) if ids[i : i + len(at)] == at]
        return states[places[-1]]

    def _through(self, name: str, state: torch.Tensor, activation: str) -> torch.Tensor:
        count = sum(key.startswith(f"{name}.") and key.endswith("weight") for key in self.tensors)
        for place in range(count):
            if place:
                state = FUNCTIONS[activation](state)
            layer = f"{name}.{2 * place}"
            state = self.tensors[f"{layer}.weight"] @ state + self.tensors[f"{layer}.bias"]
        return state


def _chain(name: str, widths: Sequence[int]) -> dict[str, torch.Tensor]:
    tensors = {}
    for place, (into, out) in enumerate(pairwise(widths)):
        tensors[f"{name}.{2 * place}.weight"] = torch.randn(out, into) * 0.3
        tensors[f"{name}.{2 * place}.bias"] = torch.randn(out)
    return tensors
