"""A request's trace as OpenTelemetry spans.

This is the only module that imports opentelemetry, and it is imported only when traces are on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fivescore import __version__
from fivescore.errors import ConfigurationError, first_line
from fivescore.telemetry.trace import STAGES, Stage, Trace

log = logging.getLogger(__name__)

Attributes = Mapping[str, str | int | float]

PROTOCOLS = ("grpc", "http/protobuf")
"""The OTLP protocols that vLLM has exporters for; its default is the first."""
FLUSH_SECONDS = 5.0
"""Seconds that the end of the service waits for spans to be delivered."""
COMPLAINT_SECONDS = 60.0
"""Seconds between two warnings of one part of opentelemetry that spans are not delivered."""
NANOSECONDS = 1e9
_PARENT = (b"traceparent", b"tracestate")


def start(endpoint: str) -> Tracing:
    """Tracing that sends spans to ``endpoint``, in batches, from a thread of its own.

    OpenTelemetry's own variables (``OTEL_*``) decide everything else. vLLM's spans of this process
    take the same way: the first provider that is set stays, so call this before vLLM sets its own.

    Raises:
        ConfigurationError: a variable has a value that OpenTelemetry refuses.
    """
    _share_with_the_engine()
    try:
        tracing = Tracing(BatchSpanProcessor(_exporter(endpoint)))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ConfigurationError(f"--otlp-traces-endpoint: {first_line(error)}") from error
    complaints = logging.getLogger("opentelemetry")
    complaints.handlers, complaints.propagate = [_Complaints()], False
    otel.set_tracer_provider(tracing.provider)
    log.info("traces go to %s", endpoint)
    return tracing


def _share_with_the_engine() -> None:
    """Set the two variables that vLLM and its processes read to the service's defaults."""
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or PROTOCOLS[0]
    )
    if protocol not in PROTOCOLS:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not one of {', '.join(PROTOCOLS)}"
        )
    os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = protocol
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", "fivescore")


def _exporter(endpoint: str) -> SpanExporter:
    if os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter(endpoint)


class Tracing:
    """Makes spans of requests, and gives them to ``processor`` as they end."""

    def __init__(self, processor: SpanProcessor) -> None:
        self.provider = TracerProvider(
            resource=Resource.create({"service.version": __version__}),
            id_generator=_Ids(),
            shutdown_on_exit=False,  # it would wait without a bound
        )
        self.provider.add_span_processor(processor)
        self._tracer = self.provider.get_tracer("fivescore", __version__)

    def begin(
        self, trace: Trace, headers: Iterable[tuple[bytes, bytes]], began: float
    ) -> RequestSpan:
        """Begin the span of a request with ``headers`` at ``began`` (``perf_counter``, seconds).

        Sets the trace id of ``trace``, and the headers that make the engine's spans children of the
        request's engine stage.
        """
        return RequestSpan(self._tracer, trace, headers, began)

    def close(self) -> None:
        """Deliver the waiting spans within ``FLUSH_SECONDS``; the others are lost."""
        flush = threading.Thread(target=self.provider.shutdown, name="traces", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


class RequestSpan:
    """One request's root span, and the spans of its stages once it has ended."""

    def __init__(
        self,
        tracer: otel.Tracer,
        trace: Trace,
        headers: Iterable[tuple[bytes, bytes]],
        began: float,
    ) -> None:
        self._tracer = tracer
        self._trace = trace
        # One offset per request: its spans fit together even if the wall clock is set meanwhile.
        self._epoch = time.time_ns() - time.perf_counter_ns()
        self._span = tracer.start_span(
            "HTTP",
            _parent(headers),
            SpanKind.SERVER,
            {"fivescore.request_id": trace.request_id},
            start_time=self._nanoseconds(began),
        )
        self._engine_id = _Ids().generate_span_id()
        context = self._span.get_span_context()
        if context.is_valid:
            trace.trace_id = f"{context.trace_id:032x}"
            parent = f"00-{trace.trace_id}-{self._engine_id:016x}"
            trace.headers = {"traceparent": f"{parent}-{context.trace_flags & 1:02x}"}
            trace.unsampled = {"traceparent": f"{parent}-00"}

    def end(self, name: str, attributes: Attributes, error: str | None, ended: float) -> None:
        """End the request.

        Args:
            name: method and route.
            error: the code of its error; None where it has none.
            ended: when the answer ended (``time.perf_counter``, seconds).
        """
        if not self._span.is_recording():
            return
        parent = otel.set_span_in_context(self._span)
        for stage in STAGES:
            if stage in self._trace.stages:
                self._child(stage, self._trace.stages[stage], parent)
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(self._nanoseconds(ended))

    def _child(self, name: str, stage: Stage, parent: Context) -> None:
        chosen = _chosen.set(self._engine_id if name == "engine" else None)
        span: Span = self._tracer.start_span(
            name,
            parent,
            attributes={"fivescore.stage.seconds": stage.seconds},
            start_time=self._nanoseconds(stage.began),
        )
        _chosen.reset(chosen)
        span.end(self._nanoseconds(stage.ended))

    def _nanoseconds(self, seconds: float) -> int:
        """A time of ``time.perf_counter`` as nanoseconds since 1970."""
        return self._epoch + int(seconds * NANOSECONDS)


_chosen: ContextVar[int | None] = ContextVar("chosen", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, except for a span whose id the engine was given before the span began."""

    def generate_span_id(self) -> int:
        return _chosen.get() or super().generate_span_id()


def _parent(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """The client's span; an empty context where its headers are not valid W3C trace context."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _PARENT:
            carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if len(carrier.get("traceparent", ())) > 1:
        carrier.clear()
    return TraceContextTextMapPropagator().extract(carrier)


class _Complaints(logging.Handler):
    """Passes on opentelemetry's warnings that spans are not delivered, one now and then.

    Its warnings about clients' headers are dropped.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.name.startswith("opentelemetry.trace") or now < self._next.get(record.name, 0.0):
            return
        self._next[record.name] = now + COMPLAINT_SECONDS
        log.warning("traces: %s", record.getMessage())
