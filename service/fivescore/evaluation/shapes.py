"""Rows of the published preference formats, read into one type."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fivescore import content
from fivescore.content import Unscored
from fivescore.data.reader import Source
from fivescore.data.rows import BadRow, Row, is_number, none_usable
from fivescore.model import helpsteer2

log = logging.getLogger(__name__)

Prompt = str | list[dict[str, Any]]
Fields = dict[str, Any]
Parsed = TypeVar("Parsed")
PREFERENCE_FIELDS = frozenset({"chosen", "output_1", "preference_strength"})
"""Fields by which a row counts as a preference."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to one prompt, the preferred one first; ``id`` names it in reports."""

    id: str
    subset: str
    prompt: Prompt
    chosen: str
    rejected: str

    def pairs(self) -> list[dict[str, Any]]:
        """The two pairs to score: the chosen response, then the rejected one."""
        return [
            {"prompt": self.prompt, "response": self.chosen},
            {"prompt": self.prompt, "response": self.rejected},
        ]


def usable(
    sources: Sequence[Source], parse: Callable[[Source, Row], Parsed], what: str
) -> list[Parsed]:
    """The rows as ``parse`` returns them; rows for which it raises BadRow are counted and logged.

    Args:
        what: names the expected rows in the error.

    Raises:
        ConfigurationError: no row can be used; says why, with the first place of each reason.
    """
    parsed: list[Parsed] = []
    for source in sources:
        for row in source.rows:
            try:
                parsed.append(parse(source, row))
            except BadRow as error:
                source.bad.add(row.place, str(error))
    if not parsed:
        raise none_usable(what, [source.bad for source in sources])
    for source in sources:
        for line in source.bad.lines():
            log.warning("%s: %s", source.origin, line)
    return parsed


def preferences(sources: Sequence[Source]) -> list[Preference]:
    """The preferences of all rows; ``subset`` is the row's, or else the name of its file.

    A row has one of three formats: prompt, chosen, rejected (texts, or conversations that end with
    the response); LLMBar's input, output_1, output_2, label; HelpSteer2's prompt, response_1,
    response_2, preference_strength. Rows with strength 0 are left out.

    Raises:
        ConfigurationError: no row has one of these formats.
    """
    return usable(
        sources,
        _preference,
        "preferences (prompt, chosen and rejected; or input, output_1, output_2 and label; or"
        " prompt, response_1, response_2 and preference_strength)",
    )


def _preference(source: Source, row: Row) -> Preference:
    fields = scored_fields(row)
    subset = str(fields.get("subset") or source.name)
    return Preference(str(fields.get("id", row.number)), subset, *_texts(fields))


def _texts(row: Fields) -> tuple[Prompt, str, str]:
    if "output_1" in row:  # LLMBar, arXiv 2310.07641: label is the better output
        label = str(row.get("label"))
        if label not in ("1", "2"):
            raise BadRow("label is neither 1 nor 2")
        better, worse = ("output_1", "output_2") if label == "1" else ("output_2", "output_1")
        return prompt(row, "input"), _last(row, better), _last(row, worse)
    if "preference_strength" in row:  # HelpSteer2-Preference: above 0 the second is better
        strength = row["preference_strength"]
        if not is_number(strength):
            raise BadRow("preference_strength is not a number")
        if strength == 0:
            raise BadRow("preference_strength is 0: neither response is better")
        order = ("response_2", "response_1") if strength > 0 else ("response_1", "response_2")
        return helpsteer2_prompt(row), _last(row, order[0]), _last(row, order[1])
    chosen, rejected = _last(row, "chosen"), _last(row, "rejected")
    if row.get("prompt") is None and isinstance(row["chosen"], list):
        row = {**row, "prompt": row["chosen"][:-1]}
    asked = prompt(row)
    for name in ("chosen", "rejected"):
        if not _answers(asked, row[name]):
            raise BadRow(f"{name} has turns that the prompt lacks")
    return asked, chosen, rejected


def _answers(asked: Prompt, response: Any) -> bool:
    """Whether a response is one turn, or turns of which the others are the prompt's."""
    before = _plain(response[:-1]) if isinstance(response, list) else []
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return not before or before == turns


def scored_fields(row: Row) -> Fields:
    """The row's fields, of which none holds more for the model to read than its texts do.

    Raises:
        BadRow: the row cannot be read, or has tools, an image or the like.
    """
    fields = row.fields()
    if (name := content.unscored(fields, content.OF_ROWS)) is not None:
        raise BadRow(f"{name} {content.advice(name)}")
    return fields


def prompt(row: Fields, name: str = "prompt") -> Prompt:
    """A prompt as text or messages.

    Raises:
        BadRow: it is missing or neither text nor messages.
    """
    value = row.get(name)
    if value is None:
        raise BadRow(f"no {name}")
    if isinstance(value, str):
        return value
    if value and _is_messages(value):
        return _plain(value, name)
    raise BadRow(f"{name} is neither text nor messages")


def text(row: Fields, name: str) -> str:
    """A field that must be text.

    Raises:
        BadRow: it is missing or not text.
    """
    value = row.get(name)
    if value is None:
        raise BadRow(f"no {name}")
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    return value


def helpsteer2_prompt(row: Fields) -> Prompt:
    """A prompt string of HelpSteer2, as messages if it holds several turns.

    A server reads a prompt string as one turn.

    Raises:
        BadRow: it is missing or not text.
    """
    string = text(row, "prompt")
    try:
        turns = [turn.model_dump(exclude_none=True) for turn in helpsteer2.messages(string)]
    except ValueError as error:
        raise BadRow("prompt is not valid Unicode") from error
    return turns if len(turns) > 1 else string


def _last(row: Fields, name: str) -> str:
    """A response: the text, or the last message of a conversation."""
    value = row.get(name)
    if isinstance(value, list) and value and _is_messages(value):
        said = _plain(value, name)[-1]
        if content.CALLS in said:
            raise BadRow(f"{name}: {content.CALLS} of a message {content.advice(content.CALLS)}")
        return str(said["content"])
    if value is not None and not isinstance(value, str):
        raise BadRow(f"{name} is neither text nor messages")
    return text(row, name)


def _plain(messages: list[Fields], name: str = "") -> list[dict[str, Any]]:
    """Messages reduced to what ``POST /score`` takes.

    Raises:
        BadRow: one of them holds something else.
    """
    turns = []
    for message in messages:
        try:
            turns.append(content.turn_of(message))
        except Unscored as error:
            raise BadRow(f"{name}: {error.field} of a message {error.detail}") from error
    return turns


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role", ""), str) for turn in value
    )
