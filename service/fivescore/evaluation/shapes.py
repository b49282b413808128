"""Rows of preference data in the shapes that people publish, made one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fivescore.errors import ConfigurationError
from fivescore.evaluation.data import Row, Source
from fivescore.model import helpsteer2

Prompt = str | list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to one prompt, of which ``chosen`` is preferred; ``id`` names it in reports."""

    id: str
    subset: str
    prompt: Prompt
    chosen: str
    rejected: str

    def pairs(self) -> list[dict[str, Any]]:
        """What is scored: the chosen response, then the rejected one."""
        return [
            {"prompt": self.prompt, "response": self.chosen},
            {"prompt": self.prompt, "response": self.rejected},
        ]


def preferences(sources: Sequence[Source]) -> list[Preference]:
    """The preferences of all rows; ``subset`` is the row's, or else the name of its file.

    A row is one of: prompt, chosen, rejected (texts, or conversations that end with the response);
    LLMBar's input, output_1, output_2, label; HelpSteer2's prompt, response_1, response_2,
    preference_strength, of which rows without a preference are left out.

    Raises:
        ConfigurationError: a row is none of these.
    """
    found = [
        preference
        for source in sources
        for index, row in enumerate(source.rows)
        if (preference := _preference(source, index, row))
    ]
    if not found:
        raise ConfigurationError("there is no preference in the data")
    return found


def _preference(source: Source, index: int, row: Row) -> Preference | None:
    try:
        texts = _texts(row)
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{source.place(index)} is no preference ({error}): give prompt, chosen and rejected,"
            " or input, output_1, output_2 and label, or prompt, response_1, response_2 and"
            " preference_strength"
        ) from error
    if texts is None:
        return None
    subset = str(row.get("subset") or source.name)
    return Preference(str(row.get("id", index + 1)), subset, *texts)


def _texts(row: Row) -> tuple[Prompt, str, str] | None:
    if "output_1" in row:  # LLMBar, arXiv 2310.07641: the label is the better output
        first, second, label = row["output_1"], row["output_2"], str(row["label"])
        if label not in ("1", "2"):
            raise ValueError(f"label {label} is neither 1 nor 2")
        better = (first, second) if label == "1" else (second, first)
        return _prompt(row["input"]), _response(better[0]), _response(better[1])
    if "preference_strength" in row:  # HelpSteer2-Preference: above 0 the second is better
        strength = row["preference_strength"]
        if strength == 0:
            return None
        first, second = row["response_1"], row["response_2"]
        better = (second, first) if strength > 0 else (first, second)
        return helpsteer2_prompt(row["prompt"]), _response(better[0]), _response(better[1])
    chosen, rejected = row["chosen"], row["rejected"]
    prompt = row["prompt"] if row.get("prompt") is not None else chosen[:-1]
    return _prompt(prompt), _response(chosen), _response(rejected)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str) or (isinstance(value, list) and value):
        return value
    raise ValueError("prompt is neither text nor messages")


def _response(value: Any) -> str:
    """A text, or the last message of a conversation."""
    text = value[-1]["content"] if isinstance(value, list) and value else value
    if not isinstance(text, str):
        raise ValueError("a response is neither text nor messages")
    return text


def helpsteer2_prompt(text: Any) -> Prompt:
    """A prompt string of HelpSteer2; as messages where it holds several turns, for any server."""
    if not isinstance(text, str):
        raise ValueError("prompt is not text")
    turns = [turn.model_dump() for turn in helpsteer2.messages(text)]
    return turns if len(turns) > 1 else text
