"""The board "Service": is it up, is it fast, how full is it, and why?"""

from __future__ import annotations

from collections.abc import Iterable

from deploy.grafana.layout import board, choice, row, variable
from deploy.grafana.metrics import Rule
from deploy.grafana.panels import (
    BAD,
    GOOD,
    PLAIN,
    WARNING,
    Json,
    graph,
    query,
    stat,
    states,
    steps,
    table,
    text,
)
from deploy.grafana.promql import (
    SCORING,
    divide,
    mean,
    or_zero,
    quantile,
    rate,
    select,
    sum_rate,
)
from fivescore.data import markdown
from fivescore.telemetry.metrics import SECONDS

REQUESTS = "fivescore_http_request_duration_seconds"
TARGET_SECONDS = 2.5
"""Default target of the board and of the alert FivescoreSlow; change both to your own."""
OBJECTIVE = 0.99
"""The share of requests that should be answered within the target."""
STATES = {
    1: ("loading", PLAIN),
    2: ("ready", GOOD),
    3: ("restarting", WARNING),
    4: ("draining", WARNING),
    5: ("failed", BAD),
}
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def service(rules: Iterable[Rule]) -> Json:
    """The whole board; its last row lists the alerts among ``rules``."""
    bounds = [str(float(bound)) for bound in SECONDS]
    return board(
        "fivescore-service",
        "fivescore / Service",
        "Health, traffic, latency, saturation and engine of fivescore's instances.",
        [
            variable("job", "Job", "label_values(fivescore_engine_state, job)"),
            variable("instance", "Instance",
                     'label_values(fivescore_engine_state{job=~"$job"}, instance)'),
            choice("slo", "Target (s)", bounds, str(TARGET_SECONDS),
                   "Requests should be answered within this; a bound of the histogram, so that the"
                   " share within it is exact."),
        ],
        [_health(), _traffic(), _latency(), _saturation(), _batches(), _process(), _gpu(),
         _alerts(rules)],
    )  # fmt: skip


def _health() -> Json:
    state = " + ".join(f"{value} * {_in_state(name)}" for value, (name, _) in STATES.items())
    errors = sum_rate(f"{REQUESTS}_count", SCORING, 'status=~"5..",status!="503"')
    requests = sum_rate(f"{REQUESTS}_count", SCORING)
    return row(
        "Health",
        stat("Instances ready", "Instances that take requests.",
             or_zero(f"sum({_in_state('ready')})"),
             colours=steps((None, BAD), (1, GOOD))),
        stat("Instances down", "Targets that Prometheus cannot scrape.",
             or_zero(f"sum(1 - {select('up')})"), colours=steps((None, GOOD), (1, BAD))),
        stat("Within target", "Share of scoring requests answered within $slo s.", _attainment(),
             unit="percentunit",
             colours=steps((None, BAD), (0.95, WARNING), (OBJECTIVE, GOOD))),
        stat("Errors", "Share of scoring requests that failed with 5xx, without 503, which"
             " refuses work and says when to retry.",
             divide(f"({errors} or vector(0))", requests), unit="percentunit",
             colours=steps((None, GOOD), (0.001, WARNING), (0.01, BAD))),
        stat("Pairs per second", "Pairs that were scored.",
             sum_rate("fivescore_pairs_total", 'outcome="ok"'), unit="suffix: pairs/s"),
        stat("Tokens per second", "Tokens of scored pairs, cached ones included.",
             sum_rate("fivescore_prompt_tokens_sum"), unit="suffix: tok/s"),
        states("Engine state", "Loading takes minutes for a large model; failed needs a restart.",
               state, STATES),
        table("Firing alerts", "What docs/runbook.md says about each is in the last row.",
              'ALERTS{alertname=~"Fivescore.+",alertstate="firing"}',
              ("alertname", "severity", "job", "instance", "attribute"), empty="no alert fires"),
        table("What is running", "One line per loaded instance.",
              select("fivescore_build_info"),
              ("instance", "version", "engine", "model", "revision", "dtype", "device"),
              empty="no model is loaded", width=16),
        stat("Model load time", "From the start to the model being ready, the slowest instance.",
             f"max({select('fivescore_model_load_seconds')} > 0)", unit="s",
             empty="not loaded yet"),
        stat("Restarts in an hour", "Starts of a process at an address that was already scraped.",
             or_zero(f"sum(changes({select('process_start_time_seconds')}[1h]))"),
             colours=steps((None, GOOD), (1, WARNING), (3, BAD))),
    )  # fmt: skip


