"""The start of the training finds words of the prompt in the response."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaModel

from demo import build, initial


def test_a_word_of_the_prompt_is_marked_in_the_response_and_no_other(tmp_path: Path) -> None:
    build.write_start(build.CHECKPOINT, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [
        {"role": "user", "content": "Tell me about drawers."},
        {"role": "assistant", "content": "Some drawers hold clothes."},
    ]
    ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)
    tokens = ids["input_ids"]
    words = [tokenizer.decode([token]) for token in tokens]
    with torch.inference_mode():
        states = LlamaModel.from_pretrained(tmp_path)(
            input_ids=torch.tensor([tokens]), output_hidden_states=True
        ).hidden_states
    found = dict(zip(words, states[2][0, :, initial.IN_PROMPT], strict=True))
    response = states[1][0, :, initial.IN_RESPONSE] > initial.SCALE
    assert response.tolist() == [
        tokens.index(tokenizer.eos_token_id) <= i for i in range(len(tokens))
    ]
    assert found[" hold"] < found["ers"] / 2
