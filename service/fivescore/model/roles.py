"""Which roles of messages a model's chat template knows.

A template is asked, by rendering turns. One that raises on a role, leaves its turn out, or writes a
tool's turn exactly as it writes the assistant's, does not know the role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fivescore.errors import InvalidPair
from fivescore.types import ROLES, Message, Role

Turn = dict[str, Any]
Render = Callable[[list[Turn]], str]

BASIC: tuple[Role, ...] = ("system", "user", "assistant")
"""The roles of a format that has no template."""
_AROUND: dict[Role, tuple[list[Role], list[Role]]] = {
    "system": ([], ["user", "assistant"]),
    "developer": ([], ["user", "assistant"]),
    "tool": (["user", "assistant"], ["assistant"]),
}
"""The turns before and after the role's own in a dialogue that holds it."""


def known(render: Render, calling: Turn | None = None) -> tuple[Role, ...]:
    """The roles whose turns the template renders, in the order of ``ROLES``.

    Args:
        calling: an assistant's turn with tool calls, without which some templates take no tool's.
    """
    return tuple(
        role
        for role in ROLES
        if role not in _AROUND
        or _knows(render, _dialogue(role))
        or (role == "tool" and calling is not None and _knows(render, _answering(calling)))
    )


def _knows(render: Render, turns: list[Turn]) -> bool:
    """Whether the template writes each text, and the role's turn not as it writes others."""
    (role,) = {turn["role"] for turn in turns} - {"user", "assistant"}
    rendered = rendered_or_empty(render, turns)
    texts = [turn["content"] for turn in turns if turn["content"]]
    if not rendered or any(text not in rendered for text in texts):
        return False
    as_assistant = [{**t, "role": "assistant"} if t["role"] == role else t for t in turns]
    return role == "system" or rendered != rendered_or_empty(render, as_assistant)


def _dialogue(role: Role) -> list[Turn]:
    """A dialogue with a turn of the role."""
    before, after = _AROUND[role]
    return [{"role": name, "content": _mark(name)} for name in (*before, role, *after)]


def _answering(calling: Turn) -> list[Turn]:
    """A dialogue with a tool's turn that answers a call."""
    user, _, tool, assistant = _dialogue("tool")
    (call,) = calling["tool_calls"]
    answer = {**tool, "tool_call_id": call["id"], "name": call["function"]["name"]}
    return [user, calling, answer, assistant]


def _mark(name: str) -> str:
    """A text that no template writes by itself; it may change the case of letters."""
    return f"zq{name}qz"


def rendered_or_empty(render: Render, turns: list[Turn]) -> str:
    """What the template writes, in small letters; empty where it refuses the turns."""
    try:
        return render(turns).lower()
    except Exception:  # a template may raise any type
        return ""


def as_known(messages: Sequence[Message], roles: Sequence[Role]) -> list[Message]:
    """The messages in roles that the model knows: a developer's may become the system's.

    Raises:
        InvalidPair: the model does not know a role.
    """
    turns = []
    for place, turn in enumerate(messages):
        role = as_known_role(turn.role, roles)
        if role not in roles:
            raise InvalidPair(f"prompt.{place}.role: {unknown(role, roles)}")
        turns.append(turn if role == turn.role else turn.model_copy(update={"role": role}))
    return turns


def as_known_role(role: Role, roles: Sequence[Role]) -> Role:
    """``system`` for ``developer``, its newer name, where the model knows only the older one."""
    return "system" if role == "developer" and role not in roles else role


def unknown(role: str, roles: Sequence[Role]) -> str:
    """What is said of a role that the model does not know."""
    return f"{role} is unknown to the model's template, which knows {', '.join(roles)}"
