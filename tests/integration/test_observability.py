"""What a request leaves behind: its stages, its counts and its log line."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fivescore.http.app import ROUTES
from fivescore.telemetry.logging import TEXT_CHARACTERS, TEXT_PAIRS, Json
from fivescore.telemetry.metrics import REJECTIONS
from fivescore.telemetry.trace import STAGES
from fivescore.types import ATTRIBUTES, Output
from tests.integration.process import server
from tests.integration.protocols.protocols import PROTOCOLS, assert_refused, post
from tests.integration.service import OTHER, PAIR, Service, assert_problem, serving
from tests.integration.test_life import Connection
from tests.tools import tool
from tests.unit.engines import HeldEngine, RecordingEngine, SlowToLoad

Record = dict[str, Any]
IDS = {"token_ids": [7, 8, 9]}
NO_TEXT = ("admit", "engine", "reward")
"""Stages of pairs that come as token ids."""


class Lines(logging.Handler):
    """The service's log as JSON, which has all that the text has."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(Json())
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"

    def records(self) -> list[Record]:
        return [json.loads(line) for line in self.text.splitlines()]

    def requests(self) -> list[Record]:
        return [record for record in self.records() if "route" in record]

    def last(self) -> Record:
        return self.requests()[-1]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    caplog.set_level(logging.DEBUG, "fivescore")
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def samples(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = generate_latest(service.scorer.service.metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(service: Service, name: str, **labels: str) -> float:
    found = service.scorer.service.metrics.registry.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


def observed(service: Service) -> dict[str, float]:
    """Observations by stage."""
    name = "fivescore_stage_duration_seconds_count"
    return {stage: value(service, name, stage=stage) for stage in STAGES}


def timing(response: httpx.Response) -> dict[str, float]:
    """What ``Server-Timing`` says, in milliseconds."""
    parts = response.headers["Server-Timing"].split(", ")
    found = [re.fullmatch(r"([a-z]+);dur=(\d+\.\d{3})", part) for part in parts]
    assert all(found), response.headers["Server-Timing"]
    return {match[1]: float(match[2]) for match in found if match}


def stages(record: Record) -> dict[str, float]:
    return {s: record[f"{s}_ms"] for s in STAGES if f"{s}_ms" in record}


def pairs(number: int) -> list[dict[str, str]]:
    return [{"prompt": f"Q{n}", "response": "A " * (n % 7)} for n in range(number)]


# Stages


TOO_LONG = {"prompt": "x " * 6000, "response": ""}
STAGED: dict[str, tuple[str, Any, Sequence[str]]] = {
    "one": ("/score", PAIR, STAGES),
    "three": ("/score", {"pairs": [PAIR, OTHER, PAIR]}, STAGES),
    "chunks": ("/score", {"pairs": pairs(300)}, STAGES),
    "ids": ("/score", {"pairs": [IDS]}, NO_TEXT),
    "mixed": ("/score", {"pairs": [IDS, PAIR]}, STAGES),
    "none": ("/score", {"pairs": []}, ("admit",)),
    "too-long": ("/score", {"pairs": [TOO_LONG]}, ("admit", "render", "tokenise")),
    **{
        one.name: (one.path, one.one(), NO_TEXT if one.name.endswith("-ids") else STAGES)
        for one in PROTOCOLS
    },
}


@pytest.mark.parametrize(("path", "body", "expected"), STAGED.values(), ids=STAGED.keys())
async def test_each_stage_is_one_number_in_metric_header_and_log_line(
    path: str, body: Any, expected: Sequence[str], lines: Lines
) -> None:
    async with serving() as service:
        response = await service.http.post(path, json=body)
        assert response.status_code == 200
        told = timing(response)
        assert list(told) == list(expected)
        assert stages(lines.last()) == told
        assert observed(service) == {stage: stage in expected for stage in STAGES}
        for stage, milliseconds in told.items():
            seconds = value(service, "fivescore_stage_duration_seconds_sum", stage=stage)
            assert seconds > 0
            assert round(seconds * 1e3, 3) == milliseconds


async def test_requests_in_flight_together_have_their_own_stages(lines: Lines) -> None:
    async with serving(options={"latency_seconds": 0.01}) as service:
        bodies = [PAIR, IDS, {"pairs": pairs(40)}, {"pairs": []}]
        answers = await asyncio.gather(*(service.score(body) for body in bodies))
        told = {answer.headers["X-Request-Id"]: timing(answer) for answer in answers}
        assert {record["request_id"]: stages(record) for record in lines.requests()} == told
        assert observed(service) == {
            "admit": 4, "render": 2, "tokenise": 2, "engine": 3, "reward": 3,
        }  # fmt: skip


async def test_what_did_no_work_has_no_stages(lines: Lines) -> None:
    async with serving() as service:
        for response in (await service.http.get("/version"), await service.score({"pairs": 1})):
            assert "Server-Timing" not in response.headers
            assert stages(lines.last()) == {}
        assert observed(service) == dict.fromkeys(STAGES, 0)


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [({"latency_seconds": 30}, 504, "deadline_exceeded"), ({"die_after": 1}, 503, "engine_dead")],
)
async def test_a_request_that_fails_in_the_engine_has_the_stages_so_far(
    options: Any, status: int, code: str, lines: Lines
) -> None:
    async with serving(options=options) as service:
        response = await service.score({**PAIR, "timeout_seconds": 0.5})
        assert response.status_code == status
        took = timing(response)
        assert list(took) == ["admit", "render", "tokenise", "engine"]
        assert stages(lines.last()) == took
        assert lines.last()["code"] == code
        assert observed(service) == {stage: stage in took for stage in STAGES}


# Tokens in flight


def inflight(service: Service) -> tuple[float, float]:
    return value(service, "fivescore_inflight_pairs"), value(service, "fivescore_inflight_tokens")


async def test_tokens_leave_with_a_request_that_fails_in_whichever_way() -> None:
    async with serving(HeldEngine()) as service:
        await service.score({"pairs": [IDS], "timeout_seconds": 0.02})
        assert inflight(service) == (0, 0)
        request = asyncio.create_task(service.score(IDS))
        await asyncio.sleep(0.02)
        assert inflight(service) == (1, 3)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert inflight(service) == (0, 0)
    async with serving(options={"fail_every": 1}) as service:
        assert (await service.score(IDS)).status_code == 500
        assert inflight(service) == (0, 0)
    async with serving(options={"die_after": 1}) as service:
        await service.score({"pairs": [IDS, PAIR]})
        assert inflight(service) == (0, 0)


async def test_a_client_that_goes_away_is_logged_and_leaves_nothing(lines: Lines) -> None:
    engine = HeldEngine(sequences=2)
    async with serving(engine) as service:
        connection = Connection(json.dumps({"pairs": [PAIR, OTHER]}).encode())
        request = asyncio.create_task(connection.run(service))
        await engine.busy.wait()
        assert inflight(service)[0] == engine.unfinished() == 2
        connection.broken.set()
        await asyncio.wait_for(request, 30)
        await asyncio.sleep(0)
        assert (engine.aborted, engine.unfinished()) == (2, 0)
        assert value(service, "fivescore_pairs_total", outcome="cancelled") == 2
        assert inflight(service) == (0, 0)
        assert (lines.last()["status"], lines.last()["code"]) == (499, "client_gone")
        assert list(stages(lines.last())) == ["admit", "render", "tokenise", "engine"]
        assert observed(service)["engine"] == 1


# Refusals


def rejections(service: Service) -> dict[str, float]:
    name = "fivescore_admission_rejections_total"
    counts = {reason: value(service, name, reason=reason) for reason in REJECTIONS}
    return {reason: count for reason, count in counts.items() if count}


async def refused_once(service: Service, reason: str, code: str, **facts: int) -> None:
    """On every route, each time; trainers get 503 for the 429 that our own clients get."""
    own = assert_problem(await service.score(PAIR), 429 if facts else 503, code)
    assert facts.items() <= own.items()
    for count, protocol in enumerate(PROTOCOLS, start=1):
        assert rejections(service) == {reason: count}
        problem = assert_refused(await post(service, protocol), 503, code)
        assert facts.items() <= problem.items()
    assert rejections(service) == {reason: 1 + len(PROTOCOLS)}


async def test_while_no_requests_are_taken_each_refusal_is_counted_once() -> None:
    async with serving(SlowToLoad(), settle=False, hold_seconds=0) as service:
        await refused_once(service, "loading", "loading")
    async with serving() as service:
        service.scorer.service.drain()
        await refused_once(service, "draining", "draining")
    async with serving(options={"load_error": "no"}) as service:
        await refused_once(service, "engine_dead", "engine_dead")


@pytest.mark.parametrize("limit", [{"max_inflight_pairs": 1}, {"max_inflight_tokens": 2}])
async def test_each_refusal_for_a_limit_is_counted_once(limit: Any) -> None:
    ((name, most),) = limit.items()
    reason = name.removeprefix("max_inflight_")
    engine = HeldEngine()
    async with serving(engine, **limit) as service:
        assert value(service, "fivescore_inflight_limit", kind=reason) == most
        accepted = asyncio.create_task(service.score(PAIR))
        await engine.busy.wait()
        await refused_once(service, reason, "overloaded", limit=most)
        engine.gate.set()
        assert (await accepted).status_code == 200


async def test_what_is_wrong_with_a_request_is_no_refusal() -> None:
    async with serving(max_pairs=2) as service:
        for body in ({"pairs": [PAIR] * 3}, {"pairs": 1}, {"prompt": 1}, {"token_ids": [10**6]}):
            assert (await service.score(body)).status_code in (413, 422)
        assert rejections(service) == {}


# Scores


def attributes(service: Service) -> set[str]:
    return {
        dict(labels)["attribute"]
        for name, labels in samples(service)
        if name == "fivescore_attribute_score_count"
    }


async def test_another_models_attributes_are_counted_by_their_names(tmp_path: Path) -> None:
    manifest = {
        "outputs": 2,
        "attributes": {"safety": {"output": 1}, "humour": {"output": 0}},
        "reward": {"weights": {"safety": 1.0}},
    }
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    async with serving(manifest=str(tmp_path / "m.json"), options={"outputs": 2}) as service:
        await service.scores(PAIR, OTHER)
        assert attributes(service) == {"safety", "humour"}
        for name in ("safety", "humour"):
            assert value(service, "fivescore_attribute_score_count", attribute=name) == 2


class NotFinite(RecordingEngine):
    """NaN in the second output and infinity in the fifth, for sequences of an odd length."""

    async def encode(self, token_ids: list[int], *_: Any, **__: Any) -> Output:
        odd = len(token_ids) % 2
        return Output([1.0, math.nan, 1.0, 1.0, math.inf] if odd else [1.0] * 5)


async def test_what_is_not_finite_is_counted_by_attribute_and_logged_once_per_request(
    lines: Lines,
) -> None:
    async with serving(NotFinite()) as service:
        entries = await service.scores(IDS, {"token_ids": [1, 2]}, {"token_ids": [1, 2, 3, 4, 5]})
        assert [entry.get("error", {}).get("code") for entry in entries] == [
            "non_finite", None, "non_finite",
        ]  # fmt: skip
        for name in (*ATTRIBUTES, "reward"):
            expected = 2 if name in ("correctness", "verbosity", "reward") else 0
            assert value(service, "fivescore_nonfinite_scores_total", attribute=name) == expected
        assert value(service, "fivescore_attribute_score_count", attribute="coherence") == 1
        (line,) = [record for record in lines.records() if record["level"] == "error"]
        assert "2 pairs" in line["msg"]
        assert "pair 0, has 3 tokens" in line["msg"]
        assert (line["pairs"], line["pair"], line["tokens"]) == (2, 0, 3)
        assert line["sha256"] == hashlib.sha256(b"[7,8,9]").hexdigest()
        assert line["request_id"] == lines.last()["request_id"]


async def test_what_is_not_finite_is_counted_though_the_request_fails_afterwards() -> None:
    class Late(NotFinite):
        async def encode(self, token_ids: list[int], *_: Any, **__: Any) -> Output:
            if len(token_ids) == 2:
                await asyncio.sleep(60)
            return await super().encode(token_ids)

    async with serving(Late()) as service:
        body = {"pairs": [IDS, {"token_ids": [1, 2]}], "timeout_seconds": 0.1}
        assert (await service.score(body)).status_code == 504
        assert value(service, "fivescore_nonfinite_scores_total", attribute="reward") == 1


# Labels


def series(service: Service) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Every series but the HTTP ones, which appear with the first request of their kind."""
    return {key for key in samples(service) if not key[0].startswith("fivescore_http")}


HOSTILE: list[tuple[str, str, Any]] = [
    *(("GET", f"/nowhere/{n}", None) for n in range(20)),
    ("POST", "/score/../score", PAIR),
    ("POST", "/%00", None),
    ("DELETE", "/score", None),
    ("BREW", "/score", None),
    ("GET", "/metrics%0Afake%201", None),
    ("PROPFIND", "/nowhere", None),
    ("POST", "/score", {"prompt": 'x"} 1\nfake_metric 1', "response": "y"}),
    ("POST", "/score", {"pairs": [PAIR], "weights": {"humour": 1.0}}),
    ("POST", "/score", {"pairs": [PAIR], "weights": {"helpfulness": 1.0}}),
    ("POST", "/score", {"unknown": 1}),
    ("POST", "/score", {"token_ids": [10**8]}),
    ("POST", "/classify", {"model": "m" * 1000, "input": "x"}),
]


async def test_hostile_traffic_makes_no_new_label_value() -> None:
    async with serving(options={"nan_every": 3, "fail_every": 5}) as service:
        before = series(service)
        for method, path, body in HOSTILE:
            url = httpx.URL("http://localhost").copy_with(raw_path=path.encode("latin-1"))
            headers = {"X-Request-Id": "id-of-mine"}
            await service.http.request(method, url, json=body, headers=headers)
        await service.scores(*pairs(30))
        assert series(service) == before
        labels = [dict(found) for name, found in samples(service) if name.endswith("seconds_count")]
        http = [found for found in labels if "route" in found]
        assert {found["method"] for found in http} <= {"GET", "POST", "DELETE", "other"}
        known = {path for _, path, _ in ROUTES} | {"unknown"}
        assert {found["route"] for found in http} <= known
        wrong = [found for found in http if found["status"] == "404"]
        assert {found["route"] for found in wrong} == {"unknown"}


async def test_prometheus_own_linter_finds_no_fault_after_traffic() -> None:
    async with serving(options={"nan_every": 3}) as service:
        await service.scores(*pairs(5))
        await service.http.get("/nowhere")
        text = generate_latest(service.scorer.service.metrics.registry)
    command = [tool("promtool"), "check", "metrics"]
    found = subprocess.run(command, input=text, capture_output=True, check=False)  # noqa: ASYNC221
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


# Log lines


async def test_a_request_has_one_line_with_all_that_is_known_of_it(lines: Lines) -> None:
    async with serving(options={"fail_every": 2}) as service:
        response = await service.score({"pairs": [IDS, {"token_ids": [1] * 4}]})
    (line,) = lines.requests()
    took = stages(line)
    assert line.pop("ms") >= took["engine"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert re.fullmatch(r"POST /score 200 [\d.]+ ms", line.pop("msg"))
    assert line == {
        "level": "info", "logger": "fivescore.http.context", "method": "POST", "route": "/score",
        "path": "/score", "status": 200, "code": "ok", "pairs": 2, "tokens": 3, "failed": 1,
        **{f"{stage}_ms": milliseconds for stage, milliseconds in took.items()},
        "request_id": response.headers["X-Request-Id"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "route"),
    [
        ("GET", "/nowhere", None, 404, "not_found", "unknown"),
        ("DELETE", "/score", None, 405, "method_not_allowed", "/score"),
        ("POST", "/score", {"pairs": 1}, 422, "invalid_request", "/score"),
        ("POST", "/score", {"token_ids": [10**6]}, 422, "invalid_pair", "/score"),
        ("POST", "/classify", {}, 422, "invalid_request", "/classify"),
        ("GET", "/version", None, 200, "ok", "/version"),
    ],
)
async def test_the_line_says_how_the_request_ended(
    lines: Lines, method: str, path: str, body: Any, status: int, code: str, route: str
) -> None:
    async with serving() as service:
        await service.http.request(method, path, json=body)
    line = lines.last()
    assert (line["status"], line["code"], line["route"]) == (status, code, route)


async def test_probes_are_logged_at_debug_only(lines: Lines) -> None:
    async with serving() as service:
        await service.http.get("/health/ready")
        await service.http.get("/metrics")
    assert [line["level"] for line in lines.requests()] == ["debug", "debug"]


SECRET = "the-secret-text"
KEY = "a-key-of-the-service"


class Broken(RecordingEngine):
    """Fails as libraries do: with what it was given in the message, and in that of the cause."""

    async def encode(self, token_ids: list[int], *_: Any, **__: Any) -> Output:
        try:
            raise ValueError(f"{SECRET} {KEY}")
        except ValueError as error:
            raise KeyError(f"{SECRET} {KEY}") from error


async def ask_with_secrets(service: Service) -> None:
    text = {"prompt": SECRET, "response": f"{SECRET} {KEY}"}
    bearer = {"Authorization": f"Bearer {KEY}"}
    bodies = [text, {"pairs": [text, {"prompt": SECRET}]}, {SECRET: SECRET}, {"pairs": [SECRET]}]
    for body in [*bodies, {**text, "token_ids": [1]}, {**text, "weights": {SECRET: 1.0}}]:
        await service.http.post("/score", json=body, headers=bearer)
        await service.http.post("/score", json=body, params={"api_key": KEY})
    for path, name in (("/get_reward", "query"), ("/classify", "input"), ("/pooling", "input")):
        await service.http.post(path, json={name: [SECRET]}, headers=bearer)
    await service.http.post("/score", content=f'{{"prompt": "{SECRET}', headers=bearer)
    for path in (
        f"/score%3Fapi_key={KEY}", f"/score&api_key={KEY}", f"/score%253Fapi_key%253D{KEY}",
        f"/api_key={KEY}", f"/score;api_key={KEY}", f"/score?API_KEY={KEY}",
    ):  # fmt: skip
        url = httpx.URL("http://localhost").copy_with(raw_path=path.encode())
        await service.http.post(url, json=text, headers=bearer)


@pytest.mark.parametrize("options", [{}, {"nan_every": 1}, {"fail_every": 1}, None])
async def test_no_line_has_a_text_or_a_key(lines: Lines, options: Any) -> None:
    engine = Broken() if options is None else None
    async with serving(engine, options or {}, api_key=KEY) as service:
        await ask_with_secrets(service)
    assert len(lines.requests()) == 22
    assert SECRET not in lines.text
    assert KEY not in lines.text
    if engine is not None:
        failures = [line for line in lines.records() if line["level"] == "error"]
        assert failures
        assert {line["error"] for line in failures} == {"KeyError"}
        assert all("ValueError" in line["traceback"] for line in failures)
        assert all("in encode" in line["traceback"] for line in failures)


async def test_texts_are_logged_where_asked_for_and_cut(lines: Lines) -> None:
    long = "y" * (TEXT_CHARACTERS + 5)
    async with serving(Broken(), log_texts=True, api_key=KEY) as service:
        turns = [{"role": "user", "content": "first of turns"}]
        body = {"pairs": [{"prompt": SECRET, "response": long}, {"prompt": turns, "response": "A"}]}
        await service.score(body, Authorization=f"Bearer {KEY}", **{"X-Request-Id": "mine"})
        many = {"pairs": [{"prompt": "z", "response": ""}] * (TEXT_PAIRS + 9)}
        await service.score(many, Authorization=f"Bearer {KEY}")
    told = [line for line in lines.records() if "prompt" in line]
    assert len(told) == 2 + TEXT_PAIRS
    first, second = told[:2]
    assert (first["level"], first["request_id"], first["pair"]) == ("info", "mine", 0)
    assert first["prompt"] == SECRET
    assert first["response"] == "y" * TEXT_CHARACTERS + " ... and 5 characters more"
    assert "first of turns" in second["prompt"]
    (failure, _) = [line for line in lines.records() if line["level"] == "error"]
    assert f"KeyError: '{SECRET} {KEY}'" in failure["traceback"]


PATHS_WITH_SECRETS = (
    b"GET /token/%s HTTP/1.1", b"POST /score/%s HTTP/1.1", b"GET //%s HTTP/1.1",
    b"GET /%s%%0AINFO%%20forged HTTP/1.1", b"GET /%s?x=%s HTTP/1.1", b"POST /score?key=%s HTTP/1.1",
    b"GET /metrics;%s HTTP/1.1", b"GET /health/%s HTTP/1.1", b"GET http://%s@localhost/%s HTTP/1.1",
    b"OPTIONS /%s HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade", b"GET /%s HTTP/9",
    b"GET /%s" + b"x" * 10_000 + b" HTTP/1.1", b"%s / HTTP/1.1", b"DELETE /score#%s HTTP/1.1",
)  # fmt: skip


async def test_no_line_has_anything_of_a_path_that_is_no_route() -> None:
    with server("--log-level", "debug") as process:
        address = httpx.URL(process.ready().url)
        for line in PATHS_WITH_SECRETS:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            secrets = (SECRET.encode(),) * line.replace(b"%%", b"").count(b"%s")
            writer.write(line % secrets + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"HTTP/1.1 " in await asyncio.wait_for(reader.read(), 60)
            writer.close()
        process.wait_for(r"(DELETE /score 405)")
        for wrong in (SECRET, "forged", "x" * 100):
            assert wrong not in process.log
        assert "GET unknown 404" in process.log
        assert '"path":"unknown"' in process.log


# The process


def test_a_process_whose_output_is_no_terminal_writes_json_and_nothing_else() -> None:
    with server("--api-key", KEY, "--log-level", "debug") as process:
        url = process.ready().url
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            assert http.post("/score", params={"api_key": KEY}, json=PAIR).status_code == 200
            assert http.get("/nowhere").status_code == 401
        process.wait_for(r"(GET unknown 401)")
        records = [json.loads(line) for line in process.log.splitlines()]
        assert KEY not in process.log
    assert all({"ts", "level", "logger", "msg"} <= record.keys() for record in records)
    (scored,) = [record for record in records if record.get("path") == "/score"]
    assert (scored["pairs"], scored["code"]) == (1, "ok")


def test_text_where_asked_for_and_a_loud_word_where_texts_are_logged() -> None:
    with server("--log-format", "text", "--log-texts") as process:
        with httpx.Client(base_url=process.ready().url, trust_env=False, timeout=60) as http:
            http.post("/score", json={"prompt": SECRET, "response": "A"})
        process.wait_for(r"(POST /score 200 [\d.]+ ms route=/score code=ok pairs=1 )")
        assert re.search(r"WARNING --log-texts is on: this log gets every prompt", process.log)
        assert f"prompt={SECRET}" in process.log
        assert not any(line.startswith("{") for line in process.log.splitlines())
