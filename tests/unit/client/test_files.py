"""Rows of a file that hold more than texts are bad rows, and are not sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fivescore.client import AsyncRewardClient
from fivescore.client.files import score_file
from tests.unit.client.fakes import Fleet, Hurry

USER = {"role": "user", "content": "Q"}
CALL = {"function": {"name": "f", "arguments": "{}"}}
PAIR: dict[str, Any] = {"prompt": [USER], "response": "1"}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({**PAIR, "tools": [CALL]}, "tools"),
        ({**PAIR, "images": ["x"]}, "images"),
        ({**PAIR, "audio": {"path": "x"}}, "audio"),
        ({**PAIR, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
        ({**PAIR, "prompt": [{**USER, "tool_calls": [CALL]}]}, "prompt.0.tool_calls"),
        ({**PAIR, "prompt": [{**USER, "reasoning": "x"}]}, "prompt.0.reasoning"),
        ({**PAIR, "prompt": [{**USER, "content": [{"image": "x"}]}]}, "prompt.0.content"),
        ({**PAIR, "prompt": [{"role": "user"}]}, "prompt.0.content"),
    ],
)
async def test_a_row_that_is_more_than_texts_is_a_bad_row(
    tmp_path: Path, row: dict[str, Any], field: str
) -> None:
    empty = dict.fromkeys(("tools", "images", "audio", "documents"))
    turn: dict[str, Any] = {**USER, "tool_calls": [], "refusal": None}
    rows = [PAIR, row, {**PAIR, **empty, "prompt": [turn], "label": "x"}]
    source, target = tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in rows))
    fleet = Fleet()
    client = AsyncRewardClient("http://rm", transport=fleet, clock=Hurry())
    scored = await score_file(client, source, target, batch_size=8, concurrency=1)
    assert [request.pairs for request in fleet.requests] == [[PAIR, PAIR]]
    assert scored.bad.first == {"invalid_pair": f"{source}:2"}
    error = json.loads(target.read_text().splitlines()[1])["error"]
    assert error["code"] == "invalid_pair"
    assert error["detail"].startswith(f"{field}: ")
