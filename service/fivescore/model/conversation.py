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

import datetime
from collections.abc import Sequence
from typing import Any

from fivescore.content import CALLS
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.model import helpsteer2, roles
from fivescore.model.calls import CallStyle, find_style
from fivescore.model.ends import Ends
from fivescore.model.manifest import PromptFormat
from fivescore.model.rendering import GuardedTemplate
from fivescore.model.template import ChatTemplate
from fivescore.model.tokenizer import Tokenizer
from fivescore.types import Message, Pair, Role

STEERLM_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)
"""The system prompt that NeMo's SteerLM models were trained with (NeMo-Aligner)."""
SYSTEM_TURN, TURN, LABELS = "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"
"""NeMo's markers before the system prompt, each other turn and the labels (NeMo-Aligner)."""

PRINCIPLE = "{principle}"
"""What stands for the principle in the manifest's turn."""
NO_CALLS = "the model's template renders no tool calls: write them into the text, or leave them out"
NO_PRINCIPLE = "principle: this model is not asked about one; leave it out"
PLAIN_PAIR = (Message(role="user", content="x"), Message(role="assistant", content="x"))


class Conversation:
    """Renders and tokenises pairs in one format.

    Args:
        prompt: the format, its system prompt, its suffix, and what stands first and last, from the
            manifest.
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.
        pad_id: the pad token of config.json.

    Raises:
        ConfigurationError: the tokenizer is not a fast one, has no usable chat template, or lacks a
            token that the manifest asks for; or the template does not take its system prompt.
    """

    def __init__(self, prompt: PromptFormat, reference: Any, pad_id: int | None = None) -> None:
        self.format = prompt.format
        self._prompt = prompt
        self._suffix = prompt.suffix or ""
        self._template: ChatTemplate | None = None
        self.roles: tuple[Role, ...] = roles.BASIC
        """The roles of messages that the format knows."""
        self.takes_calls = False
        """Whether the template renders tool calls."""
        style: CallStyle | None = None
        self._fields: frozenset[str] = frozenset()
        markers: Sequence[str] = ()
        if self.format == "steerlm":
            markers = (SYSTEM_TURN, TURN, LABELS)
            self._suffix = LABELS if prompt.suffix is None else prompt.suffix
        elif self.format == "chat_template":
            self._template = template = ChatTemplate(
                reference, prompt.date, generates=prompt.principle is not None
            )
            style = find_style(template.render_turns)
            self.takes_calls = style is not None
            self.roles = roles.known(template.render_turns, style and style.probe())
            self._fields = template.fields
            markers = template.markers
        self.tokenizer = Tokenizer(reference, markers)
        self._guarded: GuardedTemplate | None = None
        written, bos = "", reference.bos_token or "\0"
        if self._template is not None:
            self._guarded = GuardedTemplate(self._template, self.tokenizer.guard, style)
            _check_system(self._guarded, prompt.system)
            written = self._template.dialogue
        # Where the template writes white space before its BOS, a second one would come first.
        adds_bos = self.tokenizer.adds_bos and not written.lstrip().startswith(bos)
        writes_bos = written.startswith(bos)
        self.bos_is_tokenizers: bool = adds_bos and self._template is not None
        """Whether the tokenizer adds a BOS to what the template writes without one."""
        self._sealed_suffix = self.tokenizer.guard.seal(self._suffix)
        self._ends = Ends(prompt, self.tokenizer, adds_bos or writes_bos, pad_id)
        self._written_bos: str = reference.bos_token if writes_bos else ""

    @property
    def day(self) -> datetime.date | None:
        """The day that the template writes; None if it writes none."""
        return self._template.day if self._template and self._template.writes_day else None

    @property
    def tail(self) -> str:
        """What is written after the response."""
        if self._guarded is None:
            return self._suffix
        return self._guarded.render(PLAIN_PAIR).tail + self._suffix

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
            text if isinstance(text, InvalidPair) else self._ends.put(next(ids))
            for text in rendered
        ]

    def _try_render(self, pair: Pair) -> str | InvalidPair:
        try:
            return self._render(pair)
        except InvalidPair as error:
            return error

    def _render(self, pair: Pair) -> str:
        seal = self.tokenizer.guard.seal
        if pair.text is not None:
            # With BOS as text, because some tokenizers encode what follows a BOS differently.
            text = self._written_bos + pair.text.removeprefix(self._written_bos)
            return seal(self._without_space_after_structure(text))
        assert pair.prompt is not None
        assert pair.response is not None
        _check_principle(pair.principle, self._prompt.principle)
        if self.format == "raw":
            return seal(self._render_raw(pair.prompt, pair.response))
        if isinstance(pair.prompt, str):
            messages = (
                helpsteer2.messages(pair.prompt)
                if self.format == "steerlm"
                else [Message(role="user", content=pair.prompt)]
            )
        else:
            messages = [
                turn if turn.is_plain else self._as_rendered(turn, f"prompt.{place}")
                for place, turn in enumerate(roles.as_known(pair.prompt, self.roles))
            ]
        messages.append(self._as_rendered(pair.answer, "response"))
        if self._prompt.principle is not None:
            asked = self._prompt.principle.replace(PRINCIPLE, pair.principle or "")
            messages.append(Message(role="user", content=asked))
        if self._prompt.system is not None and messages[0].role not in ("system", "developer"):
            messages.insert(0, Message(role="system", content=self._prompt.system))
        if self._guarded is None:
            text, tail = seal(self._render_steerlm(messages)), "\n"
        else:
            text, tail = self._guarded.render(messages)
        text += self._sealed_suffix
        if self._prompt.end == "eos":  # which stands in place of the format's white space
            text = text.removesuffix(_space_at_end(tail + self._suffix))
        return text

    def _as_rendered(self, turn: Message, place: str) -> Message:
        """The message without fields that the template does not know and that change nothing.

        Raises:
            InvalidPair: it has tool calls, which the template does not render.
        """
        if turn.tool_calls and not self.takes_calls:
            raise InvalidPair(f"{place}.{CALLS}: {NO_CALLS}")
        dropped = {"name", "tool_call_id"} - self._fields
        return turn.model_copy(update=dict.fromkeys(dropped)) if not turn.is_plain else turn

    def _without_space_after_structure(self, text: str) -> str:
        stripped = text.rstrip()
        ends = self._prompt.end == "eos" and stripped.endswith(self.tokenizer.guard.strings)
        return stripped if ends else text

    def _render_raw(self, prompt: str | list[Message], response: str | Message) -> str:
        if not isinstance(prompt, str):
            raise InvalidPair(
                "prompt is a list of messages, but this model's prompt format is raw: send text"
            )
        if not isinstance(response, str):
            raise InvalidPair(
                "response is a message, but this model's prompt format is raw: send text"
            )
        return prompt + response + self._suffix

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


def _check_principle(given: str | None, turn: str | None) -> None:
    """Check that a pair has a principle where the model is asked about one, and none elsewhere.

    Raises:
        InvalidPair: it has none, or one that the model would not see.
    """
    if turn is None and given is not None:
        raise InvalidPair(NO_PRINCIPLE)
    if turn is not None and given is None:
        raise InvalidPair(
            "principle: this model judges a response by a principle; give one in the pair or the"
            " request, such as correctness, or start the server with --principle"
        )


def _check_system(template: GuardedTemplate, system: str | None) -> None:
    """Check that the manifest's system prompt, which every pair gets, is one the template takes."""
    if system is None:
        return
    turns = [Message(role="system", content=system), *PLAIN_PAIR]
    try:
        template.render(turns)
    except InvalidPair as error:
        raise ConfigurationError(
            f"reward.json: the system of prompt cannot be used: {error.detail}"
        ) from error


def _space_at_end(text: str) -> str:
    return text[len(text.rstrip()) :]
