"""The metrics that may be queried, with the labels that are known, and checks of queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml
from prometheus_client import Metric

from fivescore.telemetry.metrics import Metrics

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
VLLM = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
    "vllm:num_preemptions": "counter",
    "vllm:iteration_tokens_total": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
}
"""vLLM's metrics on the boards (vllm/v1/metrics/loggers.py, in which a test looks them up)."""
PROCESS = (
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
)
"""Source: prometheus_client/process_collector.py."""
DCGM = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
)
"""Source: NVIDIA's dcgm-exporter, etc/default-counters.csv."""
PROMETHEUS = ("up", "ALERTS")
"""Series that Prometheus itself adds."""
ENDINGS = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum"),
}
SCRAPED = frozenset({"job", "instance"})
"""Labels that the scrape adds."""

Labels = Mapping[str, frozenset[str]] | None
"""The values of each label; None where they are not known in advance."""


class Rule(NamedTuple):
    """A recording rule or an alert, and its group's name."""

    group: str
    body: Mapping[str, Any]

    @property
    def is_alert(self) -> bool:
        return "alert" in self.body

    @property
    def name(self) -> str:
        return str(self.body.get("alert") or self.body["record"])

    @property
    def expression(self) -> str:
        return str(self.body["expr"]).strip()


def rules() -> list[Rule]:
    """All rules of all files."""
    return [
        Rule(group["name"], rule)
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def known() -> dict[str, Labels]:
    """Every series name that may be queried, with its labels."""
    names: dict[str, Labels] = dict.fromkeys((*PROCESS, *DCGM, *PROMETHEUS))
    names |= {name + end: None for name, kind in VLLM.items() for end in ENDINGS[kind]}
    names |= {rule.name: None for rule in rules() if not rule.is_alert}
    for family in Metrics().registry.collect():
        names |= _own(family)
    return names


def _own(family: Metric) -> Iterator[tuple[str, Labels]]:
    """The series names of one of fivescore's metrics; None as labels until there are series."""
    values: dict[str, set[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, set()).add(value)
    labels = {label: frozenset(known) for label, known in values.items()}
    present = {sample.name for sample in family.samples}
    for end in ENDINGS[family.type]:
        if not present or family.name + end in present:
            yield family.name + end, labels if present else None


def bounds(metric: str) -> list[float]:
    """The finite upper bounds of one of fivescore's histograms, in ascending order.

    Raises:
        LookupError: the metric has no series before the first request, or does not exist.
    """
    for family in Metrics().registry.collect():
        if family.name == metric:
            les = {s.labels["le"] for s in family.samples if "le" in s.labels} - {"+Inf"}
            if les:
                return sorted(map(float, les))
    raise LookupError(f"{metric}: no buckets known")


def faults(expression: str, names: Mapping[str, Labels]) -> list[str]:
    """The faults of an expression: its syntax, names, labels and labels' values."""
    try:
        tree = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    except ValueError as error:
        return [f"not PromQL: {error}"]
    result: list[str] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            result.extend(_selector_faults(node, names))
        return True

    promql_parser.walk(tree, visit)
    return result


def _selector_faults(
    node: promql_parser.VectorSelector, names: Mapping[str, Labels]
) -> Iterator[str]:
    name = str(node.name)
    if name not in names:
        yield f"no code defines {name}"
        return
    labels = names[name]
    if labels is None:
        return
    for matcher in node.matchers.matchers:
        if matcher.name in SCRAPED or "$" in matcher.value:
            continue
        if matcher.name not in labels:
            yield f"{name} has no label {matcher.name}"
        elif missing := _missing(matcher, labels[matcher.name]):
            yield f"{name} has no {matcher.name}={missing}"


def _missing(matcher: promql_parser.Matcher, values: Iterable[str]) -> str:
    """The first alternative of a matcher that no series has; empty if there is none."""
    literal = matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual)
    for one in [re.escape(matcher.value)] if literal else matcher.value.split("|"):
        if not any(re.fullmatch(one, value) for value in values):
            return matcher.value if literal else str(one)
    return ""
