"""A body whose weights are read as they are used gives what the whole body gives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from fivescore.errors import ConfigurationError
from fivescore.model import streaming, tensors
from fivescore.model.streaming import StreamedBody
from fivescore.model.tensors import Stored
from tests.unit.model.tiny_weights import change, configure, make

SEQUENCES = [[5, 9, 3, 60, 2], [7], [11, 12, 13, 14, 15, 16, 17, 18], [40, 41]]
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4,
    "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
}  # fmt: skip


def whole(folder: Path) -> list[torch.Tensor]:
    body = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        return [body.eval()(torch.tensor([ids])).last_hidden_state[0] for ids in SEQUENCES]


def streamed(folder: Path) -> StreamedBody:
    return StreamedBody(folder, tensors.stored(folder, str(folder)), str(folder))


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
                   "max_position_embeddings": 4}),
        ("llama", {"rope_parameters": LONGROPE}),
        ("llama", {"dtype": "bfloat16"}),
        ("qwen2", {}),
        ("gpt2", {}),
        ("mixtral", {}),
    ],
)  # fmt: skip
def test_states_are_those_of_the_whole_body(
    family: str, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = make(tmp_path, family, **config)
    found = streamed(folder).hidden_states(SEQUENCES)
    for one, other in zip(found, whole(folder), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_memory_holds_one_module_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path)
    alive: set[int] = set()
    most = reads = 0

    def counting(self: Stored) -> torch.Tensor:
        nonlocal most, reads
        tensor = tensors.read_tensor(self.file, self.name)
        alive.add(id(tensor))
        weakref.finalize(tensor, alive.discard, id(tensor))
        reads += 1
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(Stored, "read", counting)
    body = streamed(folder)
    assert reads == 0
    body.hidden_states(SEQUENCES)
    assert reads > 10
    assert most <= 2


def counted(states: Callable[[Any], Any], passes: list[int]) -> Callable[[Any], Any]:
    def counting(sequences: Any) -> Any:
        passes.append(len(sequences))
        return states(sequences)

    return counting


def test_sequences_of_like_lengths_share_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MOST_TOKENS", 16)
    done: list[float] = []
    passes: list[int] = []
    body = streamed(make(tmp_path))
    monkeypatch.setattr(body, "_states", counted(body._states, passes))
    body.hidden_states(SEQUENCES, done.append)
    assert passes == [3, 1]
    assert sum(done) == pytest.approx(4)
    assert len(done) > 20  # the progress is seen within a pass


def test_what_transformers_cannot_load_is_one_line(tmp_path: Path) -> None:
    folder = change(make(tmp_path), remove=["model.layers.1.mlp.up_proj.weight"])
    configure(folder, model_type="unheard_of")
    with pytest.raises(ConfigurationError, match="transformers cannot load it as the reference"):
        streamed(folder)
