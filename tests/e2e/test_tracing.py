"""One request to the real engine is one trace, down to vLLM's own span of each sequence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="NOT CHECKED: pip install 'fivescore[tracing]'"
)

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fivescore.telemetry.trace import STAGES
from tests.e2e.server import STOP_SECONDS, running

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
UNSAMPLED_ID = "1" * 32
CLOCKS_NANOSECONDS = 5_000_000
"""vLLM reads the wall clock where fivescore reads the monotonic one."""


class Receiver:
    """What an OpenTelemetry collector is sent, over OTLP/HTTP, by trace and service."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for sent in request.resource_spans:
            self.services |= {
                one.value.string_value
                for one in sent.resource.attributes
                if one.key == "service.name"
            }
            for scope in sent.scope_spans:
                self.spans += scope.spans

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """What one server sent of three requests, until it had ended."""
    log = tmp_path_factory.mktemp("tracing") / "server.log"
    with pytest.MonkeyPatch.context() as patch, receiving() as receiver:
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        with running(log, "--otlp-traces-endpoint", receiver.endpoint) as server:
            server.until_ready()
            pairs = [{"prompt": "What is 1+1?", "response": text} for text in ("2", "3", "3")]
            for trace_id, flags in ((TRACE_ID, "01"), (UNSAMPLED_ID, "00")):
                parent = {"traceparent": f"00-{trace_id}-{SPAN_ID}-{flags}"}
                answer = server.http.post("/score", json={"pairs": pairs}, headers=parent)
                assert answer.status_code == 200, answer.text
            server.http.get("/health")
            server.terminate()  # spans wait for their batch: it is the end that sends them
            assert server.process.wait(STOP_SECONDS) == 0
        _check_log(log)
        yield receiver


def _check_log(log: Path) -> None:
    text = log.read_text(errors="replace")
    assert "TracerProvider" not in text
    assert "traces: " not in text
    assert f"trace_id={TRACE_ID}" in text or f'"trace_id":"{TRACE_ID}"' in text


def test_a_request_is_one_trace_with_the_engine_in_it(received: Receiver) -> None:
    spans = received.trace(TRACE_ID)
    names = sorted(span.name for span in spans)
    # Three pairs, two of them the same: the engine computes two sequences.
    assert names == sorted(["POST /score", *STAGES, "llm_request", "llm_request"])
    (root,) = [span for span in spans if span.name == "POST /score"]
    assert root.parent_span_id.hex() == SPAN_ID
    stages = {span.name: span for span in spans if span.name in STAGES}
    assert all(span.parent_span_id == root.span_id for span in stages.values())


def test_vllm_s_spans_are_children_of_the_engine_stage(received: Receiver) -> None:
    (stage,) = [span for span in received.trace(TRACE_ID) if span.name == "engine"]
    for span in received.trace(TRACE_ID):
        if span.name == "llm_request":
            assert span.parent_span_id == stage.span_id
            assert stage.start_time_unix_nano - CLOCKS_NANOSECONDS <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= stage.end_time_unix_nano + CLOCKS_NANOSECONDS
            told = {one.key: one.value for one in span.attributes}
            assert told["gen_ai.usage.prompt_tokens"].int_value > 0


def test_nothing_is_sent_of_what_is_not_sampled_or_only_a_probe(received: Receiver) -> None:
    assert not received.trace(UNSAMPLED_ID)
    roots = [span.name for span in received.spans if not span.parent_span_id]
    assert "llm_request" not in roots  # a trace of its own, had it no parent
    assert not [span for span in received.spans if "health" in span.name]


def test_vllm_s_start_is_a_trace_of_the_same_service(received: Receiver) -> None:
    assert received.services == {"fivescore"}
    assert "EngineCoreProc init" in {span.name for span in received.spans}


def test_no_span_holds_text(received: Receiver) -> None:
    assert "1+1" not in "".join(str(span) for span in received.spans)
