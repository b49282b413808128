"""Measures a demo checkpoint on prompts that it was not trained on.

``python -m demo.check --text FOLDER`` prints the table of the model card.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo import damage, data, texts
from demo.labels import complexity, verbosity
from demo.scores import Scorer
from demo.texts import Text
from fivescore.data import statistics
from fivescore.data.markdown import table

SEED = 11
FEWEST_PARTS = 3
"""Responses with fewer sentences and lines are not shuffled."""
REQUIRED = {
    "verbosity": 0.80,
    "complexity": 0.80,
    "shuffled": 0.90,
    "mismatched": 0.75,
    "truncated": 0.85,
}
LLMBAR = ("Neighbor", "GPTInst", "GPTOut", "Manual")
Measured = dict[str, tuple[float, int]]
"""Per criterion, a value from -1 to 1 and the number of responses, pairs or comparisons."""


def criteria(intact_texts: Sequence[Text], scorer: Scorer, seed: int = SEED) -> Measured:
    """Rank correlations with the labels, and how often the intact response is preferred."""
    rng = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    versions: dict[str, list[tuple[int, int]]] = {}
    for text in intact_texts:
        intact = len(pairs)
        pairs.append((text.prompt, text.response))
        for name, damaged in _damaged(text, intact_texts, rng):
            versions.setdefault(name, []).append((intact, len(pairs)))
            pairs.append((text.prompt, damaged))
    scores = scorer.score(pairs)
    measured: Measured = {}
    for name, rule in (("verbosity", verbosity), ("complexity", complexity)):
        labels = [rule(response) for _, response in pairs]
        predicted = [score.attributes[name] for score in scores]
        measured[name] = (spearman(labels, predicted), len(pairs))
    for name, compared in sorted(versions.items()):
        wins = [scores[intact].reward > scores[other].reward for intact, other in compared]
        measured[name] = (float(np.mean(wins)), len(wins))
    return measured


def _damaged(text: Text, others: Sequence[Text], rng: random.Random) -> Iterable[tuple[str, str]]:
    same_style = [other for other in others if other.style == text.style]
    same_domain = [other for other in same_style if other.domain == text.domain]
    yield "mismatched", data.another(text, same_style, rng).response
    yield "mismatched, same domain", data.another(text, same_domain, rng).response
    shuffled = damage.shuffled(text.response, rng)
    if shuffled and len(damage.units(text.response)[0]) >= FEWEST_PARTS:
        yield "shuffled", shuffled
    if truncated := damage.truncated(text.response, rng):
        yield "truncated", truncated


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN if it is undefined."""
    value = statistics.spearman(np.asarray(one), np.asarray(other))
    return float("nan") if value is None else value


def llmbar(folder: Path, scorer: Scorer) -> Measured:
    """Accuracy by subset; a tie counts as wrong."""
    measured: Measured = {}
    for name in LLMBAR:
        rows = json.loads((folder / f"llmbar-adver-{name}.json").read_text())
        better = scorer.score([(row["input"], row[f"output_{row['label']}"]) for row in rows])
        worse = scorer.score([(row["input"], row[f"output_{3 - row['label']}"]) for row in rows])
        wins = [one.reward > other.reward for one, other in zip(better, worse, strict=True)]
        measured[name] = (float(np.mean(wins)), len(wins))
    return measured


def rm_bench(folder: Path, scorer: Scorer) -> dict[str, dict[str, tuple[float, int]]]:
    """Accuracy by domain and level; of domains in the training data, on held-out prompts alone."""
    measured = {}
    for domain in (*texts.RM_BENCH, "safety-refuse"):
        rows = json.loads((folder / f"rmbench-{domain}_filtered.json").read_text())
        if domain in texts.RM_BENCH:
            rows = [
                row for row in rows if texts.split_of(texts.group_of(domain, row)) == "held_out"
            ]
        wins = np.array([_wins(row, scorer) for row in rows])
        ours, theirs = np.indices((3, 3))
        masks = {"hard": ours < theirs, "normal": ours == theirs, "easy": ours > theirs}
        measured[domain] = {
            level: (float(wins[:, mask].mean()), len(rows)) for level, mask in masks.items()
        }
    return measured


def _wins(row: Mapping[str, Any], scorer: Scorer) -> Any:
    responses = [*row["chosen"], *row["rejected"]]
    scores = scorer.score([(row["prompt"], response) for response in responses])
    rewards = np.array([score.reward for score in scores])
    return rewards[:3, None] > rewards[None, 3:]


def tables(folder: Path, scorer: Scorer) -> str:
    """The card's tables, as Markdown."""
    held_out = [text for text in texts.rm_bench(folder) if text.split == "held_out"]
    groups = len({text.group for text in held_out})
    held = []
    for name, (value, count) in criteria(held_out, scorer).items():
        required = f"{REQUIRED[name]:.2f}" if name in REQUIRED else ""
        held.append([_NAMES[name], required, f"{value:.3f}", count])
    bar = [[name, f"{value:.3f}", count] for name, (value, count) in llmbar(folder, scorer).items()]
    difficulties = ("easy", "normal", "hard")
    bench = [
        [
            name,
            *(f"{levels[level][0]:.3f}" for level in difficulties),
            levels["hard"][1],
        ]
        for name, levels in rm_bench(folder, scorer).items()
    ]
    return "\n\n".join(
        [
            f"{len(held_out)} responses to held-out prompts ({groups} tasks) of RM-Bench:",
            table(["criterion", "required", "reached", "of"], held),
            table(["LLMBar (none of it in training)", "accuracy", "pairs"], bar),
            table(["RM-Bench", *difficulties, "prompts"], bench),
        ]
    )


_NAMES = {
    "verbosity": "Spearman with the made label, verbosity",
    "complexity": "Spearman with the made label, complexity",
    "shuffled": f"intact over its sentences shuffled ({FEWEST_PARTS} or more sentences or lines)",
    "mismatched": "intact over another prompt's response of the same style",
    "mismatched, same domain": "the same, the other prompt from the same domain",
    "truncated": "intact over cut off",
}


def main() -> None:
    from demo.build import CHECKPOINT

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="folder with RM-Bench and LLMBar")
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    args = parser.parse_args()
    sys.stdout.write(tables(args.text, Scorer(args.model)) + "\n")


if __name__ == "__main__":
    main()
