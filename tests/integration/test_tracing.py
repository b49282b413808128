"""Spans of the running app on the fake engine, with an in-memory exporter."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="NOT CHECKED: pip install 'fivescore[tracing]'")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fivescore.engine.fake import FakeEngine
from fivescore.scoring.inflight import Headers
from fivescore.settings import DEMO
from fivescore.telemetry.trace import ENGINE_SPANS, STAGES
from fivescore.telemetry.tracing import Tracing
from fivescore.types import Output
from tests.integration.process import refused
from tests.integration.service import OTHER, PAIR, Service, serving

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}


class _Engine(FakeEngine):
    """The fake engine; remembers the trace headers of every sequence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(DEMO, {name.replace("_", "-"): value for name, value in options.items()})
        self.headers: dict[str, str] = {}

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Headers = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        self.headers[request_id] = (trace_headers or {}).get("traceparent", "")
        return await super().encode(token_ids, request_id, trace_headers, priority, rank, prefix)


@dataclass
class _Traced:
    service: Service
    engine: _Engine
    exporter: InMemorySpanExporter

    def traces(self) -> list[dict[str, ReadableSpan]]:
        """The spans by their names, trace by trace, as they ended."""
        found: dict[int, dict[str, ReadableSpan]] = defaultdict(dict)
        for span in self.exporter.get_finished_spans():
            assert span.context is not None
            assert span.name not in found[span.context.trace_id], "a span twice in one trace"
            found[span.context.trace_id][span.name] = span
        return list(found.values())

    def only(self) -> dict[str, ReadableSpan]:
        (trace,) = self.traces()
        return trace


