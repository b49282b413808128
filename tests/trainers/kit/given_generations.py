"""SGLang's router and its one engine, whose generations are given instead of sampled."""

from __future__ import annotations

from typing import Any

import serving


class Router(serving.Answers):
    """Answers the n-th sample of a prompt to the sampling seed n."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._responses: dict[tuple[int, ...], list[str]] = {}

    def give(self, samples: list[dict[str, Any]]) -> None:
        """Set the responses, and forget those before."""
        self._responses = {}
        for one in samples:
            rendered = self._tokenizer.apply_chat_template(
                one["messages"], add_generation_prompt=True, tokenize=False
            )
            ids = tuple(self._tokenizer.encode(rendered, add_special_tokens=False))
            self._responses.setdefault(ids, []).append(one["response"])

    def answer(self, path: str, asked: dict[str, Any]) -> Any:
        match path:
            case "/generate":
                return self._generation(asked)
            case "/workers":
                return {"workers": [{"url": self.url}]}
            case "/v1/loads":
                return {"loads": []}
            case "/abort_request":
                return {}
        raise LookupError(path)

    def _generation(self, asked: dict[str, Any]) -> dict[str, Any]:
        settings = asked["sampling_params"]
        response = self._responses[tuple(asked["input_ids"])][settings["sampling_seed"]]
        ids = self._tokenizer.encode(response, add_special_tokens=False)
        ids.append(self._tokenizer.eos_token_id)
        text = self._tokenizer.decode(
            ids if settings["no_stop_trim"] else ids[:-1],
            skip_special_tokens=settings["skip_special_tokens"],
            spaces_between_special_tokens=settings["spaces_between_special_tokens"],
        )
        logprobs = [[0.0, token, None] for token in ids]
        reason = {"type": "stop", "matched": ids[-1]}
        return {
            "text": text,
            "meta_info": {"output_token_logprobs": logprobs, "finish_reason": reason},
        }
