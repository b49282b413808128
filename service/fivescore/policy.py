"""Parses texts in a policy's chat template back into messages.

OpenRLHF, slime and AReaL have the policy's prompt and response in the policy's template. A reward
model that was trained with another template needs its own, so the text becomes messages first. All
work is linear in the length of the text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any
from unicodedata import normalize

from fivescore.endings import Endings
from fivescore.errors import ConfigurationError, InvalidPair, first_line
from fivescore.turns import BASIC, Turns, probe
from fivescore.types import Pair, parse_pair

log = logging.getLogger(__name__)

DATE = "\ue011"
"""Stands for the date that some templates write: texts may be older than today."""
LEAST_OVERLAP = 16
"""Characters that a truncated text must share with its prompt's end: fewer may be chance."""
MOST_OVERLAP = 2**17
"""Characters at a prompt's end that are searched for the start of a truncated text."""


class PolicyTemplate:
    """The strings that a chat template writes between the turns of a dialogue.

    Args:
        reference: the policy's tokenizer. Without a chat template its prompts are plain text.
        stop_ids: ids of further tokens at which the policy stops, beside EOS.
        named: the setting that names the tokenizer, for error texts.

    Raises:
        ConfigurationError: the template fails, drops turns, or writes nothing between them.
    """

    def __init__(
        self, reference: Any, stop_ids: Iterable[int] = (), named: str = "policy_tokenizer"
    ) -> None:
        self._reference = reference
        self._named = named
        self._bos: str = reference.bos_token or ""
        self._warned = False
        self._dialogues = bool(reference.chat_template)
        if self._dialogues:
            self._read_template()
        self.endings = Endings.of_tokenizer(reference, stop_ids)

    def _read_template(self) -> None:
        start, self._to_assistant, self._to_user, generation = self._around(*BASIC)
        self._user_header = _common_end(start, self._to_user)
        if not (self._to_assistant and self._user_header and generation):
            raise ConfigurationError(
                f"{self._named}: its chat template writes nothing between turns"
            )
        # What the generation prompt adds to the assistant's header, such as <think>, is response.
        longer = generation.startswith(self._to_assistant)
        self._generation = self._to_assistant if longer else generation
        self._lead = self._to_assistant.removeprefix(self._generation)
        self._turns = Turns(self._around, self._generation)
        self._starts = [(start, "", "")]
        for role in ("system", "developer"):
            try:
                before, after, *_ = self._around(role, *BASIC)
            except ConfigurationError:
                log.info("the policy's chat template takes no %s message", role)
            else:
                self._starts.append((before, after, role))
        # With a default system message one start begins with the other: try the longer first.
        self._starts.sort(key=lambda start: len(start[0]), reverse=True)

    def _around(self, *roles: str) -> list[str]:
        """What the template writes before, between and after turns of these roles."""
        turns = [{"role": role, "content": probe(place)} for place, role in enumerate(roles)]
        try:
            rendered = str(
                self._reference.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True, strftime_now=lambda _: DATE
                )
            )
        except Exception as error:  # a template may raise any type
            raise ConfigurationError(
                f"{self._named}: its chat template fails on a plain dialogue: {first_line(error)}"
            ) from error
        parts = []
        for place in range(len(roles)):
            part, found, rendered = rendered.partition(probe(place))
            if not found:
                raise ConfigurationError(f"{self._named}: its chat template drops a turn")
            parts.append(part)
        return [self._without_bos(parts[0]), *parts[1:], rendered]

    def take_apart(self, query: str, prompt: str) -> Pair | InvalidPair:
        """The pair in ``query``, the policy's prompt and response as one text, or its error.

        Args:
            query: prompt and response; its start may be truncated, and it may hold BOS and EOS.
            prompt: the prompt alone.
        """
        query, prompt = self._without_bos(query), self._without_bos(prompt)
        response = _after(query, prompt)
        if response is None:
            # Decoding may have changed the text: SentencePiece puts a space after BOS, a character
            # that was cut becomes replacement characters, and some tokenizers normalise.
            query = query.removeprefix(" ").lstrip("\ufffd")
            response = _after(normalize("NFC", query), normalize("NFC", prompt))
        if response is None:
            return InvalidPair("the text does not start with its prompt, nor with a prompt's end")
        return self.pair(prompt, response)

    def whole(self, text: str) -> Pair | InvalidPair:
        """The pair in a rendered conversation, of which the last turn is the response."""
        prompt, header, response = (
            text.rpartition(self._generation) if self._dialogues else ("", "", "")
        )
        if not header:
            return InvalidPair(
                "where the response begins is not known: the text has no generation prompt of the"
                f" policy's chat template ({self._named})"
            )
        return self.pair(prompt + header, response)

    def pair(self, prompt: str, response: str) -> Pair | InvalidPair:
        """The pair of a rendered prompt and a response, without the policy's end of turn."""
        response = self.endings.cut(response)
        if not self._dialogues:
            return parse_pair({"prompt": prompt, "response": response})
        if not self.rendered(prompt):
            return InvalidPair(
                "the prompt does not end with the generation prompt of the policy's chat template"
                f" ({self._named})"
            )
        dialogue, _, prefill = self._without_bos(prompt).rpartition(self._generation)
        response = (prefill + response).removeprefix(self._lead)
        return parse_pair({"prompt": self._messages(dialogue), "response": response})

    def rendered(self, prompt: str) -> bool:
        """Whether a prompt ends with the generation prompt of the policy's chat template."""
        if not self._dialogues:
            return False
        _, header, prefill = prompt.rpartition(self._generation)
        return bool(header) and self._user_header not in prefill

    def _messages(self, dialogue: str) -> list[dict[str, str]]:
        first, at = self._take_start(dialogue)
        return [*first, *self._turns.split(dialogue, at)]

    def _take_start(self, dialogue: str) -> tuple[list[dict[str, str]], int]:
        """The message before the first user's, if there is one, and where the user's starts."""
        for start, end_of_first, role in self._starts:
            match = re.match(re.escape(start).replace(DATE, "[^\n]{1,64}?"), dialogue)
            if match is None:
                continue
            if not role:
                return [], match.end()
            end = dialogue.find(end_of_first, match.end())
            if end >= 0:
                first = {"role": role, "content": dialogue[match.end() : end]}
                return [first], end + len(end_of_first)
        if not self._warned:
            self._warned = True
            log.warning(
                "a prompt does not start with the policy's chat template: such prompts are read"
                " from their first user turn on"
            )
        header = dialogue.find(self._user_header)
        return [], header + len(self._user_header) if header >= 0 else 0

    def _without_bos(self, text: str) -> str:
        at = 0
        while self._bos and text.startswith(self._bos, at):
            at += len(self._bos)
        return text[at:]


def _after(query: str, prompt: str) -> str | None:
    """What follows the prompt in ``query``, or follows the end of the prompt there; else None."""
    if query.startswith(prompt):
        return query[len(prompt) :]
    shared = _overlap(prompt[-MOST_OVERLAP:], query)
    return query[shared:] if shared >= LEAST_OVERLAP else None


def _overlap(left: str, right: str) -> int:
    """The length of the longest end of ``left`` that ``right`` starts with (Knuth-Morris-Pratt)."""
    pattern = right[: len(left)]
    borders = [0] * len(pattern)
    length = 0
    for i in range(1, len(pattern)):
        while length and pattern[i] != pattern[length]:
            length = borders[length - 1]
        length += pattern[i] == pattern[length]
        borders[i] = length
    length = 0
    for letter in left[-len(pattern) :] if pattern else "":
        while length and (length == len(pattern) or letter != pattern[length]):
            length = borders[length - 1]
        length += letter == pattern[length]
    return length


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]
