"""A trace adds up what is reported of a stage, and says it in the stages' order."""

from __future__ import annotations

import pytest

from fivescore.telemetry.trace import STAGES, Trace


def test_the_parts_of_a_stage_add_up_between_its_first_beginning_and_its_last_end() -> None:
    trace = Trace()
    trace.add("render", 10.0, 11.0)
    trace.add("render", 14.0, 14.5)
    trace.add("render", 12.0, 12.25)
    stage = trace.stages["render"]
    assert (stage.began, stage.ended, stage.seconds) == (10.0, 14.5, 1.75)


def test_stages_are_told_in_their_order_and_without_those_not_reached() -> None:
    trace = Trace()
    for name in reversed(STAGES):
        if name != "tokenise":
            trace.add(name, 0.0, 0.5)
    assert list(trace.seconds()) == ["admit", "render", "engine", "reward"]
    assert sum(trace.seconds().values()) == pytest.approx(2.0)


def test_two_requests_do_not_share_their_stages() -> None:
    Trace().add("admit", 0.0, 1.0)
    assert Trace().seconds() == {}
