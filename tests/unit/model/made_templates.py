"""Chat templates that look at contents, by what they do, on one tokenizer with all their tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.unit.model import sample_tokenizers as samples

START, END = "<|im_start|>", "<|im_end|>"
TURN = "'<|im_start|>' + m.role + '\n'"
LOOP = "{% for m in messages %}"

TRIMMED = LOOP + "{{ " + TURN + " + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
TRIMMED_USERS = (
    LOOP + "{{ " + TURN + " + (m.content | trim if m.role == 'user' else m.content)"
    " + '<|im_end|>\n' }}{% endfor %}"
)
QWEN3 = (
    "{% set ns = namespace(last=0) %}" + LOOP + "{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + LOOP
    + "{% set content = m.content %}"
    "{% if m.role == 'assistant' %}{% set reasoning = '' %}{% if '</think>' in content %}"
    "{% set before = content.split('</think>')[0].rstrip('\n') %}"
    "{% set reasoning = before.split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}"
    "{{ " + TURN + " + '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n'"
    " + content.lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ " + TURN + " + content + '<|im_end|>\n' }}{% endif %}"
    "{% else %}{{ " + TURN + " + content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
GLM = (
    "{% macro visible(content) %}{{ content }}{% endmacro %}" + LOOP + "{{ " + TURN + " }}"
    "{% set content = visible(m.content) %}{% if m.role == 'assistant' %}{% set reasoning = '' %}"
    "{% if '</think>' in content %}"
    "{% set reasoning = content.split('</think>')[0].split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<think>' + reasoning.strip() + '</think>' }}{% endif %}"
    "{{ content.strip() + '<|im_end|>' }}{% endfor %}"
)
THOUGHT_ADDED = (
    LOOP + "{{ " + TURN + " }}{% if m.role == 'assistant' and '<think>' not in m.content %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
)
DEEPSEEK = (
    LOOP + "{% set content = m.content %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ " + TURN + " + content + '<|im_end|>' }}{% endfor %}"
)
PARTS = (
    LOOP + "{{ " + TURN + " }}{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
)
FIRST_PART = LOOP + "{{ " + TURN + " + m.content[0]['text'] + '<|im_end|>\n' }}{% endfor %}"
PARTS_OF_USERS = (
    LOOP + "{{ " + TURN + " }}{% if m.role == 'user' %}{% for part in m.content %}"
    "{{ part['text'] }}{% endfor %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
)
EITHER = (
    LOOP + "{{ " + TURN + " }}{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
)
ENDED_ONCE = (
    LOOP + "{{ " + TURN + " + m.content }}{% if not m.content.endswith('<|im_end|>') %}"
    "{{ '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
CUT_AT_MARKER = (
    LOOP + "{{ " + TURN + " + m.content.split('<|im_end|>')[0] + '<|im_end|>\n' }}{% endfor %}"
)
MARKERS_REMOVED = (
    LOOP + "{{ " + TURN + " + m.content.replace('<|im_start|>', '') + '<|im_end|>\n' }}{% endfor %}"
)
UPPER = LOOP + "{{ " + TURN + " + m.content | upper + '<|im_end|>\n' }}{% endfor %}"
JSON = LOOP + "{{ " + TURN + " + m.content | tojson + '<|im_end|>\n' }}{% endfor %}"
SYSTEM_LAST = (
    "{% set ns = namespace(system='') %}" + LOOP + "{% if m.role == 'system' %}"
    "{% set ns.system = m.content + '\n\n' %}{% else %}{{ " + TURN + " }}"
    "{% if loop.revindex == 2 %}{{ ns.system }}{% endif %}{{ m.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
)
LOOKING = {
    "trimmed": TRIMMED,
    "trimmed users": TRIMMED_USERS,
    "qwen3": QWEN3,
    "glm": GLM,
    "thought added": THOUGHT_ADDED,
    "deepseek": DEEPSEEK,
    "parts": PARTS,
    "first part": FIRST_PART,
    "parts of users": PARTS_OF_USERS,
    "string or parts": EITHER,
    "ended once": ENDED_ONCE,
    "cut at a marker": CUT_AT_MARKER,
    "markers removed": MARKERS_REMOVED,
    "upper": UPPER,
    "json": JSON,
    "system last": SYSTEM_LAST,
}
"""Templates that write each content once and in order."""
PARTS_OF: dict[str, tuple[str, ...]] = {
    "parts": ("user", "assistant", "system"),
    "first part": ("user", "assistant", "system"),
    "parts of users": ("user",),
}
"""Roles whose contents must be lists of parts."""

DROPS_FIRST = (
    "{% for m in messages[-2:] %}{{ " + TURN + " + m.content + '<|im_end|>\n' }}{% endfor %}"
)
ONLY_DIALOGUE = (
    LOOP + "{% if m.role != 'system' %}{{ " + TURN + " + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
)
REPEATS = LOOP + "{{ " + TURN + " + m.content + m.content + '<|im_end|>\n' }}{% endfor %}"
REORDERS = "{% for m in messages | reverse %}" + (
    "{{ " + TURN + " + m.content + '<|im_end|>\n' }}{% endfor %}"
)
DROPS_BY_WORD = (
    LOOP + "{{ " + TURN + " }}{% if 'secret' in m.content %}{{ 'REDACTED' }}{% else %}"
    "{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
)
SPREAD = (
    LOOP + "{{ " + TURN + " + m.content[:3] + '-' + m.content[3:16] + '<|im_end|>\n' }}{% endfor %}"
)
TRUSTS_MARKERS = (
    LOOP + "{% if '<|im_start|>' in m.content %}{{ m.content }}{% else %}"
    "{{ " + TURN + " + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
JOINS_LINES = LOOP + "{{ " + TURN + " + m.content.replace('\n', '') + '<|im_end|>' }}{% endfor %}"
CUT_AFTER_SOME = LOOP + "{{ " + TURN + " + m.content[:22] + '<|im_end|>\n' }}{% endfor %}"
ONE_TURN_ALONE = "{{ messages[-1].role + messages[-1].content + '<|im_end|>' }}"
SAME_FOR_ALL = (
    LOOP + "{{ " + TURN + " }}{% for p in m.content %}{{ p.image }}{% endfor %}{% endfor %}"
)
"""It writes no content, whatever its form."""

ENDS_WITH_CONTENT = LOOP + "{{ m.role + '\n' + m.content + '\n' }}{% endfor %}"

DATED = (
    "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}"
    + samples.CHATML_TEMPLATE
)
LLAMA31_DATE = (
    "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{{ '<|im_start|>system\nToday is ' + date_string + '<|im_end|>\n' }}" + samples.CHATML_TEMPLATE
)
LLAMA32_DATE = LLAMA31_DATE.replace("'26 Jul 2024'", "strftime_now('%d %b %Y')")
DATED_WITH_SYSTEM = samples.CHATML_TEMPLATE.replace(
    "message['content'] +",
    "message['content'] + (strftime_now('%Y') if message.role == 'system' else '') +",
)


@lru_cache(maxsize=4)
def tokenizer(
    template: str,
    *,
    base: Callable[[], Any] = samples.chatml,
    special_tags: bool = False,
    special_space: bool = False,
) -> Any:
    """A tokenizer with ChatML's markers, reasoning tags and runs of white space as added tokens."""
    backend = Tokenizer.from_str(base().backend_tokenizer.to_str())
    known = backend.get_vocab()
    backend.add_tokens(
        [
            AddedToken(text, normalized=False, special=special)
            for texts, special in (
                ((START, END, "<|endoftext|>", "<|42|>"), True),
                (("<think>", "</think>"), special_tags),
                (("\n\n", "  ", "    ", "\t", "\n"), special_space),
            )
            for text in texts
            if text not in known
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=base().bos_token,
        eos_token=END,
        unk_token=base().unk_token,
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def without_eos() -> Any:
    """ChatML's tokenizer, with an EOS that nobody has named."""
    return PreTrainedTokenizerFast(
        tokenizer_object=samples.chatml().backend_tokenizer,
        chat_template=samples.CHATML_TEMPLATE,
        bos_token=None,
        eos_token=None,
    )
