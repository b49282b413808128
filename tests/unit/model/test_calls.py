"""Tool calls get what the template does to them, or are refused by name; they forge no turn."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivescore.errors import InvalidPair
from fivescore.model import calls
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat
from fivescore.model.template import ChatTemplate
from fivescore.types import Pair, parse_pair
from tests.unit.model import call_templates as made
from tests.unit.model import made_templates
from tests.unit.model import sample_tokenizers as samples
from tests.unit.model.made_templates import END, START

Json = dict[str, Any]

USER, SAID = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
WORDS = st.sampled_from(
    ("yes", " no ", "\n", '"', "\\", "{", "}", "<b>", "\u00e9", "'", "</x>", "5")
)
PLAIN = st.lists(WORDS, min_size=1, max_size=4).map("".join)
MARKERS = st.sampled_from((START, END, "<|42|>", f"{END}\n{START}user\n", "<|im_", "end|>"))
HOSTILE = st.lists(
    st.one_of(WORDS, MARKERS), min_size=1, max_size=5,
).map("".join)  # fmt: skip
NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9), st.booleans(), st.none())


def arguments(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    """Arguments of a call: objects of texts, numbers, lists and objects."""
    values = st.recursive(
        st.one_of(texts, NUMBERS),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
        max_leaves=5,
    )
    return st.dictionaries(texts, values, max_size=3)


def calling(given: Any, name: str = "f", id_: str = "abcdefghi", content: Any = "") -> Json:
    call = {"id": id_, "type": "function", "function": {"name": name, "arguments": given}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def result(text: str, name: str = "f", id_: str = "abcdefghi") -> Json:
    return {"role": "tool", "content": text, "tool_call_id": id_, "name": name}


@lru_cache(maxsize=4)
def conversation(template: str) -> Conversation:
    return Conversation(PromptFormat(), made_templates.tokenizer(template))


def ids_of(template: str, turns: list[Json]) -> list[int] | InvalidPair:
    pair = parse_pair({"prompt": turns[:-1], "response": turns[-1]})
    assert isinstance(pair, Pair), pair
    (ids,) = conversation(template).encode([pair])
    return ids


def reference(template: str, turns: list[Json]) -> str:
    """apply_chat_template's text; DeepSeek's wants arguments as a text, and no content."""
    as_text = "arguments }}" in template and "tojson" not in template
    turns = json.loads(json.dumps(turns))
    for turn in turns if as_text else ():
        for call in turn.get("tool_calls", ()):
            function = call["function"]
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
            turn["content"] = None
    tokenizer = made_templates.tokenizer(template)
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def encoded(template: str, text: str) -> list[int]:
    backend = made_templates.tokenizer(template).backend_tokenizer
    return list(backend.encode(text, add_special_tokens=False).ids)


rendering = pytest.mark.parametrize("template", made.RENDERING.values(), ids=made.RENDERING)


@rendering
@given(given=arguments(PLAIN), text=PLAIN, last=st.booleans())
@settings(max_examples=40, deadline=None)
def test_calls_and_results_get_the_ids_of_the_template(
    template: str, given: Json, text: str, last: bool
) -> None:
    turns = [USER, calling(given), result(f"r{text}r"), SAID]
    if last:
        turns += [USER, calling(given)]
    assert ids_of(template, turns) == encoded(template, reference(template, turns))


@rendering
@given(
    given=arguments(HOSTILE), text=HOSTILE, name=HOSTILE, id_=st.sampled_from(("<|42|>abc", END))
)
@settings(max_examples=40, deadline=None)
def test_no_name_id_or_argument_writes_structure(
    template: str, given: Json, text: str, name: str, id_: str
) -> None:
    turns = [USER, calling(given, name, id_), result(f"r{text}r", name, id_), SAID]
    ids = ids_of(template, turns)
    if isinstance(ids, InvalidPair):  # such as Mistral's, whose ids have nine letters
        assert "the chat template" in ids.detail or "markers" in ids.detail
        return
    tokenizer = made_templates.tokenizer(template)
    harmless = reference(template, [USER, calling({"x": "y"}), result("x"), SAID])
    for marker in (START, END, "<|42|>"):
        assert ids.count(tokenizer.convert_tokens_to_ids(marker)) == harmless.count(marker)
    decoded = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    assert decoded == reference(template, turns)


PUBLISHED = sorted(
    path.name for path in resources.files("trl").joinpath("chat_templates").iterdir()
    if path.name.endswith(".jinja") and "_training" not in path.name and path.name != "llama3.jinja"
)  # fmt: skip
CALLING_PUBLISHED = (
    "deepseek_r1_distill", "deepseekv3", "gemma4_v5", "glm4moe", "gptoss", "lfm2_2_5", "llama3_1",
    "llama3_2", "nemotron_3_nano", "qwen2_5", "qwen3", "qwen3_5_think", "qwen3_vl",
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_render_calls_as_transformers_does_or_refuse_them(name: str) -> None:
    template = resources.files("trl").joinpath("chat_templates", name).read_text()
    given = {"city": 'Paris "<b>"\n', "n": -3, "f": 1.5, "ok": True, "none": None, "": "",
             "deep": {"l": ["x", 1, {"z": "y"}]}}  # fmt: skip
    turns = [USER, calling(given), result("sunny"), SAID, USER, calling({"day": "tomorrow"})]
    ids = ids_of(template, turns)
    style = conversation(template)._guarded._style  # type: ignore[union-attr]
    if style is None:
        assert name.removesuffix(".jinja") not in CALLING_PUBLISHED
        assert isinstance(ids, InvalidPair)
        assert ids.detail.startswith("prompt.")
        return
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            turn["content"] = style.without_text
            if not style.as_objects:
                arguments = call["function"]["arguments"]
                call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    tokenizer = made_templates.tokenizer(template)
    expected = encoded(template, str(tokenizer.apply_chat_template(turns, tokenize=False)))
    assert ids in (expected, [tokenizer.bos_token_id, *expected])


@pytest.mark.parametrize(
    ("template", "turn", "fault"),
    [
        (made.PLAIN, calling({"x": "y"}), "prompt.1.tool_calls: the model's template renders no"),
        (made.NAMES_ALONE, calling({"x": "y"}), "prompt.1.tool_calls: the model's template"),
        (made.LLAMA31, {**calling({}), "tool_calls": calling({})["tool_calls"] * 2}, "one call"),
        (made.LLAMA31, calling({"x": "y"}, content="said"), "drops the content of turn 2"),
        (made.DEEPSEEK_R1, calling("{}", content="said"),
         "drops tool_calls.0.function.name of turn 2 (assistant)"),
        (made.HARMONY, {**calling({}), "tool_calls": calling({})["tool_calls"] * 2},
         "drops tool_calls.1.function.name"),
        (made.NO_NUMBERS, calling({"x": {"y": 5}}), "drops tool_calls.0.function.arguments"),
        (made.NO_NUMBERS, calling({"x": 5}), "drops tool_calls.0.function.arguments.x of turn 2"),
        (made.LONG, calling({"x": "a secret"}), "drops tool_calls.0.function.arguments.x"),
        (made.JOINED, calling({"x": "<|im_~end|>"}), "makes structure"),
        (made.QWEN25, calling("no JSON"), "arguments of turn 2 (assistant) must be a JSON"),
        (made.QWEN25, calling("[1]"), "must be a JSON object"),
        (made.QWEN25, calling('{"x": 1, "x": 2}'), "a key stands twice"),
        (made.QWEN25, calling('{"x": "\\ud800"}'), "half of a surrogate pair"),
        (made.QWEN25, calling(f'{{"x": {"[" * 40}{"]" * 40}}}'), "nest deeper than 32"),
        (made.QWEN25, calling(f'{{"x": {"[" * 10**5}{"]" * 10**5}}}'), "must be a JSON object"),
        (made.QWEN25, calling({"x": list(range(calls.MOST_LEAVES))}), "more than 16384 names"),
    ],
)  # fmt: skip
def test_what_the_template_does_not_write_whole_is_refused_by_name(
    template: str, turn: Json, fault: str
) -> None:
    error = ids_of(template, [USER, turn, USER, SAID])
    assert isinstance(error, InvalidPair)
    assert fault in error.detail
    assert isinstance(ids_of(template, [USER, SAID, USER, SAID]), list)


def test_a_word_that_the_template_takes_out_of_arguments_is_its_own_decision() -> None:
    turns = [USER, calling({"x": "a secret word"}), USER, SAID]
    assert ids_of(made.BY_WORD, turns) == encoded(made.BY_WORD, reference(made.BY_WORD, turns))


@pytest.mark.parametrize("given", ["no JSON", '{"x": 1', "[1, 2]"])
def test_arguments_that_are_no_json_are_written_where_the_template_takes_texts(given: str) -> None:
    ids = ids_of(made.QWEN3, [USER, calling(given), USER, SAID])
    assert isinstance(ids, list)
    assert given in made_templates.tokenizer(made.QWEN3).decode(ids)


@pytest.mark.parametrize("content", ["", None, []])
@rendering
def test_a_message_of_calls_alone_is_the_same_however_its_text_is_missing(
    template: str, content: Any
) -> None:
    given = {"x": "y"}
    asked = [USER, calling(json.dumps(given), content=content), result("z"), SAID]
    assert ids_of(template, asked) == ids_of(template, [USER, calling(given), result("z"), SAID])


def test_a_missing_text_is_never_written_as_none() -> None:
    ids = ids_of(made.NONE_WRITTEN, [USER, calling({"x": "y"}, content=None), USER, SAID])
    assert isinstance(ids, list)
    assert "None" not in made_templates.tokenizer(made.NONE_WRITTEN).decode(ids)


@pytest.mark.parametrize("form", ["steerlm", "raw"])
def test_formats_without_a_template_refuse_calls(form: str) -> None:
    conv = Conversation(PromptFormat(format=form), samples.nemo(markers_are_special=True))
    for prompt, response in (("Q", calling({})), ([USER, calling({}), USER], "A")):
        pair = parse_pair({"prompt": prompt, "response": response})
        assert isinstance(pair, Pair)
        (error,) = conv.encode([pair])
        assert isinstance(error, InvalidPair)
        assert error.detail.startswith(("prompt", "response"))


def test_a_pair_with_calls_is_rendered_twice_and_never_more_than_some_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = {f"k{i}": f"{END}v{i}" for i in range(2000)}
    turns = [USER, calling(many), USER, SAID]
    ids_of(made.QWEN25, [USER, SAID])
    rendered: list[Any] = []
    render = ChatTemplate.render_turns

    def counting(self: ChatTemplate, turns: Any) -> str:
        rendered.append(turns)
        return render(self, turns)

    monkeypatch.setattr(ChatTemplate, "render_turns", counting)
    assert isinstance(ids_of(made.QWEN25, turns), list)
    assert len(rendered) == 2
    pair = parse_pair({"prompt": [*turns[:2] * calls.MOST_CALLS, *turns[:3]], "response": "A"})
    (error,) = conversation(made.QWEN25).encode([pair])  # type: ignore[list-item]
    assert isinstance(error, InvalidPair)
    assert "the limit is 512" in error.detail
