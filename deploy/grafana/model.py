"""The board "Model behaviour": the model's scores and how they change."""

from __future__ import annotations

from deploy.grafana.layout import board, row, variable
from deploy.grafana.metrics import bounds
from deploy.grafana.panels import BAD, GOOD, WARNING, Json, graph, heatmap, query, stat, steps
from deploy.grafana.promql import (
    bucket_mean,
    divide,
    or_zero,
    quantile,
    select,
    sum_rate,
)

SCORES = "fivescore_attribute_score"
REWARD = "fivescore_reward"
SPREAD = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
AGO = "1d"
"""How far back the past that shifts are measured against lies."""
DEVIATIONS = 3
"""The limit in the alert FivescoreAttributeDrift, in standard deviations."""


def model() -> Json:
    """The whole board."""
    return board(
        "fivescore-model",
        "fivescore / Model behaviour",
        "Scores, rewards and inputs. Drift and reward hacking show here first.",
        [
            variable("job", "Job", "label_values(fivescore_build_info, job)"),
            variable("model", "Model", 'label_values(fivescore_build_info{job=~"$job"}, model)'),
            variable("instance", "Instance",
                     'label_values(fivescore_build_info{job=~"$job",model=~"$model"}, instance)'),
            variable("attribute", "Attribute",
                     f'label_values({SCORES}_count{{job=~"$job"}}, attribute)'),
        ],
        [_glance(), _attributes(), _reward(), _input(), _each()],
    )  # fmt: skip


def _glance() -> Json:
    return row(
        "At a glance",
        stat("Reward, mean", "Mean of the pairs scored now, from the histogram's buckets.",
             bucket_mean(REWARD, bounds(REWARD))),
        stat("Reward, shift in a day", "Mean now minus mean a day ago.", _shift(REWARD),
             empty="no traffic now or a day ago"),
        stat("Pairs per second", "Pairs that were scored.", sum_rate(f"{REWARD}_count"),
             unit="suffix: pairs/s"),
        stat("Truncated", "Share of scored pairs that were too long: their start was dropped.",
             _share("fivescore_truncated_pairs_total"), unit="percentunit",
             colours=steps((None, GOOD), (0.01, WARNING), (0.1, BAD))),
        stat("Not finite, in an hour", "Attributes and rewards that were NaN or infinite: their"
             " pairs failed. Each one is a fault of the model.",
             or_zero(f"sum(increase({select('fivescore_nonfinite_scores_total')}[1h]))"),
             colours=steps((None, GOOD), (1, BAD))),
        stat("Largest drift", "Largest distance of an attribute's hourly mean from its means"
             " of the last day, in their standard deviations; needs six hours of history.",
             'max(abs(fivescore:attribute_score:deviations{job=~"$job"}))',
             colours=steps((None, GOOD), (2, WARNING), (DEVIATIONS, BAD)),
             empty="no history yet"),
    )  # fmt: skip


def _shift(metric: str, by: str = "") -> str:
    latest = bucket_mean(metric, bounds(metric), by=by)
    past = bucket_mean(metric, bounds(metric), by=by, offset=AGO)
    return f"({latest}) - ({past})"


def _share(counter: str) -> str:
    return divide(sum_rate(counter), sum_rate("fivescore_prompt_tokens_count"))


def _attributes() -> Json:
    means = bucket_mean(SCORES, bounds(SCORES), by="attribute")
    return row(
        "Attributes",
        graph("Mean by attribute", "From the histograms' buckets: within an eighth of a point."
              " HelpSteer2's scale is 0 to 4.", query(means), bottom=None),
        graph("Shift against a day ago", "Mean now minus mean a day ago. Reward hacking often shows"
              " as one attribute that rises while the others fall.",
              query(_shift(SCORES, by="attribute")), bottom=None,
              empty="no traffic now or a day ago"),
        graph("Drift", "Distance of the last hour's mean from the means of the day before, in"
              " standard deviations of those (at least 0.1 point).",
              query('fivescore:attribute_score:deviations{job=~"$job"}', "{{attribute}}"),
              bottom=None, limit=DEVIATIONS, empty="no history yet"),
    )  # fmt: skip


def _reward() -> Json:
    then = [(f"{name} a day ago", q) for name, q in SPREAD.items()]
    means = bounds(REWARD)
    return row(
        "Reward",
        graph("Reward now and a day ago, mean", "From the histogram's buckets, which are half a"
              " point wide from -4 to 8 and wider beyond.",
              query(bucket_mean(REWARD, means), "now"),
              query(bucket_mean(REWARD, means, offset=AGO), "a day ago"), bottom=None),
        graph("Reward now and a day ago, quantiles", "A policy that learns moves all of them; a"
              " policy that hacks often moves p90 alone.",
              *(query(quantile(q, REWARD), name) for name, q in SPREAD.items()),
              *(query(quantile(q, REWARD, offset=AGO), name) for name, q in then), bottom=None),
        heatmap("Reward, distribution", "Pairs by reward.", _increase(REWARD), width=8),
    )  # fmt: skip


def _increase(metric: str, *matchers: str) -> str:
    buckets = select(f"{metric}_bucket", *matchers)
    return f"sum by (le) (increase({buckets}[$__rate_interval]))"


def _input() -> Json:
    tokens = "fivescore_prompt_tokens"
    lengths = {**SPREAD, "p99": 0.99}
    cached = divide(sum_rate("fivescore_cached_prompt_tokens_total"), sum_rate(f"{tokens}_sum"))
    invalid = 'outcome=~"too_long|invalid_pair"'
    return row(
        "Input and faults",
        graph("Tokens per pair", "Prompt and response, as the model read them.",
              *(query(quantile(q, tokens), name) for name, q in lengths.items()), width=6),
        graph("Truncated and refused", "Truncated pairs as a share of scored ones; pairs refused"
              " as too long or invalid as a share of all.",
              query(_share("fivescore_truncated_pairs_total"), "truncated"),
              query(divide(sum_rate("fivescore_pairs_total", invalid, by="outcome"),
                           sum_rate("fivescore_pairs_total"), "on () group_left () ")),
              unit="percentunit", width=6),
        graph("Cached share", "Share of tokens that came from the prefix cache.",
              query(cached, "cached"), unit="percentunit", top=1, width=6),
        graph("Not finite", "Attributes and rewards that were NaN or infinite.",
              query(sum_rate("fivescore_nonfinite_scores_total", by="attribute")),
              unit="cps", width=6),
    )  # fmt: skip


def _each() -> Json:
    chosen = 'attribute=~"$attribute"'
    return row(
        "$attribute",
        graph("$attribute, spread", "If the spread collapses, the model no longer distinguishes"
              " responses.",
              *(query(quantile(q, SCORES, chosen), name) for name, q in SPREAD.items()),
              query(bucket_mean(SCORES, bounds(SCORES), chosen), "mean"), bottom=None, width=12),
        heatmap("$attribute, distribution", "Pairs by score.", _increase(SCORES, chosen)),
        repeat="attribute",
    )  # fmt: skip
