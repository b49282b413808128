"""Prometheus metrics: one registry per app, with every label value created at the start."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from fivescore import __version__
from fivescore.telemetry.distribution import Distributions
from fivescore.telemetry.trace import STAGES, Trace
from fivescore.types import ATTRIBUTES, ModelInfo, Score

OUTCOMES = (
    "ok",
    "invalid_pair",
    "too_long",
    "engine_error",
    "non_finite",
    "no_gate",
    "invalid_request",
    "too_many_pairs",
    "overloaded",
    "rate_limited",
    "loading",
    "draining",
    "engine_dead",
    "deadline_exceeded",
    "cancelled",
    "internal_error",
)
STATES = ("loading", "ready", "restarting", "draining", "failed")
LIMITS = ("pairs", "tokens")
REJECTIONS = ("pairs", "tokens", "bytes", "rate_limited", "loading", "draining", "engine_dead")
"""Why a request was refused: the limit that was reached, or the service's state."""
CLOSED = (
    "idle",
    "slow_head",
    "slow_body",
    "slow_reader",
    "unread_body",
    "head_too_large",
    "target_too_long",
    "encoding",
    "malformed",
    "too_many",
)
"""Why the service closed a connection."""
DIGEST_DIGITS = 12
"""Digits of the digest in a label: 48 bits distinguish models; ``/manifest`` has all 64 digits."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *SECONDS)
PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
TOKENS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
SCORES = tuple(step / 4 for step in range(-4, 21))
"""From -1 to 5: HelpSteer2's scale is 0 to 4 (arXiv 2406.08673), and a regression overshoots."""
REWARDS = (-32, -16, -8, *(step / 2 for step in range(-8, 17)), 10, 12, 16, 32)
"""Steps of 0.5 over the rewards that published weights give, and wide ones for scalar rewards."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text and say little


class Metrics:
    """The service's own metrics; those of vLLM and of the process are in the global registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.http_seconds = Histogram(
            "fivescore_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        stages = Distributions(
            "fivescore_stage_duration_seconds",
            "Time of a scoring request's stages, which may overlap.",
            STAGE_SECONDS,
            registry,
            "stage",
        )
        self._stages = dict(zip(STAGES, stages.create(STAGES), strict=True))
        self.rejections = Counter(
            "fivescore_admission_rejections",
            "Requests that were refused, by reason.",
            ("reason",),
            registry=registry,
        )
        self.pairs = Counter(
            "fivescore_pairs", "Pairs by outcome.", ("outcome",), registry=registry
        )
        self.request_pairs = Histogram(
            "fivescore_request_pairs", "Pairs per request.", buckets=PAIRS, registry=registry
        )
        tokens = Distributions(
            "fivescore_prompt_tokens",
            "Tokens per scored pair, prompt and response.",
            TOKENS,
            registry,
        )
        self.cached_tokens = Counter(
            "fivescore_cached_prompt_tokens",
            "Tokens of scored pairs that came from the prefix cache.",
            registry=registry,
        )
        self.truncated = Counter(
            "fivescore_truncated_pairs",
            "Scored pairs that were too long and lost their start.",
            registry=registry,
        )
        self.inflight = Gauge(
            "fivescore_inflight_pairs", "Pairs admitted and not answered.", registry=registry
        )
        self.held = Gauge(
            "fivescore_held_requests",
            "Requests of trainers' protocols that wait for an engine.",
            registry=registry,
        )
        self.inflight_tokens = Gauge(
            "fivescore_inflight_tokens",
            "Tokens of the pairs in flight that have been tokenised.",
            registry=registry,
        )
        self.receiving = Gauge(
            "fivescore_receiving_bytes",
            "Bytes of bodies that are being received.",
            registry=registry,
        )
        self.inflight_limit = Gauge(
            "fivescore_inflight_limit",
            "Limit of what may be in flight, by kind.",
            ("kind",),
            registry=registry,
        )
        self.rank_tokens = Gauge(
            "fivescore_rank_tokens", "Tokens in each rank of the engine.", ("rank",),
            registry=registry,
        )  # fmt: skip
        self.escaped = Counter(
            "fivescore_escaped_sequences",
            "Sequences that went to another rank than their prompt's, which was full.",
            registry=registry,
        )
        self.open_connections = Gauge(
            "fivescore_open_connections", "Connections that are open.", registry=registry
        )
        self.connections_closed = Counter(
            "fivescore_connections_closed",
            "Connections that the service closed, by reason.",
            ("reason",),
            registry=registry,
        )
        self._attribute = Distributions(
            "fivescore_attribute_score", "Scores by attribute.", SCORES, registry, "attribute"
        )
        rewards = Distributions("fivescore_reward", "Combined rewards.", REWARDS, registry)
        self.non_finite = Counter(
            "fivescore_nonfinite_scores",
            "Attributes and rewards that were NaN or infinite.",
            ("attribute",),
            registry=registry,
        )
        self._state = Gauge(
            "fivescore_engine_state",
            "1 for the state that the engine is in.",
            ("state",),
            registry=registry,
        )
        self.restarts = Counter(
            "fivescore_engine_restarts",
            "Times that a lost engine was replaced.",
            registry=registry,
        )
        self._load = Gauge(
            "fivescore_model_load_seconds",
            "Time from the start to the model being ready.",
            registry=registry,
        )
        self._facts = {"digest": ""}
        self._build = Info("fivescore_build", "What is running.", registry=registry)
        (self._tokens,) = tokens.create()
        (self._reward,) = rewards.create()
        self._create_series()

    def _create_series(self) -> None:
        """Create every series now, so that rates exist before the first event."""
        for metric, values in (
            (self.pairs, OUTCOMES),
            (self.rejections, REJECTIONS),
            (self.inflight_limit, LIMITS),
            (self.connections_closed, CLOSED),
        ):
            for value in values:
                metric.labels(value)
        self._create_attributes(ATTRIBUTES)
        self.state("loading")

    def _create_attributes(self, attributes: Iterable[str]) -> None:
        """Create the attributes' series: HelpSteer2's until a model is loaded, then the model's."""
        names = tuple(attributes)
        self._attributes = list(zip(names, self._attribute.create(names), strict=True))
        self.non_finite.clear()
        for name in (*names, "reward"):
            self.non_finite.labels(name)

    def scored(self, score: Score) -> None:
        """Count one pair's score."""
        for name, distribution in self._attributes:
            distribution.observe(score.attributes[name])
        self._reward.observe(score.reward)
        self._tokens.observe(score.tokens)
        if score.cached_tokens:
            self.cached_tokens.inc(score.cached_tokens)
        if score.truncated:
            self.truncated.inc()

    def traced(self, trace: Trace) -> None:
        """Count the stages of one request."""
        for stage, seconds in trace.seconds().items():
            self._stages[stage].observe(seconds)

    def state(self, state: str) -> None:
        """Set the engine's state, one of ``STATES``."""
        for name in STATES:
            self._state.labels(name).set(name == state)

    def loaded(
        self,
        model: ModelInfo,
        attributes: Iterable[str],
        revision: str | None,
        seconds: float,
        *,
        proved: bool,
        head: str = "linear",
    ) -> None:
        """Record what was loaded, and the seconds that it took; ``head`` is the manifest's kind."""
        self._create_attributes(attributes)
        self._load.set(seconds)
        self._facts |= {
            "version": __version__,
            "engine": model.engine,
            "model": model.name,
            "revision": revision or "",
            "dtype": model.dtype,
            "device": model.device,
            "proved": str(proved).lower(),
            "head": head,
        }
        self._build.info(self._facts)

    def digest(self, digest: str) -> None:
        """Record the model's digest, of which the label has the start, as soon as it is known."""
        self._facts["digest"] = digest[:DIGEST_DIGITS]
        if "version" in self._facts:
            self._build.info(self._facts)

    def exposition(self) -> bytes:
        """Both registries in Prometheus's text format."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)
