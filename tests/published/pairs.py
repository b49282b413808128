"""Forty awkward pairs, the same for every model."""

from __future__ import annotations

from typing import NamedTuple

Turn = tuple[str, str]
"""A role and a content."""


class Pair(NamedTuple):
    """A conversation whose last turn is the assistant's.

    ``principle`` is what the response is judged by, for the model that takes one.
    """

    turns: tuple[Turn, ...]
    principle: str = "correctness"

    @property
    def body(self) -> dict[str, object]:
        """The pair as ``POST /score`` takes it."""
        *prompt, (_, response) = self.turns
        if len(prompt) == 1 and prompt[0][0] == "user":
            return {"prompt": prompt[0][1], "response": response}
        messages = [{"role": role, "content": content} for role, content in prompt]
        return {"prompt": messages, "response": response}


def _one(prompt: str, response: str) -> Pair:
    return Pair((("user", prompt), ("assistant", response)))


def _many(*contents: str, system: str | None = None) -> Pair:
    first = [] if system is None else [("system", system)]
    roles = ("user", "assistant")
    return Pair((*first, *((roles[i % 2], text) for i, text in enumerate(contents))))


_LONG = "The tide comes in, the tide goes out, and nobody has counted how often. "
_CODE = "def add(a, b):\n    return a + b  # sum\n\n\nfor i in range(10):\n\tprint(add(i, 1))\n"

PAIRS = (
    _one("Name a prime number.", "7"),
    _one("Name a prime number.", "Nine is one, because it is odd."),
    _one("Name a prime number.", ""),
    _one("", "There is no question."),
    _one("", ""),
    _one("  Two spaces before.", " One space before."),
    _one("Two spaces after.  ", "One space after. "),
    _one("\n\nNewlines before.", "\nA newline before."),
    _one("Newlines after.\n\n", "Newlines after.\n\n\n"),
    _one("\t tabs \t", "\t\tand\ttabs\t"),
    _one(" ", " \n "),
    _one("A carriage return.\r\n", "one\r\ntwo\rthree"),
    _one("Runs   of    spaces.", "a    b          c"),
    _one("Write a function.", _CODE),
    _one(_CODE, "It adds.\n```python\nadd(1, 2)\n```"),
    _one("As JSON, please.", '{"a": [1, 2.5e-3, null], "b": "\\u00e9"}'),
    _one("Use LaTeX.", r"\frac{a}{b} = \sum_{i=0}^{n} x_i"),
    _one("<b>HTML</b> &amp; such?", "<div class='x'>&lt;b&gt;</div><!-- a -->"),
    _one("用一句话介绍长城。", "长城是中国古代的防御工程。"),
    _one("東京はどこ?", "日本の首都です。안녕하세요"),
    _one("Привет! Как дела?", "Съешь же ещё этих булок"),
    _one("مرحبا", "שלום עולם and back"),
    _one("naïve café", "naïve café: composed and not"),
    _one("\U0001f468‍\U0001f469‍\U0001f467?", "\U0001f44d\U0001f3fd \U0001f1eb\U0001f1f7 12345,67"),
    _one("zero​width", "a​b﻿c­d"),
    _one("What is 12345678 + 0.5?", "12345678.5, or 1.23456785e7"),
    _one("I'm, you're, we'LL", "'s 't 're 've 'm 'll 'd"),
    _one("!" * 40, "?" * 40),
    _one("a" * 80, "b" * 80),
    _one("Think first.", "<think>\nFirst 2, then 3.\n</think>\n\nIt is 5.\n"),
    _one("Are {{ braces }} safe?", "{% for m in messages %}{{ m }}{% endfor %}{# a #}"),
    _one("What does <|eot_id|> mean?",
         "It ends.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nGood!"),
    _one("<|im_end|>\n<|im_start|>user\nHi", "Bye<|im_end|>\n<|im_start|>assistant\nYes</s>"),
    _one("<end_of_turn>\n<start_of_turn>model\nYes", "<bos>a<eos> <s>b</s> [PAD] <|reward|>"),
    _many("What is 2 + 2?", "4", "And if you add 3?", "7, since 4 + 3 = 7.\n\nDone."),
    _many("a", "", "b", "c", "d\n", " e "),
    _many("What are you?", "A dog.", system="You are a dog."),
    _many("Bonjour", "Salut", "人工智能", "A field of science.", system="Réponds. \n"),
    _one("Summarise: " + _LONG * 20, "Tides repeat. " + _LONG * 4),
    _one("Say it again.", _LONG * 24),
)  # fmt: skip
"""Empty texts, white space at the ends, code, scripts, strings of special tokens, several turns,
system turns, long texts."""
