"""Renders scripts: conversations with tool calls, whose texts are never structure.

The template writes a script twice: as it is, and with probes for its texts, which shows where each
of them stands. Mostly the first is the second with the texts in it, as they are or as JSON writes
them, and then structure and texts are apart. Where the template does something else, as one does
that sorts arguments, the markers in texts are hidden from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fivescore.errors import InvalidPair
from fivescore.model.calls import Leaf, Script
from fivescore.model.contents import MAKES_STRUCTURE, fault, says
from fivescore.model.hiding import hide_markers
from fivescore.model.template import ChatTemplate
from fivescore.model.tokenizer import Guard
from fivescore.turns import probe

_FIRST_ID, _IDS = 0xE100, 0x700
"""Private-use characters that stand for ids; a template may look at an id's length."""
_NUMBER = "314159{:05d}27"
"""Digits that stand for a number: few enough for a float to keep them."""
_PROBE = re.compile(
    "\ue010(\\d+)\ue010|([\ue100-\ue7ff])\\2*|(?<![\\d.])314159(\\d{5})27(?:\\.5)?(?!\\d)"
)


class _Shape(NamedTuple):
    """What the template writes around the texts of a script."""

    literals: list[str]
    """Before, between and after the texts."""
    order: list[int]
    """The leaf that stands between one literal and the next."""
    rendered: str


class ScriptRenderer:
    """Renders scripts in a template.

    Args:
        structure: the markers of a rendered text that do not depend on what texts say, in order.
    """

    def __init__(
        self, template: ChatTemplate, guard: Guard, structure: Callable[[str], list[str]]
    ) -> None:
        self._template, self._guard, self._structure = template, guard, structure

    def render(self, script: Script) -> tuple[str, str]:
        """The sealed text of a script, and what the template writes after the last text.

        Raises:
            InvalidPair: the template refuses the script, drops a part of it, or would make
                structure of a text.
        """
        raw = self._template.render_dialogue(script.turns(script.texts))
        shape = self._shape(script)
        _check_order(script, shape.order)
        written = _texts_in(raw, script.leaves, shape)
        if written is None:
            return self._render_changed(script, raw, shape), shape.literals[-1]
        pieces = [""] * (2 * len(shape.literals) - 1)
        pieces[::2] = map(self._guard.seal, shape.literals)
        pieces[1::2] = map(self._guard.plain, written)
        sealed = "".join(pieces)
        # A text beside a literal may complete a marker that is no special token.
        if self._plain_forms(sealed) != sum(map(self._plain_forms, shape.literals)):
            raise InvalidPair(MAKES_STRUCTURE)
        return sealed, shape.literals[-1]

    def _plain_forms(self, text: str) -> int:
        forms = self._guard.plain_forms
        return sum(match[0] in forms for match in self._guard.find(text)) if forms else 0

    def _shape(self, script: Script) -> _Shape:
        probes, ids = _probes(script.leaves)
        rendered = self._template.render_dialogue(script.turns(probes))
        literals, order, at = [], [], 0
        for match in _PROBE.finditer(rendered):
            leaf = ids.get(match[2], -1) if match[2] else int(match[1] or match[3])
            if 0 <= leaf < len(probes):
                literals.append(rendered[at : match.start()])
                order.append(leaf)
                at = match.end()
        return _Shape([*literals, rendered[at:]], order, rendered)

    def _render_changed(self, script: Script, raw: str, shape: _Shape) -> str:
        """The sealed text where the template has changed a text, or their order."""

        def render(texts: Sequence[str]) -> str | None:
            return self._template.render_dialogue_or_none(script.turns(texts))

        # Numbers hold no markers, and must stay numbers.
        guarded = hide_markers(self._guard, script.texts, raw, render)
        if self._structure(guarded) != self._structure(shape.rendered):
            raise InvalidPair(MAKES_STRUCTURE)
        missing = [place for place, leaf in enumerate(script.leaves) if _must_be_written(leaf)
                   and leaf.kind != "number"]  # fmt: skip
        ways: tuple[Callable[[str, str], str], ...] = (
            lambda t, new: t + new,
            lambda t, new: new + t,
        )
        for add in ways:
            texts = script.texts
            for place in missing:
                texts[place] = add(texts[place], probe(place))
            found = {match[1] for match in _PROBE.finditer((missing and render(texts)) or "")}
            missing = [place for place in missing if str(place) not in found]
        if missing:
            raise InvalidPair(says("drops", script.where(script.leaves[missing[0]])))
        return self._guard.seal(guarded)


def _probes(leaves: Sequence[Leaf]) -> tuple[list[str], dict[str, int]]:
    """A text for each leaf that no template writes, and the leaf of each id's character.

    Equal ids get equal probes of their length; what says nothing stays so.
    """
    probes: list[str] = []
    ids: dict[str, str] = {}
    leaf_of: dict[str, int] = {}
    for place, (text, kind, *_) in enumerate(leaves):
        if kind == "number":
            digits = _NUMBER.format(place)
            probes.append(digits if text.lstrip("-").isdigit() else f"{digits}.5")
        elif not text or (kind == "content" and text.isspace()):
            probes.append("")
        elif kind == "id":
            character = ids.setdefault(text, chr(_FIRST_ID + len(ids) % _IDS))
            leaf_of.setdefault(character, place)
            probes.append(character * len(text))
        else:
            probes.append(probe(place))
    return probes, leaf_of


def _must_be_written(leaf: Leaf) -> bool:
    if leaf.kind == "content":
        return bool(leaf.text.strip())
    return leaf.kind != "id" and bool(leaf.text)


def _check_order(script: Script, order: Sequence[int]) -> None:
    """Check that each content is written once and in order, and all of each call.

    Raises:
        InvalidPair: it is not.
    """
    written = set(order)
    for place, leaf in enumerate(script.leaves):
        if place not in written and leaf.kind in ("text", "number") and leaf.text:
            raise InvalidPair(says("drops", script.where(leaf)))
    empty = [True] * len(script.roles)
    for leaf in script.leaves:
        if leaf.kind == "content":
            empty[leaf.turn] = not _must_be_written(leaf)
    contents = [script.leaves[place].turn for place in order
                if script.leaves[place].kind == "content"]  # fmt: skip
    if found := fault(script.roles, empty, contents):
        raise InvalidPair(found)


def _texts_in(raw: str, leaves: Sequence[Leaf], shape: _Shape) -> list[str] | None:
    """What the template has written for each text of a shape; None where it did something else."""
    at = len(shape.literals[0])
    if not raw.startswith(shape.literals[0]):
        return None
    written = []
    for place, literal in zip(shape.order, shape.literals[1:], strict=True):
        for text in _forms(leaves[place]):
            if raw.startswith(text, at) and raw.startswith(literal, at + len(text)):
                written.append(text)
                at += len(text) + len(literal)
                break
        else:
            return None
    return written if at == len(raw) else None


def _forms(leaf: Leaf) -> tuple[str, ...]:
    """How templates write a text: as it is, as in JSON, and a content without space around it."""
    escaped = json.dumps(leaf.text, ensure_ascii=False)[1:-1]
    if leaf.kind == "content":
        return leaf.text, leaf.text.strip(), escaped
    return leaf.text, escaped
