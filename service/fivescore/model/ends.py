"""The first and the last token of a sequence: BOS, and where the head is read."""

from __future__ import annotations

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import PromptFormat
from fivescore.model.tokenizer import Tokenizer


class Ends:
    """Makes a sequence begin and end as the manifest says.

    Args:
        adds_bos: whether BOS comes first where the manifest leaves it to tokenizer and template.
        pad_id: the pad token of config.json, by which transformers finds the token to read.

    Raises:
        ConfigurationError: the manifest asks for a token that the checkpoint does not have.
    """

    def __init__(
        self, prompt: PromptFormat, tokenizer: Tokenizer, adds_bos: bool, pad_id: int | None
    ) -> None:
        self._bos, self._eos, self._pad = tokenizer.bos_id, tokenizer.eos_id, pad_id
        self._keeps_bos = prompt.bos != "never"
        self._adds_bos = prompt.bos == "always"
        if prompt.bos == "auto":
            self._adds_bos = adds_bos
            if prompt.format == "steerlm":
                self._bos = None
        self._end = prompt.end
        self._ending = tokenizer.ending if prompt.format == "raw" else ()
        if prompt.end == "eos":
            self._ending = () if self._eos is None else (self._eos,)
        _check(prompt, self._bos, self._eos, pad_id)

    def put(self, ids: list[int]) -> list[int]:
        """The ids with the BOS and the end that the model was trained with."""
        ids = self._begin(ids)
        if self._ending:
            ids = _end_once(ids, self._ending)
        if self._end == "last_not_pad":
            ids = ids[: _length_without(ids, self._pad) or 1]
        return ids

    def _begin(self, ids: list[int]) -> list[int]:
        """One BOS where the model wants one or the ids have one, however many; or none at all."""
        bos = self._bos
        if bos is None:
            return ids
        start = next((i for i, id_ in enumerate(ids) if id_ != bos), len(ids))
        if not self._keeps_bos:
            return ids[start:]
        return [bos, *ids[start:]] if start or self._adds_bos else ids


def _end_once(ids: list[int], ending: tuple[int, ...]) -> list[int]:
    """The ids with ``ending`` at their end, where it may be already, several times too."""
    size, end = len(ending), len(ids)
    while tuple(ids[max(end - size, 0) : end]) == ending:
        end -= size
    return [*ids[:end], *ending]


def _length_without(ids: list[int], pad: int | None) -> int:
    """The number of ids up to the last one that is not the pad token."""
    end = len(ids)
    while end and ids[end - 1] == pad:
        end -= 1
    return end


def _check(prompt: PromptFormat, bos: int | None, eos: int | None, pad: int | None) -> None:
    for setting, has, lacking in (
        ('"bos": "always"', prompt.bos != "always" or bos is not None, "the tokenizer has no BOS"),
        ('"end": "eos"', prompt.end != "eos" or eos is not None, "the tokenizer has no EOS"),
        (
            '"end": "last_not_pad"',
            prompt.end != "last_not_pad" or pad is not None,
            "config.json has no pad_token_id",
        ),
    ):
        if not has:
            raise ConfigurationError(
                f"reward.json: prompt has {setting}, but {lacking}: leave it out, or add the token"
            )