@asynccontextmanager
async def _traced(
    settings: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[_Traced]:
    engine, exporter = _Engine(**options), InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    async with serving(engine, tracing=tracing, **(settings or {})) as service:
        yield _Traced(service, engine, exporter)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_request_is_one_trace_with_a_child_a_stage() -> None:
    async with _traced() as traced:
        answer = await traced.service.score({"pairs": [PAIR, OTHER]}, **PARENT)
        spans = traced.only()
    root = spans["POST /score"]
    assert set(spans) == {"POST /score", *STAGES}
    assert root.parent is not None
    assert (root.parent.trace_id, root.parent.span_id) == (int(TRACE_ID, 16), int(SPAN_ID, 16))
    assert _attributes(root) == {
        "http.request.method": "POST", "http.route": "/score", "http.response.status_code": 200,
        "url.path": "/score", "url.scheme": "http", "network.protocol.version": "1.1",
        "fivescore.request_id": answer.headers["X-Request-Id"], "fivescore.pairs": 2,
        "fivescore.tokens": answer.json()["usage"]["tokens"],
        "fivescore.cached_tokens": 0, "fivescore.failed": 0,
    }  # fmt: skip
    assert "traceparent" not in answer.headers


async def test_stages_lie_in_order_in_their_request_and_take_what_the_header_says() -> None:
    async with _traced() as traced:
        answer = await traced.service.score({"pairs": [PAIR, OTHER]})
        spans = traced.only()
    root = spans["POST /score"]
    assert all(spans[stage].parent == root.context for stage in STAGES)
    starts = [spans[stage].start_time or 0 for stage in STAGES]
    assert starts == sorted(starts)
    for stage in STAGES:
        began, ended = spans[stage].start_time or 0, spans[stage].end_time or 0
        assert (root.start_time or 0) <= began <= ended <= (root.end_time or 0)
    for before, after in (("admit", "render"), ("render", "tokenise"), ("tokenise", "engine")):
        assert (spans[before].end_time or 0) <= (spans[after].start_time or 0)
    told = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert told == {
        stage: f"{_attributes(spans[stage])['fivescore.stage.seconds'] * 1e3:.3f}"
        for stage in STAGES
    }


async def test_a_large_request_has_a_bounded_number_of_spans_in_the_engine() -> None:
    async with _traced() as traced:
        pairs = [{"prompt": "p", "response": str(place)} for place in range(ENGINE_SPANS + 10)]
        await traced.service.score({"pairs": pairs})
        traced.only()
        flags = [headers[-2:] for headers in traced.engine.headers.values()]
    assert sorted(flags) == ["00"] * 10 + ["01"] * ENGINE_SPANS


async def test_requests_at_the_same_time_do_not_mix() -> None:
    async with _traced(latency_seconds=0.01) as traced:
        await asyncio.gather(
            *(
                traced.service.score(
                    {"pairs": [{"prompt": "p", "response": f"{n} {m}"} for m in range(n % 3 + 1)]},
                    **{"X-Request-Id": f"r{n}", "traceparent": f"00-{n + 1:032x}-{SPAN_ID}-01"},
                )
                for n in range(40)
            )
        )
        for trace in traced.traces():
            root = trace["POST /score"]
            assert root.context is not None
            n = root.context.trace_id - 1
            assert set(trace) == {"POST /score", *STAGES}
            assert _attributes(root)["fivescore.request_id"] == f"r{n}"
            assert _attributes(root)["fivescore.pairs"] == n % 3 + 1
            assert all(trace[stage].parent == root.context for stage in STAGES)
            engine = trace["engine"].context
            assert engine is not None
            assert traced.engine.headers[f"r{n}-0"][3:52] == f"{n + 1:032x}-{engine.span_id:016x}"
        assert len(traced.traces()) == 40


async def test_probes_and_scrapes_are_not_traced() -> None:
    async with _traced() as traced:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            await traced.service.http.get(path, headers=PARENT)
        assert not traced.traces()


@pytest.mark.parametrize(
    ("body", "status", "code", "failed", "stages"),
    [
        ({"pairs": 3}, 422, "invalid_request", False, set()),
        ({"pairs": [PAIR] * 9}, 413, "too_many_pairs", False, set()),
        ({"token_ids": [1, 2], "timeout_seconds": 0.01}, 504, "deadline_exceeded", True,
         {"admit", "engine"}),
    ],
)  # fmt: skip
async def test_a_refused_request_says_why(
    body: Any, status: int, code: str, failed: bool, stages: set[str]
) -> None:
    async with _traced({"max_pairs": 8}, latency_seconds=30) as traced:
        assert (await traced.service.score(body)).status_code == status
        spans = traced.only()
    root = spans.pop("POST /score")
    assert _attributes(root)["http.response.status_code"] == status
    assert _attributes(root)["fivescore.code"] == code
    assert root.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert _attributes(root).get("error.type") == (code if failed else None)
    assert set(spans) == stages


async def test_a_fault_of_the_service_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _traced() as traced:
        monkeypatch.setattr(traced.service.scorer.service, "check_available", lambda: 1 / 0)
        assert (await traced.service.score(PAIR)).status_code == 500
        root = traced.only()["POST /score"]
    assert root.status.status_code is StatusCode.ERROR
    assert _attributes(root)["error.type"] == "internal_error"
    assert not root.events


async def test_a_request_cut_off_by_the_shutdown_ends_its_spans() -> None:
    async with _traced(latency_seconds=30) as traced:
        asked = asyncio.create_task(traced.service.score({"token_ids": [1, 2, 3]}))
        await traced.service.until(lambda: bool(traced.engine.headers))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        spans = traced.only()
    root = spans["POST /score"]
    assert set(spans) == {"POST /score", "admit", "engine"}
    assert root.status.status_code is StatusCode.ERROR
    assert _attributes(root)["error.type"] == "draining"
    assert (spans["engine"].end_time or 0) <= (root.end_time or 0)


async def test_a_pair_s_own_error_leaves_the_request_alone() -> None:
    async with _traced(nan_every=2) as traced:
        answer = await traced.service.score({"pairs": [PAIR, OTHER]})
        assert answer.json()["usage"]["failed"] == 1
        root = traced.only()["POST /score"]
    assert root.status.status_code is StatusCode.UNSET
    assert _attributes(root)["fivescore.failed"] == 1


SECRETS = ("sesame", "Xanadu", "Kublai", "pleasure")


def _secretive(http: httpx.AsyncClient) -> dict[str, Callable[[], Any]]:
    """Requests that hold words of ``SECRETS`` in every place that a client can choose."""
    pair = {"prompt": "Xanadu", "response": "Kublai"}
    bearer = {"Authorization": "Bearer sesame"}
    return {
        "scored": lambda: http.post("/score", json=pair, headers=bearer),
        "key in the query": lambda: http.post("/score?api_key=sesame", json=pair),
        "wrong key": lambda: http.post("/score?api_key=Kublai", json=pair),
        "malformed": lambda: http.post("/score", json={"pleasure": "Xanadu"}, headers=bearer),
        "not JSON": lambda: http.post("/score", content=b"{Xanadu", headers=bearer),
        "too long": lambda: http.post(
            "/score", json={"prompt": "Xanadu " * 9999, "response": "Kublai"}, headers=bearer
        ),
        "unknown path": lambda: http.get("/Xanadu/api_key=sesame", headers=bearer),
        "unknown method": lambda: http.request("XANADU", "/score", headers=bearer),
        "trainer's": lambda: http.post(
            "/get_reward", json={"query": ["Xanadu"], "prompts": ["Kublai"]}, headers=bearer
        ),
        "headers": lambda: http.post(
            "/score", json=pair, headers={**bearer, "User-Agent": "pleasure", "Cookie": "pleasure"}
        ),
    }


async def test_no_span_holds_text_or_key() -> None:
    async with _traced({"api_key": ["sesame"]}) as traced:
        asked = _secretive(traced.service.http)
        for ask in asked.values():
            await ask()
        spans = traced.exporter.get_finished_spans()
        assert len(traced.traces()) == len(asked)
    text = json.dumps([json.loads(span.to_json()) for span in spans])
    assert not [word for word in SECRETS if word.lower() in text.lower()]


async def test_an_unknown_method_and_path_make_no_new_name() -> None:
    async with _traced() as traced:
        await traced.service.http.request("BREW", "/pot")
        root = traced.only()["HTTP"]
    assert _attributes(root)["http.request.method"] == "_OTHER"
    assert _attributes(root)["fivescore.code"] == "not_found"
    assert not {"url.path", "http.route"} & _attributes(root).keys()


OFF = """
import sys
from fivescore.serve import make_engine, start_tracing
from fivescore.settings import DEMO, Settings
from fivescore.http.app import create_app
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Scorer
from fivescore.telemetry.metrics import Metrics
settings = Settings(backend="fake", **{SETTINGS})
tracing = start_tracing(settings.otlp_traces_endpoint)
create_app(settings, Scorer(Service(settings, make_engine, Metrics())), tracing)
make_engine(settings, None)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")[:1])
"""


@pytest.mark.parametrize(
    ("settings", "imported"),
    [("{}", "[]"), ("{'otlp_traces_endpoint': 'http://127.0.0.1:1'}", "['opentelemetry']")],
)
def test_opentelemetry_is_imported_only_when_traces_are_on(settings: str, imported: str) -> None:
    code = OFF.replace("{SETTINGS}", settings)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == imported


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from fivescore.cli import main
sys.exit(main(["serve", "--backend", "fake", "--port", "0",
               "--otlp-traces-endpoint", "http://127.0.0.1:1"]))
"""


def test_a_missing_package_is_told_with_the_way_to_install_it() -> None:
    found = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert found.returncode == 1
    assert "pip install 'fivescore[tracing]'" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_an_endpoint_with_a_key_is_refused_and_not_shown() -> None:
    for endpoint in ("http://sesame@127.0.0.1:1", "http://127.0.0.1:1/?key=sesame", "127.0.0.1:1"):
        shown = refused("--otlp-traces-endpoint", endpoint)
        assert "--otlp-traces-endpoint" in shown.splitlines()[-1]
        assert "sesame" not in shown
