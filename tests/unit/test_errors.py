"""The error tree: its drawing, its codes."""

from __future__ import annotations

from collections.abc import Iterator

from fivescore import errors
from fivescore.errors import FivescoreError


def every_class(base: type[FivescoreError] = FivescoreError) -> Iterator[type[FivescoreError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from every_class(kind)


LEAVES = sorted(
    (kind for kind in every_class() if not any(every_class(kind))), key=lambda kind: kind.code
)
"""What is raised; the others are their families."""


def test_the_drawing_shows_every_error_with_its_code() -> None:
    assert errors.__doc__ is not None
    drawn = {}
    for line in errors.__doc__.splitlines():
        if "─ " in line:
            name, *rest = line.partition("─ ")[2].split()
            drawn[name] = rest[0] if rest else ""
    classes = {kind.__name__: kind for kind in every_class()}
    assert drawn.keys() == classes.keys()
    assert LEAVES
    assert all(drawn[kind.__name__] == kind.code for kind in LEAVES)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in every_class()]
    assert len(codes) == len(set(codes))


def test_a_detail_is_one_line_whatever_names_are_in_it() -> None:
    assert errors.InvalidRequest("a\nb\u2028c: naïve").detail == r"a\nb\u2028c: naïve"


def test_an_error_reads_as_its_detail() -> None:
    error = errors.TooLong("the pair is long", limit=1, tokens=2)
    assert str(error) == error.detail == "the pair is long"
    assert error.facts == {"limit": 1, "tokens": 2}
