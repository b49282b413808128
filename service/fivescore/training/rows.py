"""Makes examples, token ids and labels, of rows; counts the rows that cannot be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from fivescore import content
from fivescore.content import Unscored
from fivescore.data.rows import BadRow, BadRows, Row, is_number
from fivescore.errors import InvalidPair
from fivescore.model import helpsteer2
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import ATTRIBUTE_RANGE
from fivescore.types import Pair, parse_pair

MASKED = -100.0
"""The label of an attribute that was not annotated (NeMo-Aligner, transformers)."""
LOW, HIGH = ATTRIBUTE_RANGE
STRONGEST = 3
"""HelpSteer2-Preference's strengths go from -3 (first response much better) to 3 (second one)."""
ROWS_PER_CALL = 512
"""Rows that are tokenised in one call, between two steps of the progress bar."""


@dataclass(frozen=True, slots=True)
class Example:
    """A training row: token ids of one sequence (two in a comparison), and its labels."""

    place: str
    sequences: tuple[list[int], ...]
    labels: list[float]

    @property
    def length(self) -> int:
        return max(map(len, self.sequences))


@dataclass(slots=True)
class Report:
    """How many rows of a split were read and used, and why the others were not."""

    name: str
    rows: int = 0
    used: int = 0
    bad: BadRows = field(default_factory=BadRows)

    def lines(self) -> list[str]:
        """A line with the totals, and one line per reason, for the terminal."""
        total = f"{self.name}: {self.rows} rows, {self.used} used"
        return [total, *(f"  {line}" for line in self.bad.lines())]


ReadRow = Callable[[dict[str, Any]], tuple[list[Pair], list[float]]]


def prepare(
    rows: Sequence[Row],
    read: ReadRow,
    conversation: Conversation,
    max_tokens: int,
    report: Report,
    progress: bool = True,
) -> list[Example]:
    """The examples of all usable rows, in order; ``report`` counts the other rows.

    Args:
        read: the pairs and labels of a row; raises BadRow for one that cannot be used.
        max_tokens: longer pairs cannot be used.
    """
    examples: list[Example] = []
    bar = tqdm(total=len(rows), desc=f"tokenise {report.name}", unit="row", disable=not progress)
    with bar:
        for start in range(0, len(rows), ROWS_PER_CALL):
            some = rows[start : start + ROWS_PER_CALL]
            examples += _prepare_some(some, read, conversation, max_tokens, report)
            bar.update(len(some))
    report.rows, report.used = len(rows), len(examples)
    return examples


def _prepare_some(
    rows: Iterable[Row],
    read: ReadRow,
    conversation: Conversation,
    max_tokens: int,
    report: Report,
) -> list[Example]:
    readable: list[tuple[str, list[Pair], list[float]]] = []
    for row in rows:
        try:
            readable.append((row.place, *read(row.fields())))
        except BadRow as error:
            report.bad.add(row.place, str(error))
    encoded = iter(conversation.encode([pair for _, pairs, _ in readable for pair in pairs]))
    examples = []
    for place, pairs, labels in readable:
        sequences = [next(encoded) for _ in pairs]
        try:
            examples.append(Example(place, _check(sequences, max_tokens), labels))
        except BadRow as error:
            report.bad.add(place, str(error))
    return examples


def _check(sequences: Sequence[list[int] | InvalidPair], limit: int) -> tuple[list[int], ...]:
    for ids in sequences:
        if isinstance(ids, InvalidPair):
            raise BadRow("the prompt format refuses it")
        if not ids:
            raise BadRow("it has no tokens")
        if len(ids) > limit:
            raise BadRow(f"more than {limit} tokens")
    return tuple(ids for ids in sequences if not isinstance(ids, InvalidPair))


def attribute_rows(attributes: Sequence[str], prompt_format: str) -> ReadRow:
    """Returns a reader of HelpSteer2's rows: prompt, response and at least one label."""

    def read(row: dict[str, Any]) -> tuple[list[Pair], list[float]]:
        labels = [_label(name, row.get(name)) for name in attributes]
        if all(label == MASKED for label in labels):
            raise BadRow("no attribute has a label")
        return [_pair(row, "response", prompt_format)], labels

    return read


def preference_rows(prompt_format: str) -> ReadRow:
    """Returns a reader of HelpSteer2-Preference's rows; the label is ``preference_strength``."""

    def read(row: dict[str, Any]) -> tuple[list[Pair], list[float]]:
        strength: Any = row.get("preference_strength")
        if not is_number(strength) or abs(strength) > STRONGEST:
            raise BadRow(f"preference_strength is not a number from -{STRONGEST} to {STRONGEST}")
        if strength == 0:
            raise BadRow("preference_strength is 0: neither response is better")
        pairs = [_pair(row, name, prompt_format) for name in ("response_1", "response_2")]
        return pairs, [float(strength)]

    return read


def _label(name: str, value: Any) -> float:
    # pandas writes a missing number as NaN.
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == MASKED:
        return MASKED
    if not is_number(value) or not LOW <= value <= HIGH:
        raise BadRow(f"{name} is not a number from {LOW:g} to {HIGH:g}")
    return float(value)


def _pair(row: dict[str, Any], response: str, prompt_format: str) -> Pair:
    prompt, text = row.get("prompt"), row.get(response)
    if not prompt:
        raise BadRow("no prompt")
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"empty {response}")
    if (name := content.unscored(row, content.OF_ROWS)) is not None:
        raise BadRow(f"{name} {content.advice(name)}")
    if isinstance(prompt, list):
        prompt = [_turn(turn) for turn in prompt]
    pair = parse_pair({"prompt": prompt, "response": text})
    if isinstance(pair, InvalidPair):
        raise BadRow("prompt and response are not a valid pair")
    if isinstance(prompt, str) and prompt_format != "raw":
        return Pair(prompt=helpsteer2.messages(prompt), response=text)
    return pair


def _turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    try:
        return content.turn_of(turn)
    except Unscored as error:
        raise BadRow(f"{error.field} of a message {error.detail}") from error
