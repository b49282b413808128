"""Renders conversations so that texts get what the template does to them, and are never structure.

The template is applied to the texts as they are. Its *shape*, what it writes around contents that
say nothing, shows what is structure in the result. Where the template has changed a text, as those
do that drop earlier reasoning, the texts' own markers are found by replacing them: a marker whose
placeholder arrives where the marker did is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fivescore.errors import InvalidPair
from fivescore.model.call_rendering import ScriptRenderer
from fivescore.model.calls import CallStyle, Script
from fivescore.model.contents import MAKES_STRUCTURE, fault, of_turn, says
from fivescore.model.hiding import hide_markers
from fivescore.model.template import ChatTemplate
from fivescore.model.tokenizer import Guard
from fivescore.turns import probe
from fivescore.types import Message

ENOUGH = 32
"""Characters at a content's end that show that the template has written it."""
MOST_TURNS_KEPT = 2**14
"""Turns in all shapes that are kept."""

_PROBE = re.compile(r"\ue010(\d+)\ue010")


class Rendered(NamedTuple):
    """A sealed text, and what the template writes after the last content."""

    text: str
    tail: str


class Shape(NamedTuple):
    """What a template writes around the contents of turns of certain roles."""

    literals: list[str]
    """Before, between and after the contents."""
    sealed: list[str]
    """The same, sealed."""
    order: list[int]
    """The turn whose content stands between one literal and the next."""
    structure: list[str]
    """The markers in the literals that do not depend on contents, in order."""
    fault: str
    """What is wrong with it; empty where nothing is."""

    def filled(self, literals: Sequence[str], contents: Sequence[str]) -> str:
        """The literals with the contents between them."""
        pieces = [""] * (2 * len(literals) - 1)
        pieces[::2] = literals
        pieces[1::2] = [contents[turn] for turn in self.order]
        return "".join(pieces)


class GuardedTemplate:
    """A chat template whose rendering tells structure and texts apart.

    Args:
        guard: of the tokenizer that reads the rendering.
        style: how the template takes tool calls.
    """

    def __init__(
        self, template: ChatTemplate, guard: Guard, style: CallStyle | None = None
    ) -> None:
        self._template = template
        self._style = style
        self._guard = guard
        # What the template writes between turns, and what it cannot write: others may come and go
        # with what a text says, such as tags of reasoning.
        unknown = (text for text in guard.strings if not template.knows(text))
        self._fixed = {*template.markers, *unknown}
        self._shapes: dict[tuple[str | bool, ...], Shape] = {}
        self._turns_kept = 0
        self._scripts = ScriptRenderer(template, guard, self._structure)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The sealed text of a conversation.

        Raises:
            InvalidPair: the template refuses it, does not write each content once and in order, or
                would make structure of a text.
        """
        if not all(message.is_plain for message in messages):
            script = Script(messages, self._style, self._template.fields)
            return Rendered(*self._scripts.render(script))
        roles = [message.role for message in messages]
        contents = [message.content for message in messages]
        raw = self._template.render(roles, contents)
        shape = self._shape(roles, contents)
        if shape.fault:
            raise InvalidPair(shape.fault)
        if raw == shape.filled(shape.literals, contents):
            return self._filled(shape, contents)
        stripped = [content.strip() for content in contents]
        if raw == shape.filled(shape.literals, stripped):
            return self._filled(shape, stripped)
        return self._render_changed(roles, contents, raw, shape)

    def _filled(self, shape: Shape, contents: Sequence[str]) -> Rendered:
        plain = list(map(self._guard.plain, contents)) if self._guard.plain_forms else contents
        return Rendered(shape.filled(shape.sealed, plain), shape.literals[-1])

    def _shape(self, roles: Sequence[str], contents: Sequence[str]) -> Shape:
        # Templates may leave an empty turn out.
        empty = [not content or content.isspace() for content in contents]
        key: tuple[str | bool, ...] = (*roles, *empty)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._find_shape(roles, empty)
            if self._turns_kept + len(roles) > MOST_TURNS_KEPT:
                self._shapes.clear()
                self._turns_kept = 0
            self._shapes[key] = shape
            self._turns_kept += len(roles)
        return shape

    def _find_shape(self, roles: Sequence[str], empty: Sequence[bool]) -> Shape:
        contents = ["" if nothing else probe(turn) for turn, nothing in enumerate(empty)]
        rendered = self._template.render(roles, contents)
        pieces = _PROBE.split(rendered)
        literals, order = pieces[::2], list(map(int, pieces[1::2]))
        return Shape(
            literals,
            list(map(self._guard.seal, literals)),
            order,
            self._structure(rendered),
            fault(roles, empty, order),
        )

    def _structure(self, rendered: str) -> list[str]:
        found = (match[0] for match in self._guard.find(rendered))
        return [text for text in found if text in self._fixed]

    def _render_changed(
        self, roles: Sequence[str], contents: Sequence[str], raw: str, shape: Shape
    ) -> Rendered:
        """The sealed text where the template has changed a content."""
        guarded = hide_markers(
            self._guard, contents, raw, partial(self._template.render_or_none, roles)
        )
        if self._structure(guarded) != shape.structure:
            raise InvalidPair(MAKES_STRUCTURE)
        self._check_contents(roles, contents, raw, shape)
        return Rendered(self._guard.seal(guarded), shape.literals[-1])

    def _check_contents(
        self, roles: Sequence[str], contents: Sequence[str], raw: str, shape: Shape
    ) -> None:
        """Check that the template writes something of each content that says something.

        What it leaves of a content is its own decision, as in training. Of a content that it
        leaves nothing of, it would have written a word more.
        """
        missing = list(_missing(contents, raw, shape))
        ways: tuple[Callable[[str, str], str], ...] = (lambda c, p: c + p, lambda c, p: p + c)
        for add in ways:
            if missing:
                longer = [
                    add(content, probe(turn)) if turn in missing else content
                    for turn, content in enumerate(contents)
                ]
                rendered = self._template.render_or_none(roles, longer) or ""
                missing = [turn for turn in missing if probe(turn) not in rendered]
        if missing:
            raise InvalidPair(says("drops", of_turn(missing[0], roles[missing[0]])))


def _missing(contents: Sequence[str], rendered: str, shape: Shape) -> Iterator[int]:
    """The turns of which neither the content nor its end is in the text in order.

    White space around contents does not count. After an end comes what the template writes there,
    which an earlier text is unlikely to have.
    """
    after = dict(zip(shape.order, shape.literals[1:], strict=True))
    at = 0
    for turn, content in enumerate(contents):
        text = content.strip()
        end = text[-ENOUGH:]
        literal = after.get(turn)
        found = rendered.find(end + literal, at) if literal else -1
        if found < 0:
            end = text
            found = rendered.find(text, at)
        if found < 0:
            yield turn
        else:
            at = found + len(end)
