"""Finds the prompt and the response in the columns that people's data sets have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fivescore import content
from fivescore.errors import ConfigurationError, InvalidPair

OWN = frozenset({"prompt", "response", "text", "token_ids", "principle"})
"""The fields of ``POST /score``'s pairs."""
PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),  # TRL
    ("instruction", "output"),  # Alpaca
    ("instruction", "response"),  # Dolly
    ("question", "answer"),  # GSM8K
    ("question", "response"),  # OpenOrca
    ("query", "response"),  # MetaMathQA
    ("input", "output"),
)
"""Columns of a prompt and of its response."""
CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns of whole conversations: messages with role and content, or ShareGPT's from and value."""
RENDERED = ("text", "token_ids")
"""Columns of a pair that is rendered already."""
INPUT = "input"
"""Alpaca's column of what an instruction is about. It follows the instruction on a line of its own,
as in LLaMA-Factory (``data/converter.py``)."""
BESIDE = ("system", "system_prompt", "history", "chat_history")
"""Columns that may be a part of the prompt: nobody but the user knows."""
BESIDE_OTHERS = ("context", "passage", "document")
"""The same, beside a prompt that is not called ``prompt``."""
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant",
          "observation": "tool", "function_response": "tool"}  # fmt: skip
"""ShareGPT's names of roles."""


class Unclear(ConfigurationError):
    """Which columns hold the pairs is not clear.

    ``what`` is the detail without its advice, and ``candidates`` whether some columns may.
    """

    def __init__(self, what: str, advice: str, candidates: bool = True) -> None:
        super().__init__(f"{what}: {advice}")
        self.what, self.candidates = what, candidates


@dataclass(frozen=True)
class Given:
    """The columns that a user names; None where they are to be found."""

    prompt: str | None = None
    response: str | None = None
    messages: str | None = None
    system: str | None = None

    def named(self) -> list[str]:
        return [name for name in vars(self).values() if name is not None]


@dataclass(frozen=True)
class Layout:
    """Which columns hold a pair. Without any, the row is one in the form of ``POST /score``."""

    prompt: str = ""
    response: str = ""
    messages: str = ""
    system: str = ""
    input: str = ""

    @property
    def named(self) -> list[str]:
        """The columns that are read; none of a row in the form of ``POST /score``."""
        return list(filter(None, vars(self).values()))

    def pair(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The pair of a row, as ``POST /score`` takes it; unchecked.

        Raises:
            InvalidPair: a column is missing, or holds no conversation that ends with the assistant.
        """
        rest = {name: row[name] for name in ("principle",) if row.get(name) not in (None, "")}
        if self.messages:
            pair = _of_messages(_cell(row, self.messages), self.messages)
        elif self.prompt:
            pair = {name: _cell(row, column) for name, column in vars(self).items()
                    if name in ("prompt", "response")}  # fmt: skip
        else:
            pair = _own(row)
        pair = {name: _READ.get(name, _same)(value) for name, value in pair.items()}
        # What else a row holds for the model to read is refused by its name, never dropped.
        more = {name: row[name] for name in content.OF_ROWS & row.keys() - set(self.named)}
        return {**more, **self._around(pair, row), **rest}

    def _around(self, pair: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """The pair with what stands beside the prompt in columns of its own.

        Raises:
            InvalidPair: one of them cannot be put there.
        """
        about = row.get(self.input) if self.input else None
        if content.carries(about):
            if not (isinstance(about, str) and isinstance(pair["prompt"], str)):
                raise InvalidPair(f"{self.input}: must be a text that follows a text")
            pair = {**pair, "prompt": f"{pair['prompt']}\n{about}"}
        system = row.get(self.system) if self.system else None
        if not content.carries(system):
            return pair
        prompt = pair.get("prompt")
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if not isinstance(prompt, list):
            raise InvalidPair(f"{self.system}: goes with a prompt")
        return {**pair, "prompt": [{"role": "system", "content": system}, *prompt]}


def layout(rows: Iterable[Mapping[str, Any]], given: Given, origin: str) -> Layout:
    """The columns that hold the pairs, of a file's first rows.

    Raises:
        ConfigurationError: no columns, or several, may hold them, or a given one is not there;
            names the columns that the file has.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in given.named():
        if name not in columns:
            raise ConfigurationError(f"{origin} has no column {name}: {_listed(columns)}")
    if given.messages:
        return Layout(messages=given.messages, system=given.system or "")
    if given.prompt or given.response:
        return _partly_given(columns, given, origin)
    return _found(rows, columns, given, origin)


def _partly_given(columns: Sequence[str], given: Given, origin: str) -> Layout:
    fits = [
        (prompt, response)
        for prompt, response in PAIRS
        if (given.prompt or prompt) in columns and (given.response or response) in columns
    ]
    found = dict.fromkeys((given.prompt or p, given.response or r) for p, r in fits)
    prompt, response = _one(list(found), columns, origin)
    return Layout(prompt, response, system=given.system or "")


def _found(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], given: Given, origin: str
) -> Layout:
    if {"prompt", "response"} <= set(columns):
        layout = Layout(system=given.system or "")
    else:
        prompt, response = _one(_candidates(columns), columns, origin)
        layout = Layout(
            prompt if response else "",
            response,
            prompt if not response and prompt not in RENDERED else "",
            given.system or "",
            INPUT if prompt == "instruction" and INPUT in columns else "",
        )
    for name in BESIDE + (BESIDE_OTHERS if layout.prompt else ()):
        if name != layout.system and any(row.get(name) for row in rows):
            raise _unread(name, origin, layout)
    return layout


