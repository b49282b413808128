"""The order of rows, and batches of them."""

from __future__ import annotations

from collections import Counter

from fivescore.training.batches import Collator, Ordered, training_order
from fivescore.training.rows import Example


def test_every_row_comes_once_before_any_comes_again() -> None:
    order = training_order([1] * 10, batch_size=5, steps=5, seed=1).tolist()
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert max(Counter(order).values()) == 3
    assert order[:10] != order[10:20]


def test_the_order_is_the_seeds_and_its_start_not_the_lengths() -> None:
    lengths = [7] * 30
    whole = training_order(lengths, 4, 12, seed=1).tolist()
    assert training_order(lengths, 4, 12, seed=1).tolist() == whole
    assert training_order(lengths, 4, 6, seed=1).tolist() == whole[:24]
    assert training_order(lengths, 4, 12, seed=2).tolist() != whole


def test_a_batch_goes_by_length() -> None:
    lengths = [(7 * i) % 10 for i in range(10)]
    order = training_order(lengths, 5, 2, seed=1)
    for batch in (order[:5], order[5:]):
        assert [lengths[i] for i in batch] == sorted(lengths[i] for i in batch)


def test_batches_are_padded_on_the_right() -> None:
    examples = [Example("a", ([5, 6, 7],), [1.0]), Example("b", ([8],), [2.0])]
    batch = Collator(pad_id=9)(examples)
    assert batch["input_ids"].tolist() == [[[5, 6, 7]], [[8, 9, 9]]]
    assert batch["attention_mask"].tolist() == [[[1, 1, 1]], [[1, 0, 0]]]
    assert batch["labels"].tolist() == [[1.0], [2.0]]


def test_comparisons_stay_together() -> None:
    batch = Collator(0)([Example("a", ([5], [6, 7]), [1.0])])
    assert batch["input_ids"].tolist() == [[[5, 0], [6, 7]]]


def test_a_data_set_may_repeat_rows() -> None:
    examples = [Example(name, ([1],), [0.0]) for name in "ab"]
    repeated = Ordered(examples, [1, 1, 0])
    assert [repeated[i].place for i in range(len(repeated))] == ["b", "b", "a"]
