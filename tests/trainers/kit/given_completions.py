"""vLLM's chat completions, whose responses are given instead of sampled."""

from __future__ import annotations

import json
from typing import Any

import serving


class Completions(serving.Answers):
    """Answers the n-th sample of a prompt to the seed n.

    Args:
        tokenizer: the policy's, where the token ids are asked for.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._responses: dict[str, list[str]] = {}

    def give(self, samples: list[dict[str, Any]]) -> None:
        """Set the responses, and forget those before."""
        self._responses = {}
        for one in samples:
            self._responses.setdefault(key(one["messages"]), []).append(one["response"])

    def answer(self, path: str, asked: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"object": "list", "data": []}
        response = self._responses[key(asked["messages"])][asked["seed"]]
        message = {"role": "assistant", "content": response}
        if asked.get("return_tokens_as_token_ids"):
            message |= self._tokens(asked["messages"], response)
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        about = {"id": "given", "object": "chat.completion", "created": 0, "model": asked["model"]}
        return {**about, "choices": [choice]}

    def _tokens(self, messages: list[dict[str, Any]], response: str) -> dict[str, Any]:
        prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = self._tokenizer.encode(response, add_special_tokens=False)
        ids.append(self._tokenizer.eos_token_id)
        return {
            "prompt_token_ids": prompt["input_ids"],
            "generation_token_ids": ids,
            "generation_log_probs": [0.0] * len(ids),
        }


def key(messages: list[dict[str, Any]]) -> str:
    """The same for the same prompt, whatever else its messages have."""
    return json.dumps([[one["role"], one["content"]] for one in messages])
