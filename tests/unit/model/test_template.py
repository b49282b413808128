"""A template's date is fixed, and what it leaves open is said at the load."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.template import ChatTemplate
from tests.unit.model import made_templates as made
from tests.unit.model import sample_tokenizers as samples

DAY = datetime.date(2026, 2, 3)
ROLES, CONTENTS = ("user", "assistant"), ("Q", "A")


def test_a_template_that_fails_is_a_configuration_error() -> None:
    for broken in ("{{ messages[7]['content'].nothing() }}", "{{ raise_exception('no') }}"):
        with pytest.raises(ConfigurationError, match="fails on a plain dialogue") as caught:
            ChatTemplate(made.tokenizer(broken))
        assert "\n" not in caught.value.detail


def test_several_templates_without_a_default_are_a_configuration_error() -> None:
    tokenizer = copy.copy(made.tokenizer(made.TRIMMED))
    tokenizer.chat_template = {"rag": made.TRIMMED, "tool_use": made.TRIMMED}
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ChatTemplate(tokenizer)
    tokenizer.chat_template = {"rag": made.REPEATS, "default": made.TRIMMED}
    assert "Q" in ChatTemplate(tokenizer).render(ROLES, CONTENTS)


@pytest.mark.parametrize("source", [made.DATED, made.LLAMA31_DATE, made.LLAMA32_DATE])
def test_the_day_of_the_manifest_is_written_however_the_template_gets_it(source: str) -> None:
    rendered = ChatTemplate(made.tokenizer(source), DAY).render(ROLES, CONTENTS)
    assert "Today is 03 Feb 2026" in rendered


@pytest.mark.parametrize("source", [made.DATED, made.LLAMA32_DATE])
def test_without_a_day_it_is_the_one_of_the_load_for_ever(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 2, 3, 23, 59)

    monkeypatch.setattr(datetime, "datetime", Clock)
    template = ChatTemplate(made.tokenizer(source))
    monkeypatch.undo()
    assert template.writes_day
    assert template.day == DAY
    assert "Today is 03 Feb 2026" in template.render(ROLES, CONTENTS)


def test_a_default_day_of_the_template_stays_without_one_in_the_manifest() -> None:
    template = ChatTemplate(made.tokenizer(made.LLAMA31_DATE))
    assert not template.writes_day
    assert "Today is 26 Jul 2024" in template.render(ROLES, CONTENTS)


def test_a_day_that_is_written_into_a_system_message_alone_is_found() -> None:
    assert ChatTemplate(made.tokenizer(made.DATED_WITH_SYSTEM)).writes_day
    assert not ChatTemplate(samples.chatml()).writes_day


@pytest.mark.parametrize(
    ("name", "tags"), [("glm", {"<think>", "</think>"}), ("trimmed", set()), ("ended once", set())]
)
def test_tags_of_what_an_assistant_says_are_no_markers(name: str, tags: set[str]) -> None:
    template = ChatTemplate(made.tokenizer(made.LOOKING[name]))
    assert template.tags == tags
    assert set(template.markers) == {made.START, made.END}
