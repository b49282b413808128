"""Spans of one request, with an in-memory exporter."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, MutableMapping

import pytest

pytest.importorskip("opentelemetry.sdk", reason="NOT CHECKED: pip install 'fivescore[tracing]'")

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fivescore.errors import ConfigurationError
from fivescore.telemetry import tracing as module
from fivescore.telemetry.trace import STAGES, Trace
from fivescore.telemetry.tracing import Tracing

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())
Headers = list[tuple[bytes, bytes]]
Complaints = tuple[logging.Logger, pytest.LogCaptureFixture]


def _spans(
    headers: Headers, trace: Trace | None = None, error: str | None = None
) -> dict[str, ReadableSpan]:
    """What one request with all stages, a millisecond each and one behind the other, exports."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    trace = trace or Trace("r")
    span = tracing.begin(trace, headers, began=100.0)
    for place, stage in enumerate(STAGES):
        trace.add(stage, 100.001 + place / 1000, 100.002 + place / 1000)
    span.end("POST /score", {"fivescore.pairs": 2}, error, 100.01)
    return {span.name: span for span in exporter.get_finished_spans()}


def _context(span: ReadableSpan) -> otel.SpanContext:
    context: otel.SpanContext | None = span.context
    assert context is not None
    return context


def _times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def test_a_request_is_one_trace_of_a_root_and_its_stages() -> None:
    spans = _spans([])
    root = spans.pop("POST /score")
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    assert root.attributes == {"fivescore.request_id": "r", "fivescore.pairs": 2}
    assert root.status.status_code is StatusCode.UNSET
    assert set(spans) == set(STAGES)
    assert {_context(span).trace_id for span in spans.values()} == {_context(root).trace_id}
    assert all(span.parent == root.context for span in spans.values())
    assert len({_context(span).span_id for span in spans.values()}) == len(STAGES)


def test_spans_have_the_times_of_the_stages() -> None:
    spans = _spans([])
    start, end = _times(spans["POST /score"])
    assert end - start == pytest.approx(10e6, abs=10)
    for place, stage in enumerate(STAGES):
        began, ended = _times(spans[stage])
        assert began - start == pytest.approx((1 + place) * 1e6, abs=10)
        assert ended - start == pytest.approx((2 + place) * 1e6, abs=10)


def test_times_are_those_of_the_wall_clock() -> None:
    before = time.time_ns()
    exporter = InMemorySpanExporter()
    span = Tracing(SimpleSpanProcessor(exporter)).begin(Trace(), [], time.perf_counter())
    span.end("POST /score", {}, None, time.perf_counter())
    began, ended = _times(exporter.get_finished_spans()[0])
    clocks = 1_000_000  # nanoseconds between readings of the two clocks
    assert before - clocks <= began <= ended <= time.time_ns() + clocks


def test_a_stage_in_pieces_says_how_long_it_took_in_all() -> None:
    trace = Trace()
    trace.add("render", 100.0, 100.0005)
    attributes = dict(_spans([], trace)["render"].attributes or {})
    assert attributes == {"fivescore.stage.seconds": pytest.approx(0.0015)}


def test_the_engine_s_spans_are_children_of_the_engine_stage() -> None:
    trace = Trace()
    engine = _context(_spans([PARENT], trace)["engine"])
    assert trace.trace_id == TRACE_ID
    assert trace.headers == {"traceparent": f"00-{TRACE_ID}-{engine.span_id:016x}-01"}


def test_a_client_s_trace_goes_on() -> None:
    root = _spans([(b"x", b"y"), PARENT, (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])[
        "POST /score"
    ]
    assert root.parent is not None
    assert f"{root.parent.trace_id:032x}" == TRACE_ID == f"{_context(root).trace_id:032x}"
    assert f"{root.parent.span_id:016x}" == SPAN_ID
    assert _context(root).trace_state == {"a": "1", "b": "2"}


def test_a_client_that_does_not_sample_is_obeyed_and_so_does_the_engine() -> None:
    trace = Trace()
    assert not _spans([(b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00".encode())], trace)
    assert trace.trace_id == TRACE_ID
    # Without headers vLLM would begin a trace of its own for every sequence.
    assert re.fullmatch(rf"00-{TRACE_ID}-\w{{16}}-00", (trace.headers or {})["traceparent"])


MALFORMED = [
    b"", b"-", b"00", b"garbage", b"\xff\xfe",
    f"00-{'0' * 32}-{SPAN_ID}-01".encode(),
    f"00-{TRACE_ID}-{'0' * 16}-01".encode(),
    f"ff-{TRACE_ID}-{SPAN_ID}-01".encode(),
    f"00-{TRACE_ID.upper()}-{SPAN_ID}-01".encode(),
    f"00-{TRACE_ID}-{SPAN_ID}-01-more".encode(),
    f"00-{TRACE_ID}-{SPAN_ID}".encode(),
    f"00-{TRACE_ID}-{SPAN_ID}-01".encode() + b"x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("headers", [*([(b"traceparent", v)] for v in MALFORMED), [PARENT, PARENT]])
def test_a_malformed_parent_and_two_parents_are_none(headers: Headers) -> None:
    assert _spans(headers)["POST /score"].parent is None


@given(
    st.lists(
        st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"baggage"]), st.binary()),
        max_size=4,
    )
)
def test_no_headers_break_a_request(headers: Headers) -> None:
    assert len(_spans(headers)) == 1 + len(STAGES)


class _Stuck(SpanProcessor):
    """Never delivers."""

    def __init__(self) -> None:
        self.asked, self.free = threading.Event(), threading.Event()

    def shutdown(self) -> None:
        self.asked.set()
        self.free.wait()


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    stuck = _Stuck()
    Tracing(stuck).close()
    assert stuck.asked.is_set()
    stuck.free.set()


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[Complaints]:
    """OpenTelemetry's logger as ``start`` leaves it."""
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [module._Complaints()], False
    yield logger, caplog
    logger.handlers, logger.propagate = before


def test_trouble_is_logged_now_and_then(complaints: Complaints) -> None:
    logger, caplog = complaints
    for _ in range(1000):
        logger.getChild("sdk").warning("Queue full")
        logger.getChild("exporter").error("refused")
    assert [r.getMessage() for r in caplog.records if r.name == module.__name__] == [
        "traces: Queue full", "traces: refused",
    ]  # fmt: skip


def test_what_clients_put_into_headers_is_not_logged(complaints: Complaints) -> None:
    _spans([PARENT, (b"tracestate", b"sesame !!!")])
    _spans([(b"traceparent", b"0" * 1000)])
    logger, caplog = complaints
    assert not [record for record in caplog.records if record.name == module.__name__]
    assert not logger.propagate


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "999999999"),
    ],
)
def test_a_variable_that_opentelemetry_refuses_stops_the_start(
    environment: MutableMapping[str, str], name: str, value: str
) -> None:
    environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    environment[name] = value
    with pytest.raises(ConfigurationError, match=r"OTLP|--otlp-traces-endpoint"):
        module.start("http://127.0.0.1:1/v1/traces")


@pytest.mark.parametrize(
    ("resource", "name"), [("", "fivescore"), ("service.name=theirs", None)], ids=["ours", "theirs"]
)
def test_the_engine_s_processes_inherit_protocol_and_name_unless_the_operator_gave_one(
    environment: MutableMapping[str, str], resource: str, name: str | None
) -> None:
    environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    environment["OTEL_RESOURCE_ATTRIBUTES"] = resource
    module._share_with_the_engine()
    assert os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert os.environ.get("OTEL_SERVICE_NAME") == name
