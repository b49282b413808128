"""Token ids of pairs as a model's own tokenizer and template give them.

Nothing here is the service's. A special token's string inside a text is text: it is hidden from the
template behind a private-use character and encoded letter by letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from tests.published.pairs import Pair, Turn
from tests.published.vocabularies import Vocabulary

_HIDDEN = 0xE000
"""The first private-use character."""


@dataclass(frozen=True)
class Rendering:
    """How a model's published code makes token ids of a conversation.

    Args:
        bos: ``auto``: once, where the tokenizer adds it or the template writes it; ``never``.
        suffix: a token that is appended, where it is not already the last.
        end: ``eos``: white space at the end goes, and EOS stands last (OpenRLHF,
            ``openrlhf/datasets/reward_dataset.py``).
        principle: whether the principle is asked for in one more turn of the user, before a
            generation prompt (the card of Llama-3.3-Nemotron-70B-Reward-Principle).
    """

    vocabulary: Vocabulary
    bos: Literal["auto", "never"] = "auto"
    suffix: str | None = None
    end: Literal["rendered", "eos"] = "rendered"
    principle: bool = False

    def ids(self, pair: Pair) -> list[int] | None:
        """The pair's token ids; None where the template refuses its turns."""
        added = self.vocabulary.tokenizer.get_added_tokens_decoder().values()
        special = [token.content for token in added if token.special]
        text = self._rendered(pair, special)
        if text is None:
            return None
        eos = self.vocabulary.settings["eos_token"]
        if self.end == "eos":
            text = text.rstrip("\n")
            assert text.endswith(eos), "OpenRLHF would write a space before EOS"
        ids = _encoded(self.vocabulary, text, special)
        if self.suffix is not None and ids[-1] != self.vocabulary.id(self.suffix):
            ids.append(self.vocabulary.id(self.suffix))
        return self._with_bos(ids)

    def _with_bos(self, ids: list[int]) -> list[int]:
        name = self.vocabulary.settings.get("bos_token")
        if name is None or self.bos == "never":
            return ids
        bos = self.vocabulary.id(name)
        added = self.vocabulary.tokenizer.encode("a").ids[0] == bos
        return [bos, *ids] if added and ids[0] != bos else ids

    def _rendered(self, pair: Pair, special: list[str]) -> str | None:
        turns = pair.turns
        if self.principle:
            turns = (*turns, ("user", question(pair.principle)))
        settings: dict[str, Any] = self.vocabulary.settings
        names = ("bos_token", "eos_token", "pad_token")
        try:
            rendered, _ = render_jinja_template(
                conversations=[[_hidden(turn, special) for turn in turns]],
                chat_template=settings["chat_template"],
                add_generation_prompt=self.principle,
                **{name: settings.get(name) for name in names},
            )
        except TemplateError:
            return None
        return str(rendered[0])


def question(principle: str) -> str:
    """The turn that asks for a principle (card of Llama-3.3-Nemotron-70B-Reward-Principle)."""
    return (
        "Evaluate the response to the previous prompt in terms of whether it satisfies this"
        f" principle: {principle}. Only answer Yes or No."
    )


def _hidden(turn: Turn, special: list[str]) -> dict[str, str]:
    role, content = turn
    for place, text in enumerate(special):
        content = content.replace(text, chr(_HIDDEN + place))
    return {"role": role, "content": content}


def _encoded(vocabulary: Vocabulary, text: str, special: list[str]) -> list[int]:
    """Ids of a rendered text; private-use characters stand for special tokens' strings."""
    plain = vocabulary.plain
    ids: list[int] = []
    for part in re.split("(" + "|".join(map(re.escape, special)) + ")", text):
        if part in special:
            ids.append(vocabulary.id(part))
        elif part:
            for place, name in enumerate(special):
                part = part.replace(chr(_HIDDEN + place), name)
            ids += plain.encode(part, add_special_tokens=False).ids
    return ids