def _in_state(name: str) -> str:
    series = select("fivescore_engine_state", f'state="{name}"')
    return f"sum by (instance) ({series})"


def _attainment() -> str:
    within = sum_rate(f"{REQUESTS}_bucket", SCORING, 'le="$slo"')
    return divide(within, sum_rate(f"{REQUESTS}_count", SCORING))


def _traffic() -> Json:
    count = f"{REQUESTS}_count"
    computed = (
        f"{sum_rate('fivescore_prompt_tokens_sum')}"
        f" - {sum_rate('fivescore_cached_prompt_tokens_total')}"
    )
    return row(
        "Traffic",
        graph("Pairs by outcome", "Pairs and how they ended; everything but ok is an error code.",
              query(sum_rate("fivescore_pairs_total", by="outcome")), unit="suffix: pairs/s",
              stacked=True),
        graph("Tokens", "Tokens of scored pairs: computed by the engine, or found in its prefix"
              " cache.", query(computed, "computed"),
              query(sum_rate("fivescore_cached_prompt_tokens_total"), "cached"),
              unit="suffix: tok/s", stacked=True),
        graph("Failed pairs", "Share of admitted pairs that the service failed on.",
              query('fivescore:errors:ratio5m{job=~"$job",kind="pairs"}', "{{job}}"),
              unit="percentunit", limit=0.01),
        graph("Requests by route", "Requests that score.",
              query(sum_rate(count, SCORING, by="route")), unit="reqps", width=12),
        graph("Requests by status", "429 and 503 refuse work and say when to retry; other 4xx"
              " are mistakes of the client.",
              query(sum_rate(count, SCORING, by="status")), unit="reqps", width=12),
    )  # fmt: skip


def _latency() -> Json:
    stage = "fivescore_stage_duration_seconds"
    return row(
        "Latency",
        graph("Latency", "Of scoring requests, from the first byte in to the last byte out. A"
              " request holds many pairs: compare with pairs per request.",
              *(query(quantile(q, REQUESTS, SCORING), name) for name, q in QUANTILES.items()),
              unit="s", limit=TARGET_SECONDS),
        graph("Within target", "Share of scoring requests answered within $slo s.",
              query(_attainment(), "within $slo s"), unit="percentunit", top=1, bottom=None),
        graph("Latency by route", "p95 of each route that scores.",
              query(quantile(0.95, REQUESTS, SCORING, by="route")), unit="s"),
        graph("Stages, mean", "Where a request's time goes. Stages of one request may overlap.",
              query(mean(stage, by="stage")), unit="s", stacked=True, width=12),
        graph("Stages, p95", "Time waiting for the engine is in engine, its queue included.",
              query(quantile(0.95, stage, by="stage")), unit="s", width=12),
    )  # fmt: skip


def _saturation() -> Json:
    waiting = "vllm:request_queue_time_seconds"
    return row(
        "Saturation",
        graph("Saturation", "Pairs and tokens in flight as a share of their limits. At 1 the"
              " service refuses work.",
              query(select("fivescore:saturation:ratio"), "{{instance}} {{kind}}"),
              unit="percentunit", limit=0.9),
        graph("In flight", "Pairs admitted and not answered.",
              query(select("fivescore_inflight_pairs"), "{{instance}}")),
        graph("Rejections", "Requests that were not admitted, by reason: a limit or the state.",
              query(sum_rate("fivescore_admission_rejections_total", by="reason")), unit="reqps"),
        graph("Engine queue", "vLLM's sequences: computed now, and waiting for room.",
              query(f"sum({select('vllm:num_requests_running')})", "running"),
              query(f"sum({select('vllm:num_requests_waiting')})", "waiting"),
              empty="vLLM exports nothing yet"),
        graph("KV cache", "Share of vLLM's KV cache in use. Near 1, sequences wait or are"
              " preempted.", query(select("vllm:kv_cache_usage_perc"), "{{instance}}"),
              unit="percentunit", top=1, empty="vLLM exports nothing yet"),
        graph("Engine waiting time", "Time in vLLM's queue, and preemptions per second.",
              query(quantile(0.5, waiting), "p50"), query(quantile(0.95, waiting), "p95"),
              query(sum_rate("vllm:num_preemptions_total"), "preemptions/s"), unit="s"),
    )  # fmt: skip


