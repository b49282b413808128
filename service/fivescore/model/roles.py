"""Which roles, and which other fields of a message, a model's chat template knows.

A template is asked, by rendering turns. One that raises on a role, leaves its turn out, or writes a
tool's turn exactly as it writes the assistant's, does not know the role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fivescore.content import BY_TEMPLATE
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


def known(render: Render) -> tuple[Role, ...]:
    """The roles whose turns the template renders, in the order of ``ROLES``."""
    return tuple(role for role in ROLES if role not in _AROUND or _knows(render, role))


def fields(render: Render) -> frozenset[str]:
    """The fields of ``BY_TEMPLATE`` whose values the template renders for some role."""
    return frozenset(
        name
        for name in BY_TEMPLATE
        if any(_mark(name) in _rendered(render, _dialogue(role, name)) for role in ROLES)
    )


def _knows(render: Render, role: Role) -> bool:
    rendered = _rendered(render, _dialogue(role))
    if not rendered or any(_mark(turn["role"]) not in rendered for turn in _dialogue(role)):
        return False
    as_assistant = [
        {**turn, "role": "assistant"} if turn["role"] == role else turn for turn in _dialogue(role)
    ]
    return role == "system" or rendered != _rendered(render, as_assistant)


def _dialogue(role: Role, field: str | None = None) -> list[Turn]:
    """A dialogue with a turn of the role, in which each such turn has the field."""
    before, after = _AROUND.get(role, ([], ["user", "assistant"]))
    names = [*before, role, *after] if role in _AROUND else after
    turns: list[Turn] = [{"role": name, "content": _mark(name)} for name in names]
    return [{**t, field: _mark(field)} if field and t["role"] == role else t for t in turns]


def _mark(name: str) -> str:
    """A text that no template writes by itself; it may change the case of letters."""
    return f"zq{name.replace('_', '')}qz"


def _rendered(render: Render, turns: list[Turn]) -> str:
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
