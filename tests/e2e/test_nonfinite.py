"""A pair whose output is not a finite number leaves all others as they are, then and later."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.checkpoints import MAX_TOKENS, llama
from tests.e2e.server import Server, running

SPOILED = 300
"""A token whose embedding is not finite."""
PLAIN = [i for i in range(20, 600) if i != SPOILED]
TOLERANCE = 1e-5
Pairs = list[dict[str, list[int]]]


def spoiled(folder: Path, value: float) -> Path:
    weights = load_file(llama(folder) / "model.safetensors")
    weights["model.embed_tokens.weight"][SPOILED] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def pairs(count: int, seed: int) -> Pairs:
    chosen = random.Random(seed)
    return [
        {"token_ids": chosen.choices(PLAIN, k=chosen.randint(1, MAX_TOKENS - 1))}
        for _ in range(count)
    ]


def with_spoiled_token(innocent: Pairs) -> Pairs:
    """The same pairs, each with the token in its middle: they share their beginnings."""
    found = []
    for pair in innocent:
        ids = list(pair["token_ids"])
        ids[len(ids) // 2] = SPOILED
        found.append({"token_ids": ids})
    return found


def rewards(server: Server, asked: Pairs) -> list[float]:
    return [entry.get("reward", math.nan) for entry in server.score([*asked])]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_it_leaves_its_neighbours_alone(value: float, tmp_path: Path) -> None:
    """The cache has so few blocks that each is used again and again."""
    model = spoiled(tmp_path / "model", value)
    flags = ("--model", str(model), "--engine.kv-cache-memory-bytes", str(2**20))
    innocent, poison = pairs(200, seed=1), with_spoiled_token(pairs(20, seed=2))
    with running(tmp_path / "log", *flags) as server:
        server.until_ready()
        clean = rewards(server, innocent)
        assert all(map(math.isfinite, clean))

        assert all(map(math.isnan, rewards(server, poison)))
        assert rewards(server, innocent) == pytest.approx(clean, rel=0, abs=TOLERANCE)

        together = [*innocent, *poison, *with_spoiled_token(innocent[:100])]
        order = random.Random(3).sample(range(len(together)), len(together))
        found = dict(zip(order, rewards(server, [together[i] for i in order]), strict=True))
        assert [found[i] for i in range(200)] == pytest.approx(clean, rel=0, abs=TOLERANCE)
        assert all(math.isnan(found[i]) for i in range(200, len(together)))

        assert rewards(server, innocent) == pytest.approx(clean, rel=0, abs=TOLERANCE)
        codes = {entry["error"]["code"] for entry in server.score([*poison])}
        assert codes == {"non_finite"}
        assert server.metric("fivescore_engine_restarts_total") == 0