def _candidates(columns: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of columns, and the single ones, that may hold a pair."""
    pairs = [pair for pair in PAIRS if set(pair) <= set(columns)]
    if ("instruction", "output") in pairs:
        pairs = [pair for pair in pairs if pair != (INPUT, "output")]
    rendered = [name for name in RENDERED if name in columns][:1]  # a row has one of the two
    single = [name for name in CONVERSATIONS if name in columns] + rendered
    return pairs + [(name, "") for name in single]


def _one(found: Sequence[tuple[str, str]], columns: Sequence[str], origin: str) -> tuple[str, str]:
    if len(found) == 1:
        return found[0]
    if not found:
        raise Unclear(
            f"{origin} has no columns that are known to hold a prompt and a response"
            f" ({_listed(columns)})",
            "name them with --prompt-column and --response-column, or with --messages-column",
            candidates=False,
        )
    names = ", or ".join(" and ".join(filter(None, pair)) for pair in found)
    raise Unclear(
        f"{origin} has several columns that may hold the pairs, {names}",
        "choose with --prompt-column and --response-column, or with --messages-column",
    )


def _unread(name: str, origin: str, layout: Layout) -> Unclear:
    where = layout.messages or layout.prompt or "prompt"
    kind = "messages" if layout.messages else "prompt"
    take = f"--system-column {name} to put it before the prompt, or " if "system" in name else ""
    return Unclear(
        f"{origin} has a column {name} beside {where}, which may be a part of the prompt",
        f"give {take}--{kind}-column {where} to score without it",
    )


def _listed(columns: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(columns[:most]) + (", ..." if len(columns) > most else "")
    return f"its columns are {shown}" if columns else "it has no columns"


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise InvalidPair(f"the row has no column {column}")
    return row[column]


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a pair; the empty cells of a table are none."""
    return {
        name: row[name]
        for name in OWN & row.keys()
        if name != "principle" and not (name in RENDERED and row[name] == "")
    }


def _of_messages(value: Any, column: str) -> dict[str, Any]:
    value = _unwritten(value)
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise InvalidPair(f"{column}: is not a list of messages")
    *prompt, response = map(_turn, value)
    if response.get("role") != "assistant":
        raise InvalidPair(f"{column}: the last message must be the assistant's")
    return {"prompt": prompt, "response": response}


def _prompt(value: Any) -> Any:
    """A prompt: a text, or messages in any form."""
    if isinstance(value, list):
        return [_turn(one) if isinstance(one, dict) else one for one in value]
    return value


def _response(value: Any) -> Any:
    """A response: a text, or a message, which TRL puts into a list."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0] if {"role", "from"} & value[0].keys() else value
    return _turn(value) if isinstance(value, dict) else value


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A message with role and content, of ShareGPT's from and value too.

    Fields without influence, such as ids and times, are left out; others are for who checks it.
    """
    if "from" in turn and "role" not in turn:
        role = _ROLES.get(str(turn["from"]), turn["from"])
        rest = {name: turn[name] for name in turn.keys() - {"from", "value"}}
        turn = {"role": role, "content": turn.get("value"), **rest}
    return {name: value for name, value in turn.items() if _is_read(name, value)}


def _is_read(name: str, value: Any) -> bool:
    if name in ("role", "content"):
        return True
    if name in content.BY_TEMPLATE:
        return content.carries(value)
    return content.in_message({name: value}) is not None


def _unwritten(value: Any) -> Any:
    """What a cell of a table holds as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _same(value: Any) -> Any:
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "prompt": _prompt,
    "response": _response,
    "token_ids": _unwritten,
}
