"""The reference for scores: plain transformers, in float32, one pair at a time.

It shares with the service the manifest's meaning and nothing of what it checks: the template is
applied to the texts as they are, the ids come from ``tokenizer.json`` as ``tokenizers`` reads it,
and the outputs from transformers' own body and the plain formula of the head.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as RustTokenizer

from fivescore.errors import ConfigurationError, InvalidPair, first_line
from fivescore.model import context, helpsteer2, proof, tokenizer_file
from fivescore.model.conversation import (
    LABELS,
    STEERLM_SYSTEM,
    SYSTEM_TURN,
    TURN,
    Conversation,
)
from fivescore.model.head import Head, LinearHead
from fivescore.model.manifest import Manifest, PromptFormat, Proof
from fivescore.model.template import DATE_VARIABLES
from fivescore.types import Message, Pair

if TYPE_CHECKING:
    import torch

LINEAR = LinearHead()


class Reference:
    """A checkpoint in transformers.

    Args:
        model: a folder or hub id.
        outputs: the manifest's number of outputs.
        head: of the manifest.

    Raises:
        ConfigurationError: transformers cannot load its body, or it lacks a tensor of its head.
    """

    def __init__(
        self,
        model: str,
        outputs: int,
        head: Head = LINEAR,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import __version__

        from fivescore.model import reference_head, streaming

        self.name = f"transformers {__version__}, float32"
        large = None if trust_remote_code else streaming.for_large(model, revision)
        self._large = large
        self._body: Any = large or _body(model, revision, trust_remote_code)
        config = self._body.config
        self.max_tokens = context.declared(config)
        """The model's context in tokens."""
        self.pad_id: int | None = config.get_text_config().pad_token_id
        self._head = reference_head.read(model, revision, head, outputs, config)

    def outputs(self, token_ids: Sequence[int]) -> list[float]:
        """The manifest's outputs ``[outputs]``.

        Raises:
            ConfigurationError: the ids lack those that a gate is computed at.
        """
        if self._large is not None:
            (states,) = self._large.hidden_states([token_ids])
        else:
            states = hidden_states(self._body, token_ids)
        return self._outputs(states, token_ids)

    def all_outputs(
        self, sequences: Sequence[Sequence[int]], done: Callable[[float], Any] = lambda count: None
    ) -> list[list[float]]:
        """The manifest's outputs ``[sequences, outputs]``; a large model's weights are read once
        for many sequences.

        Args:
            done: called with the number of sequences, or the part of them, that was computed.

        Raises:
            ConfigurationError: as ``outputs``.
        """
        found: list[list[float]] = []
        if self._large is not None:
            states = self._large.hidden_states(sequences, done)
            return [self._outputs(one, ids) for one, ids in zip(states, sequences, strict=True)]
        for ids in sequences:
            found.append(self.outputs(ids))
            done(1)
        return found

    def _outputs(self, states: torch.Tensor, ids: Sequence[int]) -> list[float]:
        return [float(value) for value in self._head(states, ids)]


