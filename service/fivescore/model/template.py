"""Applies a checkpoint's chat template: on a fixed day, to contents in the form that it reads."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import Any

from fivescore.content import BY_TEMPLATE
from fivescore.errors import ConfigurationError, InvalidPair, first_line
from fivescore.turns import probe

DIALOGUES = (("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user"))
"""Roles of dialogues that show what a template does."""
OTHER_DAYS = (datetime.date(1987, 6, 5), datetime.date(2004, 11, 20))
"""Days that share no part of a date, to see whether a template writes one."""
DATE_VARIABLES = {"date_string": "%d %b %Y", "current_date": "%Y-%m-%d", "datetime": "%Y-%m-%d"}
"""Variables that templates read a date from, with its format; Llama 3.1 reads the first one."""


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.
        day: the day that the template writes; None stands for today, and for the template's own
            default where it has one.
        generates: whether renderings end with the template's generation prompt.

    Raises:
        ConfigurationError: there is no template, it fails, or it does not write contents.
    """

    def __init__(
        self, reference: Any, day: datetime.date | None = None, *, generates: bool = False
    ) -> None:
        if not reference.chat_template:
            raise ConfigurationError(
                "the tokenizer has no chat template: add chat_template.jinja beside the weights, or"
                ' set prompt.format to "steerlm" or "raw" in reward.json'
            )
        self._reference = reference
        self._source = _source(reference)
        self._is_fixed = day is not None
        # Chosen once, because scores must not change at midnight.
        self.day = day or datetime.datetime.now().date()
        self._variables = self._date_variables(self.day)
        self._generates = False  # what turns look like is seen without it
        self._parts = {"user": False}
        self._parts = self._find_parts()
        self.dialogue = self._plain_dialogue()
        self.tags = self._find_tags()
        self.writes_day = any(map(self._writes_day, DIALOGUES))
        self._generates = generates

    def render(self, roles: Sequence[str], contents: Sequence[str]) -> str:
        """What the template writes for these turns.

        Raises:
            InvalidPair: the template refuses them.
        """
        return self.render_dialogue(_turns(roles, contents))

    def render_or_none(self, roles: Sequence[str], contents: Sequence[str]) -> str | None:
        """What the template writes for these turns; None where it refuses them."""
        try:
            return self.render(roles, contents)
        except InvalidPair:
            return None

    def render_dialogue(self, turns: Sequence[dict[str, Any]]) -> str:
        """What the template writes for turns that may have other fields beside role and content.

        Raises:
            InvalidPair: the template refuses them.
        """
        try:
            return self.render_turns(turns)
        except Exception as error:  # a template may raise any type, for this pair alone
            raise InvalidPair(f"the chat template refuses this pair: {error}") from error

    def render_dialogue_or_none(self, turns: Sequence[dict[str, Any]]) -> str | None:
        """What the template writes for such turns; None where it refuses them."""
        try:
            return self.render_dialogue(turns)
        except InvalidPair:
            return None

    def render_turns(self, turns: Sequence[dict[str, Any]]) -> str:
        """What the template writes for such turns.

        Raises:
            Exception: of any type, where the template refuses them.
        """
        return self._apply_to(turns, self._variables)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a message beside role and content that the template's source names."""
        return frozenset(name for name in BY_TEMPLATE if name in self._source)

    @property
    def markers(self) -> list[str]:
        """Added tokens that the template writes around turns: they are structure.

        White space is not, which texts have too; nor are the tags of contents.
        """
        added = (token.content for token in self._reference.added_tokens_decoder.values())
        return [
            text
            for text in added
            if text in self.dialogue and not text.isspace() and text not in self.tags
        ]

    def knows(self, text: str) -> bool:
        """Whether the template's source has this text in it, or the name of the special token."""
        named = self._reference.special_tokens_map.items()
        return text in self._source or any(
            name in self._source for name, special in named if special == text
        )

    def _apply(
        self, roles: Sequence[str], contents: Sequence[str], variables: dict[str, Any]
    ) -> str:
        return self._apply_to(_turns(roles, contents), variables)

    def _apply_to(self, turns: Sequence[dict[str, Any]], variables: dict[str, Any]) -> str:
        turns = [{**turn} for turn in turns]
        if any(self._parts.values()):
            for turn in turns:
                as_parts = self._parts.get(turn["role"], self._parts["user"])
                if as_parts and turn["content"] is not None:
                    turn["content"] = [{"type": "text", "text": turn["content"]}]
        return str(
            self._reference.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=self._generates, **variables
            )
        )

    def _date_variables(self, day: datetime.date) -> dict[str, Any]:
        moment = datetime.datetime.combine(day, datetime.time())
        variables: dict[str, Any] = {"strftime_now": moment.strftime}
        if self._is_fixed:
            variables.update((name, moment.strftime(form)) for name, form in DATE_VARIABLES.items())
        return {name: value for name, value in variables.items() if name in self._source}

    def _find_parts(self) -> dict[str, bool]:
        """For each role whether its contents are lists of parts: templates may read those alone."""
        roles = DIALOGUES[0]
        faults: list[str] = []
        for user, assistant in ((False, False), (True, True), (True, False), (False, True)):
            self._parts = found = {"user": user, "assistant": assistant, "system": False}
            faults.append(self._unwritten(roles))
            if not faults[-1]:
                break
        else:
            raise ConfigurationError(f"the chat template {faults[0]}")
        # A system message stays a string where the template takes none at all.
        if self._unwritten(DIALOGUES[1]):
            self._parts = {**found, "system": True}
            if not self._unwritten(DIALOGUES[1]):
                return self._parts
        return found

    def _unwritten(self, roles: Sequence[str]) -> str:
        """What is wrong with a dialogue's rendering; empty where it has every content."""
        contents = [probe(turn) for turn in range(len(roles))]
        try:
            rendered = self._apply(roles, contents, self._variables)
        except Exception as error:  # a template may raise any type
            return f"fails on a plain dialogue: {first_line(error)}"
        for role, content in zip(roles, contents, strict=True):
            if content not in rendered:
                return (
                    f"does not write what the {role} says, given as text or as parts: correct"
                    " chat_template.jinja beside the weights"
                )
        return ""

    def _plain_dialogue(self) -> str:
        """A dialogue of plain turns.

        It ends with a user's turn, because some templates write more than markers, such as empty
        reasoning, into the last turn of an assistant.
        """
        roles = DIALOGUES[2]
        try:
            return self._apply(roles, ["x"] * len(roles), self._variables)
        except Exception as error:  # a template may raise any type
            raise ConfigurationError(
                f"the chat template fails on a plain dialogue: {first_line(error)}"
            ) from error

    def _find_tags(self) -> frozenset[str]:
        """Added tokens that are part of what an assistant says, such as those around reasoning.

        The template looks for them in contents, and writes them into turns of assistants alone.
        """
        named = self._reference.special_tokens_map.values()
        users = self.render_or_none(("user",), ("x",))
        if users is None:
            return frozenset()
        added = (token.content for token in self._reference.added_tokens_decoder.values())
        candidates = [
            text
            for text in added
            if text in self.dialogue and text not in users and text not in named
        ]
        tags = [text for text in candidates if self._looks_for(text)]
        # Of an opening and a closing tag a template may look for one, or for one beside the other.
        bare = {tag.replace("/", "") for tag in tags}
        pairs = [
            text
            for text in candidates
            if text.replace("/", "") in bare or any(self._looks_for(text, tag) for tag in tags)
        ]
        return frozenset((*tags, *pairs))

    def _looks_for(self, text: str, after: str = "") -> bool:
        """Whether the template does something else with a content that has this text in it.

        Args:
            after: a text that the content has after it.
        """
        hidden = probe(0)
        for roles in (DIALOGUES[0], DIALOGUES[2]):
            for content in ("{}b" + after, "a{}b" + after + "c"):
                contents = ["x", content.replace("{}", text), "x"][: len(roles)]
                seen = self.render_or_none(roles, contents)
                contents[1] = content.replace("{}", hidden)
                unseen = self.render_or_none(roles, contents)
                if seen != (unseen and unseen.replace(hidden, text)):
                    return True
        return False

    def _writes_day(self, roles: Collection[str]) -> bool:
        renderings = set()
        for day in (self.day, *OTHER_DAYS):
            try:
                renderings.add(self._apply([*roles], ["x"] * len(roles), self._date_variables(day)))
            except Exception:  # a template may refuse a role
                return False
        return len(renderings) > 1


def _turns(roles: Sequence[str], contents: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]


def _source(reference: Any) -> str:
    try:
        return str(reference.get_chat_template())
    except Exception as error:  # such as several templates, none of which is the default
        raise ConfigurationError(
            f"the tokenizer's chat template cannot be read: {first_line(error)}"
        ) from error
