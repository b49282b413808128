"""The PromQL of every panel and alert, as a test can run it."""

from __future__ import annotations

from typing import NamedTuple

import promql_parser

from deploy.grafana import generate
from deploy.grafana.metrics import rules
from deploy.grafana.service import TARGET_SECONDS

CHOSEN = {
    "$__rate_interval": "10s",
    "$job": "fivescore",
    "$instance": ".+",
    "$attribute": ".+",
    "$model": ".+",
    "$slo": str(TARGET_SECONDS),
}
"""What the boards' variables stand for here; ``$__rate_interval`` is ten scrapes."""
SET_OPERATORS = ("and", "or", "unless")
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")


class Expression(NamedTuple):
    """Where an expression stands, and what it is with the variables filled in."""

    place: str
    text: str

    @property
    def source(self) -> str:
        """Who exports what it asks for: ``vllm``, ``dcgm`` or ``fivescore``."""
        return next((s for s in ("vllm", "dcgm") if s in self.text.lower()), "fivescore")


def fill(text: str) -> str:
    """The text with values in place of the boards' variables."""
    for name, value in CHOSEN.items():
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


def panels() -> list[Expression]:
    """One for each query of each board, and of each variable."""
    return [
        Expression(f"{file.removesuffix('.json')}: {place}", fill(text))
        for file, board in generate.boards().items()
        for place, text in generate.queries(board)
    ]


def alerts() -> list[Expression]:
    return [Expression(rule.name, rule.expression) for rule in rules() if rule.is_alert]


def recordings() -> list[Expression]:
    return [Expression(rule.name, rule.expression) for rule in rules() if not rule.is_alert]


def without_defaults(text: str) -> list[str]:
    """The expression, and what ``or`` would hide: a wrong name behind ``or vector(0)``."""
    found = [text]

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "or":
            found.append(node.lhs.prettify())
        return True

    promql_parser.walk(promql_parser.parse(text), visit)
    return found


def without_bounds(text: str) -> list[str]:
    """What an alert compares with its bounds: data there must be even when it does not fire."""
    return [node.prettify() for node in _compared(promql_parser.parse(text))]


def _compared(node: promql_parser.Expr) -> list[promql_parser.Expr]:
    if isinstance(node, promql_parser.ParenExpr):
        return _compared(node.expr)
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) in SET_OPERATORS:
        return [*_compared(node.lhs), *_compared(node.rhs)]
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) in COMPARISONS:
        return _compared(node.lhs)
    if isinstance(node, promql_parser.Call) and node.func.name == "absent":
        return list(node.args)
    return [node]