def _body(model: str, revision: str | None, trust_remote_code: bool) -> Any:
    """transformers' model without a head, in float32.

    Raises:
        ConfigurationError: it cannot be loaded, or lacks a parameter.
    """
    import torch
    from transformers import AutoModel

    placed = {"device_map": "auto"} if torch.cuda.is_available() else {}
    try:
        with _quiet():  # of the tensors of the head, for which the body has no place
            body, report = AutoModel.from_pretrained(
                model,
                revision=revision,
                trust_remote_code=trust_remote_code,
                dtype=torch.float32,
                attn_implementation="eager",  # others leave out the soft caps of Gemma 2
                output_loading_info=True,
                **placed,
            )
    except Exception as error:  # the library raises many types for an invalid checkpoint
        raise ConfigurationError(
            f"model {model}: transformers cannot load it as the reference: {first_line(error)}"
        ) from error
    if lacking := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"model {model}: transformers finds no {lacking[0]} in the checkpoint, so it is no"
            " reference"
        )
    return body.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class ReferenceTokenizer:
    """A checkpoint's tokenizer and template, applied to the texts as they are.

    It does not keep structure and text apart: ``plain`` says for which pairs that matters.

    Args:
        prompt: the manifest's prompt format.
        pad_id: the pad token of config.json.

    Raises:
        ConfigurationError: they cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        prompt: PromptFormat,
        pad_id: int | None = None,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoTokenizer

        self._prompt = prompt
        self._pad = pad_id
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model, revision=revision, trust_remote_code=trust_remote_code
            )
            self._backend = tokenizer_of_file(model, revision)
        except Exception as error:  # the libraries raise many types
            raise ConfigurationError(
                f"model {model}: the reference's tokenizer cannot be loaded: {first_line(error)}"
            ) from error
        first = self._backend.encode("a").ids[:1]
        self._adds_bos = first == [self._tokenizer.bos_token_id]

    def token_ids(self, pair: Pair) -> list[int]:
        """The ids of a pair, whose prompt and response are text or messages."""
        text = self._rendered(pair) + self._suffix()
        if self._prompt.end == "eos" and self._prompt.format == "chat_template":
            text = text.rstrip()
        # In the raw format nobody but the tokenizer adds what it adds to a text.
        whole = self._prompt.format == "raw" and self._prompt.end != "eos"
        ids: list[int] = self._backend.encode(text, add_special_tokens=whole).ids
        return self._to_the_end(self._with_bos(ids, text))

    def plain(self, pair: Pair) -> bool:
        """Whether no content holds a special token's string, which the service takes for text."""
        special = {t.content for t in self._tokenizer.added_tokens_decoder.values()}
        texts = [*(turn.content for turn in _messages(pair)), pair.principle or ""]
        contents = "\0".join(texts)
        return not any(one in contents for one in special if not one.isspace())

    def token(self, id_: int) -> str:
        """The string of a token."""
        return self._backend.id_to_token(id_) or "?"

    def _rendered(self, pair: Pair) -> str:
        if self._prompt.format == "raw":
            return f"{pair.prompt}{pair.response}"
        steerlm = self._prompt.format == "steerlm"
        turns = _messages(pair, split=steerlm)
        if self._prompt.principle is not None:
            asked = self._prompt.principle.replace("{principle}", pair.principle or "")
            turns.append(Message(role="user", content=asked))
        system = self._prompt.system or (STEERLM_SYSTEM if steerlm else None)
        if system is not None and turns[0].role != "system":
            turns.insert(0, Message(role="system", content=system))
        if not steerlm:
            return self._in_template(turns)
        text = f"{SYSTEM_TURN}System\n{turns[0].content}\n"
        return text + "".join(f"{TURN}{t.role.capitalize()}\n{t.content}\n" for t in turns[1:])

    def _in_template(self, turns: Sequence[Message]) -> str:
        """The template over contents as text, or as parts for the roles of which it reads those."""
        days: dict[str, Any] = {}
        if self._prompt.date is not None:
            moment = datetime.datetime.combine(self._prompt.date, datetime.time())
            days = {name: moment.strftime(form) for name, form in DATE_VARIABLES.items()}
            days["strftime_now"] = moment.strftime
        apply = partial(
            self._tokenizer.apply_chat_template,
            tokenize=False,
            add_generation_prompt=self._prompt.principle is not None,
            **days,
        )
        roles = {turn.role for turn in turns}
        some = ({"user"}, roles - {"assistant"}, {"assistant"}, {"user", "assistant"})
        for parts in (set(), *some, roles):
            probes = [Message(role=turn.role, content=f"probe{turn.role}") for turn in turns]
            with contextlib.suppress(Exception):  # a template may raise any type
                written = apply(_dicts(probes, parts)).lower()
                if all(f"probe{role}" in written for role in roles):
                    return str(apply(_dicts(turns, parts)))
        return str(apply(_dicts(turns, set())))

    def _to_the_end(self, ids: list[int]) -> list[int]:
        eos, end = self._tokenizer.eos_token_id, self._prompt.end
        if end == "eos" and ids[-1:] != [eos]:
            return [*ids, eos]
        while end == "last_not_pad" and ids[1:] and ids[-1] == self._pad:
            ids = ids[:-1]
        return ids

    def _suffix(self) -> str:
        if self._prompt.suffix is None:
            return LABELS if self._prompt.format == "steerlm" else ""
        return self._prompt.suffix

    def _with_bos(self, ids: list[int], text: str) -> list[int]:
        bos, wanted = self._tokenizer.bos_token_id, self._prompt.bos
        if bos is None or (wanted == "auto" and self._prompt.format == "steerlm"):
            return ids
        start = next((i for i, id_ in enumerate(ids) if id_ != bos), len(ids))
        adds = start > 0 or self._adds_bos
        if self._prompt.format == "chat_template" and not start:
            # A template may write its own BOS after white space.
            adds = adds and not text.lstrip().startswith(self._tokenizer.bos_token)
        adds = wanted == "always" or (wanted == "auto" and adds)
        return [bos, *ids[start:]] if adds else ids[start:]


