"""What the manifest leaves open about a prompt, where two readings give two scores."""

from __future__ import annotations

from typing import Any

from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat
from fivescore.types import Pair


def find(
    prompt: PromptFormat, conversation: Conversation, reference: Any, pad_id: int | None
) -> list[str]:
    """A line for each doubt, with its readings and the field of the manifest that decides it.

    Args:
        reference: the checkpoint's own ``PreTrainedTokenizerFast``.
        pad_id: the pad token of config.json.
    """
    found = []
    if conversation.day is not None and prompt.date is None:
        found.append(
            "the chat template writes the date, so scores change with the day this process starts"
            f' on: set "date" of prompt in reward.json, such as "{conversation.day}" (today)'
        )
    if conversation.bos_is_tokenizers and "bos" not in prompt.model_fields_set:
        found.append(
            f"the chat template writes no BOS, and the tokenizer adds {reference.bos_token!r}:"
            " scores are with it, as tokenizer(text) has it, and apply_chat_template's own ids are"
            ' without: set "bos" of prompt in reward.json to "always" or "never"'
        )
    if "end" not in prompt.model_fields_set and prompt.principle is None:
        found += filter(
            None, (_pad(conversation, reference, pad_id), _space(conversation, reference))
        )
    return found


def _pad(conversation: Conversation, reference: Any, pad_id: int | None) -> str:
    (ids,) = conversation.encode([Pair(prompt="x", response="x")])
    if pad_id is None or not isinstance(ids, list) or ids[-1:] != [pad_id]:
        return ""
    before = next((id_ for id_ in reversed(ids) if id_ != pad_id), pad_id)
    last, earlier = reference.convert_ids_to_tokens([pad_id, before])
    return (
        f"a rendered pair ends with {last!r}, which is config.json's pad token: scores are read at"
        f' it, and transformers reads the token before it, {earlier!r}: set "end" of prompt in'
        ' reward.json to "rendered" or "last_not_pad"'
    )


def _space(conversation: Conversation, reference: Any) -> str:
    tail, markers = conversation.tail, conversation.tokenizer.guard.strings
    end = tail.rstrip()
    if end == tail or not reference.eos_token or not end.endswith(markers):
        return ""
    marker = max(filter(end.endswith, markers), key=len)
    return (
        f"the chat template writes {tail[len(end) :]!r} after {marker!r}: scores are read at it,"
        f" and OpenRLHF trains models to be read at EOS, {reference.eos_token!r}, in its place: set"
        ' "end" of prompt in reward.json to "rendered" or "eos"'
    )
