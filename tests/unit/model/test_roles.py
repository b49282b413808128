"""Which roles a template is found to know, and what becomes of turns in the others."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fivescore.errors import InvalidPair
from fivescore.model import roles
from fivescore.model.calls import find_style
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat
from fivescore.types import Message, Pair
from tests.unit.model import sample_tokenizers as samples

EVERY = "{% for m in messages %}"
END = "{% endfor %}"
GENERIC = EVERY + "<{{ m.role }}>{{ m.content }}" + END
TURN = "<{{ m.role }}>{{ m.content }}"
DROPPING = EVERY + "{% if m.role in ('user', 'assistant') %}" + TURN + "{% endif %}" + END
RAISING = (
    "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]"
    "{% elif m.role in ('assistant', 'system') %}{{ m.content }}|"
    "{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
)
ELSE_IS_ASSISTANT = (
    EVERY + "{% if m.role == 'user' %}U{% elif m.role == 'system' %}S{% else %}A{% endif %}"
    "{{ m.content }}\n" + END
)
LLAMA_31 = (  # a system message is taken out, and a tool's text is written as JSON
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}<system>{{ s }}"
    "{% for m in messages %}{% if m.role in ('tool', 'ipython') %}<ipython>{{ m.content | tojson }}"
    "{% else %}<{{ m.role }}>{{ m.content | trim }}{% endif %}{% endfor %}"
)
MISTRAL_3 = (  # a system message is written before the user's last, if that is the last of all
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "[INST]{% if loop.last and s is defined %}{{ s }}{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}"
    "{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"
    "{{ raise_exception('tool call ids are 9 letters') }}{% endif %}{{ m.content }}"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
HARMONY = (
    EVERY + "{% if m.role in ('system', 'developer') %}<developer>{{ m.content }}"
    "{% elif m.role == 'tool' %}<functions to=assistant>{{ m.content }}"
    "{% else %}" + TURN + "{% endif %}" + END
)
ROLELESS = EVERY + "{{ m.content }}\n" + END
NEEDS_CALLS = (
    EVERY + "{% if m.role == 'tool' %}{{ loop.previtem.tool_calls[0].function.name }}{% endif %}"
    + TURN + "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}" + END
)  # fmt: skip


def render(template: str) -> roles.Render:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(text: str) -> None:
        raise ValueError(text)

    environment.globals["raise_exception"] = raise_exception
    compiled = environment.from_string(template)
    return lambda turns: compiled.render(messages=turns)


@pytest.mark.parametrize(
    ("template", "others"),
    [
        (GENERIC, {"system", "developer", "tool"}),
        (DROPPING, set()),
        (RAISING, {"system"}),
        (ELSE_IS_ASSISTANT, {"system"}),
        (LLAMA_31, {"system", "developer", "tool"}),
        (MISTRAL_3, set()),
        (HARMONY, {"system", "developer", "tool"}),
        (ROLELESS, {"system"}),
        (NEEDS_CALLS, {"system", "developer", "tool"}),
    ],
)
def test_a_template_knows_the_roles_whose_turns_it_writes(template: str, others: set[str]) -> None:
    style = find_style(render(template))
    known = roles.known(render(template), style and style.probe())
    assert set(known) == {"user", "assistant"} | others


def _conversation(template: str, **prompt: Any) -> tuple[Conversation, Any]:
    reference = samples.chatml()
    reference = type(reference)(
        tokenizer_object=reference.backend_tokenizer, eos_token="<|im_end|>",
        pad_token="<|endoftext|>", chat_template=template,
    )  # fmt: skip
    return Conversation(PromptFormat(**prompt), reference), reference


def _pair(*names: str) -> Pair:
    turns = [Message.model_validate({"role": name, "content": "a text"}) for name in names]
    return Pair(prompt=turns, response="x")


@pytest.mark.parametrize("template", [GENERIC, HARMONY])
def test_known_roles_reach_the_template(template: str) -> None:
    conversation, reference = _conversation(template)
    names = ("developer", "user", "assistant", "tool")
    turns = [{"role": name, "content": "a text"} for name in names]
    turns.append({"role": "assistant", "content": "x"})
    rendered = reference.apply_chat_template(turns, tokenize=False)
    assert conversation.encode([_pair(*names)]) == [
        reference(rendered, add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize("template", [RAISING, ELSE_IS_ASSISTANT])
def test_of_unknown_roles_a_developer_is_the_system_and_a_tool_is_refused(template: str) -> None:
    conversation, _ = _conversation(template)
    developer, system, tool = conversation.encode([
        _pair("developer", "user"), _pair("system", "user"), _pair("user", "assistant", "tool"),
    ])  # fmt: skip
    assert developer == system
    assert isinstance(developer, list)
    assert isinstance(tool, InvalidPair)
    known = "system, user, assistant"
    assert tool.detail == (
        f"prompt.2.role: tool is unknown to the model's template, which knows {known}"
    )


def test_a_developers_message_replaces_the_manifests_system_prompt() -> None:
    conversation, reference = _conversation(GENERIC, system="Be kind.")
    turns = [{"role": name, "content": "a text"} for name in ("developer", "user")]
    turns.append({"role": "assistant", "content": "x"})
    rendered = reference.apply_chat_template(turns, tokenize=False)
    assert conversation.encode([_pair("developer", "user")]) == [
        reference(rendered, add_special_tokens=False)["input_ids"]
    ]


def test_steerlm_knows_no_tools() -> None:
    conversation = Conversation(
        PromptFormat(format="steerlm"), samples.nemo(markers_are_special=True)
    )
    tool, developer = conversation.encode([_pair("user", "tool"), _pair("developer", "user")])
    assert isinstance(tool, InvalidPair)
    assert isinstance(developer, list)
