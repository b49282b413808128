"""Log lines on standard error: JSON for machines, text for people in a terminal.

A fivescore record with one mapping as its arguments is an event. Its message names some of the
fields (``%(status)d``); a text line has the others after the message, a JSON line has all fields.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from fivescore.types import Pair

Format = Literal["auto", "json", "text"]

log = logging.getLogger(__name__)

TEXT_CHARACTERS = 2000
TEXT_PAIRS = 16
"""The most characters per text, and the most pairs per request, that ``log_texts`` shows."""
MOST_CAUSES = 10
_OURS = "fivescore"
_JSON_START = b'{"ts":'
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def configure(level: str, form: Format = "auto") -> None:
    """Log to standard error: fivescore from ``level`` up, libraries from warning up.

    ``auto`` is text in a terminal and JSON elsewhere.
    """
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if as_json else Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(as_json)
    # No format has these, and they cost time per record; vLLM's format has the process id.
    logging.logThreads = logging.logMultiprocessing = False


def adopt(name: str) -> None:
    """Give a library's log, which has handlers of its own, the service's format."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


class Json(logging.Formatter):
    """One JSON object per line: ts (RFC 3339, UTC), level, logger, msg, and an event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line = line | _fields(record) | line
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _as_json(line)


class Text(logging.Formatter):
    """Date, level, message and an event's other fields on a line; a traceback on lines after it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        fields = _fields(record)
        lines = fields.pop("traceback", "")
        others = (
            f" {name}={_word(value)}"
            for name, value in fields.items()
            if f"%({name})" not in str(record.msg)
        )
        return super().formatMessage(record) + "".join(others) + (lines and f"\n{lines}")


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _as_json(line: dict[str, Any]) -> str:
    """JSON in ASCII, which any terminal's or file's encoding can hold."""
    with contextlib.suppress(TypeError):  # half of a surrogate pair, or a number of many digits
        if (text := orjson.dumps(line, default=str)).isascii():
            return text.decode()
    return json.dumps(line, default=str, separators=(",", ":"))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    ours = record.name.partition(".")[0] == _OURS
    return dict(record.args) if ours and isinstance(record.args, Mapping) else {}


def _word(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[!-~]+", text) else json.dumps(text, ensure_ascii=False)


def relayed(line: bytes, level_of: Callable[[str], int]) -> bytes:
    """Another process's line in this log's format; lines that have it already stay as they are.

    Args:
        level_of: the level of a line, without its colours.
    """
    if not any(isinstance(one.formatter, Json) for one in logging.getLogger().handlers):
        return line
    text = _COLOUR.sub("", line.decode(errors="replace")).strip()
    if not text or line.startswith(_JSON_START):
        return line if text else b""
    record = logging.LogRecord("engine", level_of(text), "", 0, text, None, None)
    return Json().format(record).encode() + b"\n"


def without_messages(error: BaseException) -> str:
    """The tracebacks of an exception and its causes, without messages: they may hold texts."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MOST_CAUSES:
        parts.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__qualname__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\nbecause of\n".join(parts)


def log_texts(pairs: Sequence[Pair | Exception], request_id: str) -> None:
    """Log the texts of a request's pairs, cut to a bounded length; for ``--log-texts`` only."""
    for place, pair in enumerate(pairs[:TEXT_PAIRS]):
        if isinstance(pair, Pair):
            texts = {name: _shown(value) for name, value in pair if value is not None}
            fields = {"request_id": request_id, "pair": place, **texts}
            log.info("pair %(pair)d of request %(request_id)s", fields)


def _shown(value: Any) -> str:
    turns = value[:TEXT_CHARACTERS] if isinstance(value, list) else [value]
    texts = [str(getattr(one, "content", one)) for one in turns]
    more = sum(map(len, texts)) + len(texts) - 1 - TEXT_CHARACTERS
    shown = " ".join(text[:TEXT_CHARACTERS] for text in texts)[:TEXT_CHARACTERS]
    return shown if more <= 0 else f"{shown} ... and {more} characters more"
