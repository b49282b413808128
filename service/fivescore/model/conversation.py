"""Renders and tokenises pairs, to the exact token ids that the model was trained on.

Three formats, chosen by the manifest:

``chat_template``
    The tokenizer's own template over the messages, ``add_generation_prompt=False``.
``steerlm``
    NeMo's format for SteerLM reward models (NeMo-Aligner, ``steerlm/common.py``), no BOS, no EOS.
``raw``
    The prompt's characters, then the response's, for callers who render themselves.

In ``chat_template`` and ``steerlm`` a special token's string in a prompt or response is text, never
structure. In ``raw``, and in a pair given as ``text``, the caller writes the structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.model import helpsteer2, roles
from fivescore.model.manifest import PromptFormat
from fivescore.model.tokenizer import Tokenizer
from fivescore.types import Message, Pair, Role

STEERLM_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)
"""The system prompt that NeMo's SteerLM models were trained with (NeMo-Aligner)."""
SYSTEM_TURN, TURN, LABELS = "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"
"""NeMo's markers before the system prompt, each other turn and the labels (NeMo-Aligner)."""


class Conversation:
    """Renders and tokenises pairs in one format.

    Args:
        prompt: the format, its system prompt and its suffix, from the manifest.
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.

    Raises:
        ConfigurationError: the tokenizer is not a fast one, or has no usable chat template.
    """

    def __init__(self, prompt: PromptFormat, reference: Any) -> None:
        self.format = prompt.format
        self._system = prompt.system
        self._suffix = prompt.suffix or ""
        self._reference = reference
        self.roles: tuple[Role, ...] = roles.BASIC
        """The roles of messages that the format knows."""
        self.rendered_fields: frozenset[str] = frozenset()
        """The fields of a message, such as ``name``, that the template renders beside its text."""
        markers: Sequence[str] = ()
        dialogue = ""
        if self.format == "steerlm":
            markers = (SYSTEM_TURN, TURN, LABELS)
            self._suffix = LABELS if prompt.suffix is None else prompt.suffix
        elif self.format == "chat_template":
            dialogue = _plain_dialogue(reference)
            render = partial(reference.apply_chat_template, tokenize=False)
            self.roles, self.rendered_fields = roles.known(render), roles.fields(render)
            added = reference.added_tokens_decoder.values()
            # Added tokens that the template writes around plain turns are structure.
            markers = [token.content for token in added if token.content in dialogue]
        self.tokenizer = Tokenizer(reference, markers)
        writes_bos = dialogue.startswith(reference.bos_token or "\0")
        self._wants_bos = self.tokenizer.adds_bos or writes_bos
        self._written_bos: str = reference.bos_token if writes_bos else ""

    def encode(self, pairs: Sequence[Pair]) -> list[list[int] | InvalidPair]:
        """Token ids per pair, in order, or the error of a pair that cannot be rendered."""
        return self.tokenise(self.render(pairs))

    def render(self, pairs: Sequence[Pair]) -> list[str | InvalidPair]:
        """The rendered text per pair, in order and sealed by ``Guard``, or the pair's error."""
        return [self._try_render(pair) for pair in pairs]

    def tokenise(self, rendered: Sequence[str | InvalidPair]) -> list[list[int] | InvalidPair]:
        """Token ids of what ``render`` returned, in order."""
        ids = iter(self.tokenizer.encode([text for text in rendered if isinstance(text, str)]))
        return [
            text if isinstance(text, InvalidPair) else self._finish(next(ids)) for text in rendered
        ]

    def _finish(self, ids: list[int]) -> list[int]:
        """Put exactly one BOS at the start if the model wants one, however many are there."""
        bos = self.tokenizer.bos_id
        if self.format == "steerlm" or bos is None:
            return ids
        start = next((i for i, id_ in enumerate(ids) if id_ != bos), len(ids))
        return [bos, *ids[start:]] if start or self._wants_bos else ids

    def _try_render(self, pair: Pair) -> str | InvalidPair:
        try:
            return self.tokenizer.guard.seal(self._render(pair))
        except InvalidPair as error:
            return error

    def _render(self, pair: Pair) -> str:
        if pair.text is not None:
            # With BOS as text, because some tokenizers encode what follows a BOS differently.
            return self._written_bos + pair.text.removeprefix(self._written_bos)
        assert pair.prompt is not None
        assert pair.response is not None
        if self.format == "raw":
            return self._render_raw(pair.prompt, pair.response)
        if isinstance(pair.prompt, str):
            messages = (
                helpsteer2.messages(pair.prompt)
                if self.format == "steerlm"
                else [Message(role="user", content=pair.prompt)]
            )
        else:
            messages = roles.as_known(pair.prompt, self.roles)
        messages.append(Message(role="assistant", content=pair.response))
        if self._system is not None and messages[0].role not in ("system", "developer"):
            messages.insert(0, Message(role="system", content=self._system))
        render = self._render_steerlm if self.format == "steerlm" else self._render_template
        return render(messages) + self._suffix

    def _render_raw(self, prompt: str | list[Message], response: str) -> str:
        if not isinstance(prompt, str):
            raise InvalidPair(
                "prompt is a list of messages, but this model's prompt format is raw: send text"
            )
        return prompt + response + self._suffix

    def _render_template(self, messages: list[Message]) -> str:
        protect = self.tokenizer.guard.protect
        turns = [{"role": turn.role, "content": protect(turn.content)} for turn in messages]
        try:
            rendered = self._reference.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=False
            )
        except Exception as error:  # a template may raise any type, for this pair alone
            raise InvalidPair(f"the chat template refuses this pair: {error}") from error
        return str(rendered)

    def _render_steerlm(self, messages: list[Message]) -> str:
        protect = self.tokenizer.guard.protect
        system = STEERLM_SYSTEM
        if messages[0].role == "system":
            system = messages[0].content
            messages = messages[1:]
        text = f"{SYSTEM_TURN}System\n{protect(system)}\n"
        for turn in messages:
            if turn.role == "system":
                raise InvalidPair("prompt: the steerlm format takes a system message only first")
            text += f"{TURN}{turn.role.capitalize()}\n{protect(turn.content)}\n"
        return text


def _plain_dialogue(reference: Any) -> str:
    """A dialogue of plain turns in the template.

    It ends with a user's turn, because some templates write more than markers, such as empty
    reasoning, into the last turn of an assistant.

    Raises:
        ConfigurationError: there is no template, or it fails.
    """
    if not reference.chat_template:
        raise ConfigurationError(
            "the tokenizer has no chat template: add chat_template.jinja beside the weights, or"
            ' set prompt.format to "steerlm" or "raw" in reward.json'
        )
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    try:
        return str(reference.apply_chat_template(turns, tokenize=False))
    except Exception as error:  # a template may raise any type
        raise ConfigurationError(f"the chat template fails on a plain dialogue: {error}") from error
