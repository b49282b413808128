"""Finds the turns in a text that a chat template rendered.

The template is asked what it writes between turns of any two roles. A tool's turn may be a turn of
its own, or stand in tags inside the user's, as in Qwen's templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fivescore.errors import ConfigurationError

Around = Callable[..., list[str]]
"""What a template writes before, between and after turns of given roles, at the end its generation
prompt. Raises ConfigurationError for roles whose turns it drops or refuses."""

BASIC = ("user", "assistant", "user")
TOOLS = (
    ("user", "assistant", "tool", "assistant", "user"),
    ("user", "assistant", "tool", "tool", "assistant"),
    ("user", "assistant", "tool", "user"),
)
"""Dialogues that have a tool's turn beside each role that may stand there."""


def probe(turn: int) -> str:
    """A content that no template writes by itself, another one for each turn."""
    return f"\ue010{turn}\ue010"


class Turns:
    """The strings between the turns of a dialogue, by the role of the earlier one.

    Args:
        around: asks the template.
        generation: what the template writes between a user's content and a response.

    Raises:
        ConfigurationError: the template fails on a plain dialogue, or drops a turn.
    """

    def __init__(self, around: Around, generation: str) -> None:
        self._next: dict[str, dict[str, str]] = {}
        self._tail = ""
        self._keep(BASIC, around(*BASIC))
        for roles in TOOLS:
            self._ask_for_tools(around, roles, generation)
        self._patterns = {role: _either(follows) for role, follows in self._next.items()}

    def split(self, dialogue: str, at: int) -> list[dict[str, str]]:
        """The messages from ``at`` on, where the first user's content begins."""
        turns, role = [], "user"
        while match := self._patterns[role].search(dialogue, at):
            turns.append({"role": role, "content": dialogue[at : match.start()]})
            role, at = self._next[role][match[0]], match.end()
        content = dialogue[at:].removesuffix(self._tail if role == "tool" else "")
        return [*turns, {"role": role, "content": content}]

    def _ask_for_tools(self, around: Around, roles: Sequence[str], generation: str) -> None:
        try:
            parts = around(*roles)
            as_assistants = ["assistant" if role == "tool" else role for role in roles]
            if parts == _or_none(around, as_assistants):
                return  # the template does not know tools
            self._keep(roles, parts)
            if roles[-2] == "tool":
                self._tail = around(*roles[:-1])[-1].removesuffix(generation)
        except ConfigurationError:
            return

    def _keep(self, roles: Sequence[str], parts: Sequence[str]) -> None:
        for first, second, between in zip(roles, roles[1:], parts[1:], strict=False):
            if between:
                self._next.setdefault(first, {}).setdefault(between, second)


def _or_none(around: Around, roles: Sequence[str]) -> list[str] | None:
    try:
        return around(*roles)
    except ConfigurationError:
        return None


def _either(strings: dict[str, str]) -> re.Pattern[str]:
    """The longest of some strings: one may begin with another."""
    return re.compile("|".join(map(re.escape, sorted(strings, key=len, reverse=True))))
