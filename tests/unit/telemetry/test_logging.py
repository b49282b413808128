"""Log lines: JSON for machines, text for people, and the lines of other processes among them."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fivescore.engine.vllm.output import level_of
from fivescore.telemetry import logging as logs
from fivescore.telemetry.logging import Json, Text, relayed, without_messages


class Stream(io.StringIO):
    """Standard error of a test: a terminal or not."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Configures the process's log to a stream; tests/conftest.py puts it back."""
    logging.getLogger().handlers = []  # or they would be closed

    def to(terminal: bool, *arguments: Any) -> Stream:
        stream = Stream()
        stream.terminal = terminal
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(*arguments)
        return stream

    yield to
    logging.captureWarnings(False)


def record(message: str, *arguments: Any, name: str = "fivescore.x") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, arguments, None)


@pytest.mark.parametrize(
    ("terminal", "form", "as_json"),
    [
        (False, "auto", True), (True, "auto", False), (False, "text", False), (True, "json", True),
    ],
)  # fmt: skip
def test_machines_get_json_and_people_text_unless_told_otherwise(
    configure: Any, terminal: bool, form: str, as_json: bool
) -> None:
    stream = configure(terminal, "info", form)
    logging.getLogger("fivescore.serve").info("listening on %s", "somewhere")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("{") == as_json
    if as_json:
        assert json.loads(line)["msg"] == "listening on somewhere"
    else:
        assert line.endswith(" INFO    listening on somewhere")


def test_ours_are_told_from_their_level_and_others_from_warning(configure: Any) -> None:
    stream = configure(False, "debug", "json")
    logging.getLogger("fivescore.x").debug("ours")
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["logger"], one["level"], one["msg"]) for one in found] == [
        ("fivescore.x", "debug", "ours"),
        ("uvicorn.error", "warning", "Invalid HTTP request received."),
    ]


def test_a_library_with_handlers_of_its_own_is_adopted(configure: Any) -> None:
    stream, own = configure(False, "info", "json"), io.StringIO()
    library = logging.getLogger("a-library-of-the-engine")
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False
    logs.adopt("a-library-of-the-engine")
    library.warning("trouble")
    assert own.getvalue() == ""
    assert json.loads(stream.getvalue())["msg"] == "trouble"


def test_a_library_s_own_format_may_have_the_process(configure: Any) -> None:
    """vLLM's has, and its lines come that way until it is adopted."""
    configure(False, "info")
    record = logging.getLogger("library").makeRecord("library", 20, "", 0, "loads", (), None)
    assert logging.Formatter("pid=%(process)d %(message)s").format(record) == (
        f"pid={os.getpid()} loads"
    )


# JSON


def test_json_has_time_level_logger_message_and_fields() -> None:
    given = record("%(a)s and %(b)d", {"a": "x", "b": 2, "c": 1.5})
    given.created = datetime(2026, 1, 2, 3, 4, 5, 67_900, UTC).timestamp()
    assert json.loads(Json().format(given)) == {
        "ts": "2026-01-02T03:04:05.067Z", "level": "warning", "logger": "fivescore.x",
        "msg": "x and 2", "a": "x", "b": 2, "c": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize("text", ['a "quote"', "two\nlines", "\u2028\x00\x1b", "\ud800", "é"])
def test_json_is_one_line_of_ascii_whatever_it_says(text: str) -> None:
    line = Json().format(record("%s", text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["msg"] == text


def test_a_field_cannot_stand_in_for_what_every_line_has() -> None:
    line = json.loads(Json().format(record("m", {"msg": "forged", "level": "forged", "x": 1})))
    assert (line["msg"], line["level"], line["x"]) == ("m", "warning", 1)


def test_others_arguments_are_no_fields() -> None:
    given = record("%(password)d asked", {"password": 1, "more": 2}, name="a.library")
    assert json.loads(Json().format(given)).keys() == {"ts", "level", "logger", "msg"}
    assert "more" not in Text().format(given)


def test_what_has_no_json_is_told_as_text() -> None:
    assert json.loads(Json().format(record("m", {"x": {1}.__class__})))["x"] == "<class 'set'>"


def caught() -> Any:
    try:
        try:
            raise ValueError("the inner secret")
        except ValueError as error:
            raise KeyError("the outer secret") from error
    except KeyError:
        return sys.exc_info()


def test_an_exception_is_a_field() -> None:
    given = record("m")
    given.exc_info = caught()
    assert "KeyError: 'the outer secret'" in json.loads(Json().format(given))["traceback"]


def test_a_traceback_without_messages_says_where_and_what_and_why() -> None:
    told = without_messages(caught()[1])
    assert "secret'" not in told
    assert "in caught" in told
    assert told.index("KeyError\n") < told.index("because of") < told.index("ValueError", -12)


def test_a_traceback_ends_though_its_causes_go_round() -> None:
    one, other = ValueError("a"), KeyError("b")
    one.__cause__, other.__cause__ = other, one
    assert without_messages(one).count("because of") < 20


def test_text_has_the_message_and_behind_it_what_it_left_out() -> None:
    fields = {"path": "/score", "ms": 1.25, "code": "ok", "note": 'two "words"\nand more', "no": ""}
    line = Text().format(record("%(path)s %(ms).1f ms", fields))
    assert line.endswith(r' WARNING /score 1.2 ms code=ok note="two \"words\"\nand more" no=""')


def test_text_has_a_traceback_on_lines_of_its_own() -> None:
    lines = Text().format(record("failed", {"id": "x", "traceback": "a\nb"})).splitlines()
    assert lines[0].endswith("failed id=x")
    assert lines[1:] == ["a", "b"]


# Other processes' lines


@pytest.mark.parametrize("line", [b"WARNING 11-23 02:11:00 [x.py:1] m\n", b"\r 50%|##", b"\xff\n"])
def test_in_text_they_pass_as_they_are(configure: Any, line: bytes) -> None:
    configure(False, "info", "text")
    assert relayed(line, level_of) == line


@pytest.mark.parametrize(
    ("line", "level", "told"),
    [
        (
            b"(EngineCore_DP0 pid=12) ERROR 11-23 02:11:00 [core.py:1] died\n", "error",
            "(EngineCore_DP0 pid=12) ERROR 11-23 02:11:00 [core.py:1] died",
        ),
        (b"\x1b[0;36m(Worker pid=1)\x1b[0m WARNING 11-23 02:11:00 [a.py:2] x\n", "warning",
         "(Worker pid=1) WARNING 11-23 02:11:00 [a.py:2] x"),
        (b"Loading weights:  50%|#####     |\r", "info", "Loading weights:  50%|#####     |"),
        (b"an ERROR in words\n", "info", "an ERROR in words"),
        (b"\xff\xfe\n", "info", "\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_in_json_they_are_wrapped_with_their_level(
    configure: Any, line: bytes, level: str, told: str
) -> None:
    configure(False, "info", "json")
    wrapped = relayed(line, level_of)
    assert wrapped.endswith(b"}\n")
    found = json.loads(wrapped)
    assert (found["logger"], found["level"], found["msg"]) == ("engine", level, told)


def test_in_json_ours_pass_as_they_are_and_empty_ones_not(configure: Any) -> None:
    configure(False, "info", "json")
    ours = Json().format(record("m")).encode() + b"\n"
    assert relayed(ours, level_of) == ours
    assert relayed(b"\n", level_of) == relayed(b"  \r", level_of) == b""