def _batches() -> Json:
    hits, queries = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
    ours = "fivescore_cached_prompt_tokens_total"
    return row(
        "Batches and prefix cache",
        graph("Prefix cache hits", "Share of tokens from the prefix cache: of all answers, and of"
              " vLLM's look-ups. Send all responses to one prompt in one request to raise it.",
              query(divide(sum_rate(ours), sum_rate("fivescore_prompt_tokens_sum")), "answers"),
              query(divide(sum_rate(hits), sum_rate(queries)), "vLLM"),
              unit="percentunit", top=1),
        graph("Pairs per request", "With few pairs per request, each pair takes more time.",
              *(query(quantile(q, "fivescore_request_pairs"), name)
                for name, q in QUANTILES.items()),
              query(mean("fivescore_request_pairs"), "mean")),
        graph("Tokens per engine step", "vLLM's batches: larger steps use a GPU better.",
              *(query(quantile(q, "vllm:iteration_tokens_total"), name)
                for name, q in QUANTILES.items()),
              query(mean("vllm:iteration_tokens_total"), "mean")),
        graph("Tokens by rank", "What is in each copy of the model; copies with little beside full"
              " ones mean prompts of very different lengths.",
              query(f"sum by (instance, rank) ({select('fivescore_rank_tokens')})",
                    "{{instance}} rank {{rank}}")),
        graph("Escapes", "Share of sequences that went to another rank than their prompt's, which"
              " was full: their prompt is computed there again.",
              query(divide(sum_rate("fivescore_escaped_sequences_total"),
                           sum_rate("fivescore_prompt_tokens_count")), "escapes"),
              unit="percentunit", top=1),
    )  # fmt: skip


def _process() -> Json:
    each = "{{instance}}"
    return row(
        "Process",
        graph("Memory", "Resident memory of the serving process; on a GPU the engine has its own.",
              query(select("process_resident_memory_bytes"), each), unit="bytes"),
        graph("CPU", "Cores that the serving process uses.",
              query(rate("process_cpu_seconds_total"), each), unit="suffix: cores"),
        graph("Open files", "A connection is an open file; at 1 no client can connect.",
              query(f"{select('process_open_fds')} / {select('process_max_fds')}", each),
              unit="percentunit"),
    )  # fmt: skip


def _gpu() -> Json:
    each, empty = "{{Hostname}} {{gpu}}", "no DCGM exporter is scraped"
    used, free = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
    return row(
        "GPU",
        text("", "From NVIDIA's DCGM exporter, where Prometheus scrapes one: all GPUs that it"
             " reports, whatever job and instance are chosen above.", height=2),
        graph("GPU utilisation", "Share of time in which a kernel ran.",
              query("DCGM_FI_DEV_GPU_UTIL / 100", each), unit="percentunit", top=1, empty=empty),
        graph("GPU memory", "vLLM takes its share when it starts: full is normal.",
              query(f"{used} / ({used} + {free})", each), unit="percentunit", top=1, empty=empty),
        graph("GPU power and temperature", "A hot GPU slows down.",
              query("DCGM_FI_DEV_POWER_USAGE", f"{each} W"),
              query("DCGM_FI_DEV_GPU_TEMP", f"{each} °C"), empty=empty),
        collapsed=True,
    )  # fmt: skip


def _alerts(rules: Iterable[Rule]) -> Json:
    rows = [
        [f"`{rule.name}`", rule.body["labels"]["severity"],
         f"`{rule.body['annotations']['runbook_url']}`"]
        for rule in rules
        if rule.is_alert
    ]  # fmt: skip
    return row(
        "Alerts and their runbook",
        text("", markdown.table(["alert", "severity", "what to do"], rows), height=10),
        collapsed=True,
    )