def tokenizer_of_file(model: str, revision: str | None = None) -> RustTokenizer:
    """The tokenizer in ``tokenizer.json``, as the library tokenizers reads it.

    Raises:
        OSError: there is no such file.
        Exception: what the library raises for a file that it cannot read.
    """
    file = tokenizer_file.path(model, revision)
    if file is None:
        raise FileNotFoundError(f"it has no {tokenizer_file.FILE_NAME}")
    return RustTokenizer.from_file(str(file))


def _dicts(turns: Sequence[Message], parts: Collection[str]) -> list[dict[str, Any]]:
    """Turns as a template takes them; contents are parts for the roles in ``parts``."""
    return [
        {
            **_beside(turn),
            "content": [{"type": "text", "text": turn.content}]
            if turn.role in parts
            else turn.content,
        }
        for turn in turns
    ]


def _beside(turn: Message) -> dict[str, Any]:
    """What a message has beside its text; arguments of calls are objects, as transformers asks."""
    fields = turn.model_dump(exclude_none=True)
    for call in fields.get("tool_calls", ()):
        with contextlib.suppress(ValueError):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return fields


def _messages(pair: Pair, split: bool = False) -> list[Message]:
    prompt = pair.prompt or ""
    if isinstance(prompt, str):
        turns = helpsteer2.messages(prompt) if split else [Message(role="user", content=prompt)]
    else:
        turns = list(prompt)
    return [*turns, pair.answer]


def hidden_states(body: Any, token_ids: Sequence[int]) -> torch.Tensor:
    """The states of all tokens after the final norm, float32 ``[tokens, H]``."""
    import torch

    ids = torch.tensor([list(token_ids)], device=body.get_input_embeddings().weight.device)
    with torch.inference_mode():
        return body(input_ids=ids, use_cache=False).last_hidden_state[0].float().cpu()


def proof_pairs(folder: Path, manifest: Manifest) -> list[tuple[Pair, list[int]]]:
    """The pairs of a proof with their token ids, without those that the template refuses.

    Args:
        folder: of config.json and the tokenizer's files.

    Raises:
        ConfigurationError: the reference has other token ids.
    """
    from transformers import AutoConfig

    pad_id = AutoConfig.from_pretrained(folder).get_text_config().pad_token_id
    conversation = Conversation(manifest.prompt, tokenizer_file.read(str(folder)), pad_id)
    pairs = proof.with_principle(proof.PAIRS, manifest.prompt)
    tokenizer = ReferenceTokenizer(str(folder), manifest.prompt, pad_id)
    found = []
    for place, (pair, ours) in enumerate(zip(pairs, conversation.encode(pairs), strict=True)):
        if isinstance(ours, InvalidPair):
            continue
        if tokenizer.plain(pair) and ours != tokenizer.token_ids(pair):
            raise ConfigurationError(
                f"{folder}: the token ids of {proof.named(place, pair)} are not the reference's:"
                f" fivescore check {folder} shows where"
            )
        found.append((pair, ours))
    return found


def prove(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of the checkpoint in ``folder`` with a proof.

    Raises:
        ConfigurationError: transformers cannot load the checkpoint, or has other token ids.
    """
    pairs = proof_pairs(folder, manifest)
    reference = Reference(str(folder), manifest.outputs, manifest.head)
    limit = manifest.max_tokens or reference.max_tokens
    chosen = [(pair, ids) for pair, ids in pairs if len(ids) <= limit]
    if not chosen:
        raise ConfigurationError(f"no pair of the proof fits into {limit} tokens")
    outputs = reference.all_outputs([ids for _, ids in chosen])
    proved = tuple(
        proof.proved_pair(pair, ids, found)
        for (pair, ids), found in zip(chosen, outputs, strict=True)
    )
    kept = Proof(reference=reference.name, pairs=proved)
    return manifest.model_copy(update={"proof": kept})
