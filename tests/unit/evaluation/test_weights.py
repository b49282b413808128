"""The search for weights: finds what is there, and does not find what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fivescore.data.statistics import Array
from fivescore.errors import ConfigurationError
from fivescore.evaluation import fit, weights
from fivescore.evaluation.fit import Fit
from fivescore.evaluation.shapes import Preference
from fivescore.evaluation.store import Failure, Result
from fivescore.evaluation.weights import Comparisons
from fivescore.model.manifest import ATTRIBUTES, PRESETS, Combined
from fivescore.types import Score

TRUE = np.array([0.3, 0.74, 0.46, 0.47, -0.33])


def synthetic(rows: int, noise: float, seed: int = 0, truth: Array = TRUE) -> Comparisons:
    """People prefer what the true weights do, with some noise."""
    random = np.random.default_rng(seed)
    differences = random.standard_normal((rows, len(truth))) * [1.0, 0.5, 0.3, 2.0, 1.0]
    values = differences @ truth + noise * random.standard_normal(rows)
    differences *= np.where(values > 0, 1, -1)[:, None]
    return Comparisons(differences, np.full(rows, 1 / rows), np.arange(rows))


def test_known_weights_are_found_again() -> None:
    data = synthetic(1500, noise=0.0)
    found = weights.search(data, seed=1)
    assert found.accuracy > 0.98
    assert np.linalg.norm(found.weights) == pytest.approx(1)
    assert found.weights @ TRUE / np.linalg.norm(TRUE) > 0.99
    other = synthetic(1500, noise=0.0, seed=9)
    assert weights.accuracy(other, found.weights[None])[0] > 0.96


def test_the_search_is_the_same_for_the_same_seed_and_any_scale() -> None:
    data = synthetic(300, noise=0.5)
    one, same = weights.search(data, 3), weights.search(data, 3)
    assert one.weights.tolist() == same.weights.tolist()
    larger = Comparisons(data.differences * 8, data.shares, data.groups)
    assert weights.search(larger, 3).weights == pytest.approx(one.weights)


def test_what_is_held_out_scores_less_than_what_was_searched_on() -> None:
    data = synthetic(120, noise=2.0)
    held_out = weights.cross_validated(data, 5, 0)
    fitted = weights.search(data, 0)
    truth = weights.accuracy(synthetic(20_000, noise=2.0, seed=5), fitted.weights[None])[0]
    assert held_out.mean() < fitted.accuracy
    assert abs(held_out.mean() - truth) < abs(fitted.accuracy - truth) + 0.02


def test_random_preferences_are_not_found_out_of_fold() -> None:
    random = np.random.default_rng(4)
    shares = []
    for seed in range(4):
        differences = random.standard_normal((200, 5))
        data = Comparisons(differences, np.full(200, 1 / 200), np.arange(200))
        shares.append(weights.cross_validated(data, 4, seed).mean())
    assert abs(np.mean(shares) - 0.5) < 0.06


def test_rows_of_one_prompt_are_in_one_fold_and_drawn_together() -> None:
    # The copies of a prompt would give each other away.
    random = np.random.default_rng(0)
    base = random.standard_normal((40, 5))
    copies = Comparisons(np.repeat(base, 5, axis=0), np.full(200, 1 / 200),
                         np.repeat(np.arange(40), 5))  # fmt: skip
    assert abs(weights.cross_validated(copies, 5, 0).mean() - 0.5) < 0.25
    counts = weights.resampled(copies.groups, 10, 0)
    assert counts.shape == (10, 200)
    assert (counts.reshape(10, 40, 5) == counts.reshape(10, 40, 5)[:, :, :1]).all()
    assert (counts.sum(axis=1) == 200).all()


def test_ties_and_failures_are_never_right() -> None:
    data = Comparisons(np.zeros((3, 2)), np.full(3, 1 / 3), np.arange(3))
    assert weights.search(data, 0).accuracy == 0.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    data = Comparisons(np.zeros((150, 1)), np.full(150, 1 / 150), np.arange(150))
    covered = 0
    for trial in range(200):
        low, high = weights.accuracy_interval(random.random(150) < 0.7, data, 200, trial)
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 200 <= 0.99


def score(values: Array) -> Score:
    named = dict(zip(ATTRIBUTES, values.tolist(), strict=True))
    return Score(named, float(values @ TRUE), 5)


def preference_scores(rows: int) -> tuple[list[Preference], list[Result]]:
    random = np.random.default_rng(2)
    found = [Preference(str(i), "s", f"Q{i}", "A", "B") for i in range(rows)]
    results: list[Result] = []
    for _ in range(rows):
        one, other = (random.standard_normal(5) for _ in "AB")
        if (one - other) @ TRUE < 0:
            one, other = other, one
        results += [score(one), score(other)]
    return found, results


def test_the_report_has_both_sets_of_weights_and_three_accuracies() -> None:
    found, results = preference_scores(150)
    results[0] = Failure("too_long", ".")
    data = fit.comparisons(found, results, ATTRIBUTES, np.full(150, 1 / 150))
    assert not data.differences[0].any()
    measured = fit.measure(data, ATTRIBUTES, TRUE, Fit(resamples=20))
    measured["as_served"] = fit._as_served(results, data, Fit(resamples=20))
    assert measured["as_served"]["accuracy"] == pytest.approx(149 / 150)
    assert measured["fitted"]["accuracy"] == pytest.approx(149 / 150)
    assert measured["cross_validated"]["accuracy"] > 0.85
    assert measured["weights"]["verbosity"] < 0 < measured["weights"]["correctness"]
    assert measured["weights_before"]["complexity"] == 0.47
    low, high = measured["weight_intervals"]["correctness"]
    assert low < high
    assert "cross-validated" in "\n".join(fit.markdown(measured))


def test_the_manifest_keeps_everything_but_the_weights() -> None:
    before = PRESETS["llama3-70b-steerlm-rm"]
    after = fit.base(None, fit.fitted(before, {"helpfulness": 0.6, "verbosity": -0.8}))
    assert isinstance(after.reward, Combined)
    assert after.reward == Combined(weights={"helpfulness": 0.6, "verbosity": -0.8})
    assert after.model_copy(update={"reward": before.reward}) == before


def test_what_cannot_be_searched_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no attributes"):
        fit.base("scalar", {})
    with pytest.raises(ConfigurationError, match="neither a readable file"):
        fit.base(str(tmp_path / "none.json"), {})
    found, results = preference_scores(3)
    shares = np.full(3, 1 / 3)
    with pytest.raises(ConfigurationError, match="scores have no humor"):
        fit.comparisons(found, results, ["humor"], shares)
    with pytest.raises(ConfigurationError, match="nothing to search"):
        fit.comparisons(found, [Failure("x", "y")] * 6, ATTRIBUTES, shares)
    data = fit.comparisons(found, results, ATTRIBUTES, shares)
    with pytest.raises(ConfigurationError, match="fewer than --folds 5"):
        fit.measure(data, ATTRIBUTES, None, Fit())
