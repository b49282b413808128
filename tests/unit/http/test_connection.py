"""An answer's head and body are one packet; nothing of either is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fivescore.http.connection import _Whole


class Transport:
    """Records what is written to it, packet by packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.packets.append(data)

    def writelines(self, data: tuple[bytes, ...]) -> None:
        self.write(b"".join(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def transport() -> Transport:
    return Transport()


def whole(transport: Any, method: str = "POST", started: bool = True) -> _Whole:
    cycle: Any = SimpleNamespace(response_started=started, scope={"method": method})
    return _Whole(transport, cycle)


def test_the_head_goes_with_the_first_of_the_body(transport: Transport) -> None:
    answer = whole(transport)
    for part in (b"head", b"body", b"more", b""):
        answer.write(part)
    assert transport.packets == [b"headbody", b"more", b""]


def test_an_empty_body_lets_the_head_go(transport: Transport) -> None:
    answer = whole(transport)
    answer.write(b"head")
    answer.write(b"")
    assert transport.packets == [b"head"]


def test_no_body_comes_to_the_answer_to_head(transport: Transport) -> None:
    whole(transport, "HEAD").write(b"head")
    assert transport.packets == [b"head"]


def test_what_comes_before_the_answer_goes_at_once(transport: Transport) -> None:
    answer = whole(transport, started=False)
    answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.packets == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_closing_writes_a_head_that_no_body_came_to(transport: Transport) -> None:
    answer = whole(transport)
    answer.write(b"head")
    assert not answer.is_closing()
    answer.close()
    assert transport.packets == [b"head"]
    assert answer.is_closing()
