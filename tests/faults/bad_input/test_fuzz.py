"""Whatever goes into parsing, rendering and manifests, nothing but the error tree comes out.

``--hypothesis-seed`` repeats a run; TEST_LONG_FORM=1 tries fifty times as many examples.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError, FivescoreError, InvalidPair
from fivescore.http import routes
from fivescore.http.body import json_response, parse_json
from fivescore.model import manifest as manifests
from fivescore.model.conversation import Conversation
from fivescore.model.helpsteer2 import messages
from fivescore.model.manifest import FILE_NAME, PRESETS, PromptFormat
from fivescore.policy import PolicyTemplate
from fivescore.scoring import truncation
from fivescore.types import Pair, parse_pair
from tests.unit.model import policy_tokenizers, sample_tokenizers

EXAMPLES = 60 * (50 if os.environ.get("TEST_LONG_FORM") else 1)
hard = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
SPECIAL = (
    "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<s>", "</s>",
    "<unk>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>\n", "<|endoftext|>", "<extra_id_0>",
    "\n<extra_id_1>Assistant\n", "\n<extra_id_1>User\n", "<extra_id_2>", "user", "assistant",
    "\ue000", "\ue001", "\ue002", "\ue003", "\ue004", "\ue010", "\0", "\ufffd", "{{", "}}", "{%",
    "\u200d", "\u0301", " " * 40, "\n" * 9, "\r\n", "\u2581", "\u0120",
)  # fmt: skip
TEXT = st.lists(st.sampled_from(SPECIAL) | st.text(max_size=6), max_size=12).map("".join)
ANY_TEXT = TEXT | st.text(st.characters(), max_size=8)  # halves of surrogate pairs too
ROLE = st.sampled_from(("system", "user", "assistant", "tool", ""))
LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
    | st.sampled_from((2**31, 2**63, -1, 10**400, 1e308))
)  # fmt: skip
FIELDS = (
    "prompt", "response", "text", "token_ids", "role", "content", "pairs", "weights", "truncate",
    "timeout_seconds", "helpfulness",
)  # fmt: skip
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
TURN = st.fixed_dictionaries({"role": ROLE, "content": ANY_TEXT})
PAIR = (
    st.fixed_dictionaries({"prompt": ANY_TEXT | st.lists(TURN, max_size=5), "response": ANY_TEXT})
    | st.fixed_dictionaries({"text": ANY_TEXT})
    | st.fixed_dictionaries({"token_ids": st.lists(st.integers(), max_size=5)})
)


def _check(error: FivescoreError, named: str = "") -> None:
    assert error.detail
    assert "\n" not in error.detail
    assert named in error.detail


@given(st.binary(max_size=200) | VALUE.map(lambda value: json.dumps(value).encode()))
@hard
def test_bytes(body: bytes) -> None:
    try:
        value = parse_json(body)
        json_response(value)
    except FivescoreError as error:
        _check(error)


@given(body=VALUE, pair=PAIR, options=st.dictionaries(st.sampled_from(FIELDS), VALUE, max_size=3))
@hard
def test_requests(body: Any, pair: Any, options: dict[str, Any]) -> None:
    for value in (body, {**pair, **options}, {"pairs": [pair, body], **options}):
        try:
            asked = routes.parse(value)
        except FivescoreError as error:
            _check(error)
            continue
        assert all(isinstance(one, Pair | InvalidPair) for one in asked.pairs)


CONVERSATIONS: dict[str, tuple[Callable[[], Any], PromptFormat]] = {
    "demo": (sample_tokenizers.demo, PromptFormat()),
    "raw": (sample_tokenizers.demo, PromptFormat(format="raw")),
    "chatml": (sample_tokenizers.chatml, PromptFormat(system="S")),
    "fine-tuned": (sample_tokenizers.chatml_by_fine_tuning, PromptFormat()),
    "llama2": (lambda: sample_tokenizers.llama2(template_has_bos=True), PromptFormat()),
    "unigram": (sample_tokenizers.unigram, PromptFormat()),
    "steerlm": (
        lambda: sample_tokenizers.nemo(markers_are_special=True), PromptFormat(format="steerlm")
    ),
    "steerlm text": (
        lambda: sample_tokenizers.nemo(markers_are_special=False), PromptFormat(format="steerlm")
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CONVERSATIONS))
def conversation(request: pytest.FixtureRequest) -> Conversation:
    make, prompt = CONVERSATIONS[request.param]
    return Conversation(prompt, make())


@given(values=st.lists(PAIR, min_size=1, max_size=4), excess=st.integers(0, 40))
@hard
def test_rendering(conversation: Conversation, values: list[Any], excess: int) -> None:
    parsed = [parse_pair(value) for value in values]
    pairs = [pair for pair in parsed if isinstance(pair, Pair) and pair.token_ids is None]
    pairs += [truncation.shorten(pair, excess) for pair in pairs]
    together = conversation.encode(pairs)
    assert len(together) == len(pairs)
    for pair, ids in zip(pairs, together, strict=True):
        if isinstance(ids, InvalidPair):
            assert ids.detail
            continue
        assert conversation.encode([pair]) == [ids]  # no neighbour changes a pair
        if ids:
            kept = truncation.keep_end(ids, 1 + excess % len(ids), conversation.tokenizer.bos_id)
            assert len(kept) == 1 + excess % len(ids)
            assert kept[-1] == ids[-1]


@pytest.fixture(scope="module")
def policy() -> PolicyTemplate:
    return PolicyTemplate(policy_tokenizers.chatml())


@given(query=TEXT, prompt=TEXT, response=TEXT, cut=st.integers(0, 30))
@hard
def test_taking_apart(
    policy: PolicyTemplate, query: str, prompt: str, response: str, cut: int
) -> None:
    rendered = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    for text, start in ((query, prompt), (prompt + response, prompt), (rendered, rendered)):
        assert isinstance(policy.take_apart(text, start), Pair | InvalidPair)
        assert isinstance(policy.take_apart(text[cut:], start), Pair | InvalidPair)
    assert isinstance(policy.pair(rendered, response), Pair | InvalidPair)
    assert "".join(turn.content for turn in messages(prompt)) in (
        prompt, prompt.replace("\n<extra_id_1>Assistant\n", "").replace("\n<extra_id_1>User\n", "")
    )  # fmt: skip


MANIFEST = PRESETS["nemotron-4-340b-reward"].model_dump(mode="json")


def _spoiled(draw: st.DrawFn) -> Any:
    """A manifest with anything in the place of one of its parts."""
    value = copy.deepcopy(MANIFEST)
    here: Any = value
    while True:
        key = draw(st.sampled_from(sorted(here)))
        if not isinstance(here[key], dict) or not here[key] or draw(st.booleans()):
            here[key] = draw(VALUE)
            return value
        here = here[key]


@given(
    st.binary(max_size=100)
    | VALUE.map(lambda value: json.dumps(value).encode())
    | st.composite(_spoiled)().map(lambda value: json.dumps(value).encode())
)
@hard
def test_manifests(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("manifest") / FILE_NAME
    path.write_bytes(content)
    try:
        found = manifests.read(str(path))
    except ConfigurationError as error:
        _check(error, str(path))
        return
    assert max((reading.output for reading in found.attributes.values()), default=0) < found.outputs


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
@hard
def test_manifest_names(name: str) -> None:
    assume(name not in PRESETS)
    with pytest.raises(ConfigurationError):
        manifests.read(name)
