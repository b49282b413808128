"""Chat templates of published models, by what they write."""

from __future__ import annotations

from tests.unit.model.made_templates import QWEN3 as QWEN3

_LOOP = "{% for m in messages %}"
_TURN = (
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim"
    " + '<|eot_id|>' }}"
)
_ASKS = (
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_NO_BOS = _LOOP + _TURN + "{% endfor %}" + _ASKS
LLAMA3 = _LOOP + "{% if loop.first %}{{ bos_token }}{% endif %}" + _TURN + "{% endfor %}" + _ASKS
"""Llama 3 Instruct's: BOS, and each turn's text trimmed."""
LLAMA31 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}"
    "{% endif %}{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: ' + date_string + '\n\n' + system + '<|eot_id|>' }}" + LLAMA3_NO_BOS
)
"""Llama 3.1 Instruct's: a system turn with a fixed day, always."""
TULU3 = (
    _LOOP + "{% if m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}{% endfor %}"
)
"""Tulu 3's: markers that are text, and EOS after the assistant's turns alone."""
CHATML = _LOOP + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
INTERNLM2 = "{{ bos_token }}" + CHATML
QWEN25_MATH = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nPlease reason step by step, and"
    " put your final answer within \\\\boxed{}.<|im_end|>\n' }}{% endif %}" + CHATML
)
"""Qwen2.5-Math's: a system turn unless there is one."""
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    + _LOOP
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
    " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
)
"""Gemma 2's: no system turn, and the last token is a newline."""
