"""Sides start and end together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fivescore.settings import DEMO
from loadtest.model import Measured
from loadtest.sides import Side, Sides


class Noted(Sides):
    """Starts nothing; keeps what it would have."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Measured(DEMO), folder)
        self.open: set[str] = set()
        self.ever: list[str] = []

    @contextmanager
    def start(self, name: str) -> Iterator[Side]:
        if name == "broken":
            raise RuntimeError("the server did not become ready")
        self.open.add(name)
        self.ever.append(name)
        yield cast(Any, name)
        self.open.remove(name)


@pytest.mark.parametrize("at_once", [False, True])
def test_all_are_there_by_their_names_and_all_end(tmp_path: Path, at_once: bool) -> None:
    sides = Noted(tmp_path)
    with sides.running(["a", "b", "c"], at_once) as found:
        assert {name: str(side) for name, side in found.items()} == {n: n for n in "abc"}
        assert sides.open == {"a", "b", "c"}
    assert not sides.open


@pytest.mark.parametrize("at_once", [False, True])
def test_one_that_does_not_start_leaves_none_behind(tmp_path: Path, at_once: bool) -> None:
    sides = Noted(tmp_path)
    with pytest.raises(RuntimeError, match="become ready"), sides.running(["a", "broken"], at_once):
        pass
    assert sides.ever == ["a"]
    assert not sides.open
    with pytest.raises(RuntimeError, match="become ready"), sides.running(["broken", "a"], at_once):
        pass
    assert not sides.open
