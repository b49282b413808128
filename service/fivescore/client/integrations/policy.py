"""Makes pairs of what a trainer's policy sampled, with the policy's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from fivescore.client.integrations.conversation import Text, check_columns, pair
from fivescore.client.rows import PairLike
from fivescore.endings import Endings, stop_ids
from fivescore.policy import PolicyTemplate


class Policy:
    """A policy, known by its tokenizer: what ends its responses, and what its template renders.

    Args:
        tokenizer: of transformers; the generation_config.json in its folder is read too.
        stops: ids of further tokens at which the trainer has the policy stop.
        named: the trainer's setting that names the tokenizer, for error texts.
    """

    def __init__(self, tokenizer: Any, stops: Iterable[int] = (), named: str = "tokenizer") -> None:
        self._tokenizer = tokenizer
        self._named = named
        self._stops = [*stops, *stop_ids(getattr(tokenizer, "name_or_path", None) or "")]
        self._endings = Endings.of_tokenizer(tokenizer, self._stops)

    @cached_property
    def _template(self) -> PolicyTemplate:
        return PolicyTemplate(self._tokenizer, self._stops, self._named)

    def pair(self, prompt: Text, sampled: str, row: Mapping[str, Any] | None = None) -> PairLike:
        """The pair of messages, or of a user's text, and a response without its ending.

        Args:
            sampled: the response as it was decoded, special tokens included.
            row: as for ``conversation.pair``.
        """
        return pair(prompt, self._endings.cut(sampled), row)

    def rendered(self, prompt: str) -> bool:
        """Whether a prompt ends as the policy's template ends one.

        Raises:
            ConfigurationError: the template cannot be taken apart.
        """
        return self._template.rendered(prompt)

    def rendered_pair(
        self, prompt: str, sampled: str, row: Mapping[str, Any] | None = None
    ) -> PairLike:
        """The pair of a prompt that the policy's template rendered, as the messages that it was.

        Raises:
            ConfigurationError: the template cannot be taken apart, or ``row`` has more than
                texts.
        """
        check_columns(row or {})
        return self._template.pair(prompt, sampled)
