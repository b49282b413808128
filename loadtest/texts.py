"""Workloads: pairs of real text from RM-Bench, or generated text of the same lengths."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fivescore.types import Pair
from loadtest.model import Measured

SEED = 7
PROMPT_WORDS = (20, 120)
RESPONSE_WORDS = (60, 240)
"""The least and the most words in a generated prompt and response."""
GROUP_RESPONSE_WORDS = 60
"""Words in a response of a group, about 100 tokens: a quarter of a pair with a prompt of 300."""
TOKENS = (100, 400)
"""The least and the most tokens of a pair; RM-Bench's other pairs are left out."""
Tokenise = Callable[[Sequence[Pair]], list[list[int]]]


def from_rmbench(files: Sequence[Path]) -> list[Pair]:
    """Every prompt of RM-Bench files with its six responses, shuffled with a fixed seed."""
    pairs = [
        Pair(prompt=row["prompt"], response=response)
        for file in files
        for row in json.loads(file.read_text())
        for response in (*row["chosen"], *row["rejected"])
    ]
    random.Random(SEED).shuffle(pairs)
    return pairs


def made(count: int, vocabulary: Sequence[str]) -> list[Pair]:
    """Pairs of random words with the lengths of RM-Bench's chat pairs, from a fixed seed."""
    rng = random.Random(SEED)

    def words(least: int, most: int) -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(least, most)))

    return [
        Pair(prompt=words(*PROMPT_WORDS), response=words(*RESPONSE_WORDS)) for _ in range(count)
    ]


class Texts:
    """An endless supply of different pairs: texts are reused with a new mark.

    Args:
        pairs: the source; pairs within ``TOKENS`` are used, in order.
        tokenise: returns the service's token ids.
    """

    def __init__(self, pairs: Sequence[Pair], tokenise: Tokenise) -> None:
        lengths = map(len, tokenise(pairs))
        least, most = TOKENS
        self.pairs = [p for p, n in zip(pairs, lengths, strict=True) if least <= n <= most]
        if not self.pairs:
            raise ValueError(f"no pair has {least} to {most} tokens: give other texts")
        self._tokenise = tokenise
        self._marks = itertools.count()
        self._next = itertools.cycle(self.pairs)

    def take(self, count: int) -> list[Pair]:
        """The next ``count`` pairs, with a mark before each prompt that no other call uses.

        So no prefix cache has seen them.
        """
        return marked(list(itertools.islice(self._next, count)), f"{next(self._marks)}:")

    def groups(self, prompts: int, responses: int, prompt_tokens: int) -> list[Pair]:
        """``prompts * responses`` pairs, group by group, as GRPO sends them.

        Prompts have about ``prompt_tokens`` tokens.
        """
        long, short = self._prompts(prompt_tokens), itertools.cycle(self.pairs)
        mark = f"{next(self._marks)}:"
        pairs = [
            Pair(prompt=prompt, response=_cut(str(next(short).response)))
            for prompt in itertools.islice(long, prompts)
            for _ in range(responses)
        ]
        return marked(pairs, mark)

    def of_length(self, count: int, tokens: int) -> list[Pair]:
        """Pairs of about ``tokens`` tokens, half of them in the prompt, without common prefixes."""
        prompts, responses = self._prompts(tokens // 2), self._prompts(tokens // 2)
        pairs = [Pair(prompt=next(prompts), response=next(responses)) for _ in range(count)]
        return marked(pairs, f"{next(self._marks)}:")

    def _prompts(self, tokens: int) -> Iterator[str]:
        """Texts of about ``tokens`` tokens; each begins differently."""
        each = (word for pair in self.pairs for word in str(pair.response).split())
        words = itertools.cycle([word for word in each if word.isalpha()])
        (frame,) = self._tokenise([Pair(prompt="", response="")])
        for number in itertools.count():
            sample = list(itertools.islice(words, tokens))
            (ids,) = self._tokenise([Pair(prompt=" ".join(sample), response="")])
            share = (tokens - len(frame) / 2) / (len(ids) - len(frame))
            yield f"{number} " + " ".join(sample[: max(1, round(share * tokens))])


def endless(model: Measured, count: int, rmbench: Sequence[Path] | None = None) -> Texts:
    """Texts from RM-Bench files, or from ``count`` generated pairs without files."""
    pairs = from_rmbench(rmbench) if rmbench else made(count, model.words())
    return Texts(pairs, model.ids)


def _cut(text: str) -> str:
    return " ".join(text.split(" ")[:GROUP_RESPONSE_WORDS])


def marked(pairs: Sequence[Pair], mark: str) -> list[Pair]:
    """The same pairs, each prompt starting with ``mark``."""
    return [Pair(prompt=f"{mark} {pair.prompt}", response=pair.response) for pair in pairs]


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The same pairs in another order."""
    mixed = list(pairs)
    random.Random(seed).shuffle(mixed)
    return mixed
