# ruff: noqa: E501  # templates are read by their own lines
"""How published templates write tool calls, in a line or two each, over ChatML's markers."""

from __future__ import annotations

from tests.unit.model.made_templates import LOOP, TURN

_END = "{{ '<|im_end|>\n' }}{% endfor %}"
_START = LOOP + "{{ " + TURN + " }}"
_SAID = "{% if m.content %}{{ m.content }}{% endif %}"
_EACH = "{% for c in m.tool_calls %}{% set c = c.function %}"

QWEN25 = (
    _START + _SAID + _EACH + '{{ \'\n<tool_call>\n{"name": "\' + c.name + \'", "arguments": \' }}'
    "{{ c.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}" + _END
)
QWEN3 = QWEN25.replace(
    "{{ c.arguments | tojson }}",
    "{% if c.arguments is string %}{{ c.arguments }}{% else %}{{ c.arguments | tojson }}{% endif %}",
)
LLAMA31 = (
    _START + "{% if 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at once') }}{% endif %}{% set c = m.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + c.name + '\", ' }}{{ '\"parameters\": ' }}{{ c.arguments | tojson }}{{ '}' }}"
    "{% elif m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content | trim }}{% endif %}"
    + _END
)
HERMES = (  # whole objects, and whose result it is
    _START + "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% if m.role == 'tool' %}{{ {'name': m.name, 'content': m.content} | tojson }}"
    "{% else %}{{ m.content }}{% endif %}" + _END
)
MISTRAL = (
    _START + "{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}{{ c.function | tojson }}{{ c.id }}"
    "{% endfor %}{% elif m.role == 'tool' %}{{ m.tool_call_id + m.content }}"
    "{% else %}{{ m.content }}{% endif %}" + _END
)
DEEPSEEK_R1 = (  # arguments as a text, and only without a content
    _START + "{% if m.role == 'assistant' and m.content is none %}{% for c in m.tool_calls %}"
    "{{ c.type + '\n' + c.function.name + '\n' + c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}" + _END
)
GLM = (
    _START + "{{ m.content.strip() }}" + _EACH + "{{ '<tool_call>' + c.name }}"
    "{% for k, v in c.arguments.items() %}{{ '<arg_key>' + k + '</arg_key>' }}"
    "{{ v | tojson if v is not string else v }}{% endfor %}{% endfor %}" + _END
)
GEMMA = (  # sorted, without quotes in keys, results in the turn that called
    LOOP + "{% if m.role != 'tool' %}{{ " + TURN + " }}" + _EACH + "{{ 'call:' + c.name + '{' }}"
    "{% for k, v in c.arguments | dictsort %}{{ k ~ ':' ~ (v if v is string else v | tojson) ~ ',' }}{% endfor %}{{ '}' }}{% endfor %}"
    "{% if m.tool_calls %}{% for r in messages[loop.index:] %}{% if r.role == 'tool' %}"
    "{{ 'response:' + r.content }}{% endif %}{% endfor %}{% endif %}{{ m.content | trim }}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
HARMONY = (  # one call, whose name stands before its result too
    "{% set last = namespace(name=none) %}" + LOOP + "{% if m.tool_calls %}"
    "{% set c = m.tool_calls[0].function %}{% set last.name = c.name %}"
    "{{ '<|im_start|>assistant to=functions.' + c.name + '\n' }}{{ c.arguments | tojson }}"
    "{% elif m.role == 'tool' %}{% if last.name is none %}{{ raise_exception('no call') }}{% endif %}"
    "{{ '<|im_start|>functions.' + last.name + '\n' }}{{ m.content | tojson }}"
    "{% else %}{{ " + TURN + " + m.content }}{% endif %}" + _END
)
RENDERING = {
    "qwen2.5": QWEN25, "qwen3": QWEN3, "llama3.1": LLAMA31, "hermes": HERMES, "mistral": MISTRAL,
    "deepseek": DEEPSEEK_R1, "glm": GLM, "gemma": GEMMA, "harmony": HARMONY,
}  # fmt: skip

PLAIN = _START + "{{ m.content }}" + _END
NAMES_ALONE = _START + _SAID + _EACH + "{{ c.name }}{% endfor %}" + _END
NO_NUMBERS = _START + _SAID + _EACH + (
    "{{ c.name }}{% for k, v in c.arguments.items() %}{{ k }}{% if v is string %}{{ v }}{% endif %}"
    "{% endfor %}{% endfor %}"
) + _END  # fmt: skip
BY_WORD = QWEN25.replace("c.arguments | tojson", "c.arguments | tojson | replace('secret', '')")
LONG = QWEN25.replace(
    "{{ c.arguments | tojson }}",
    "{{ 'cut' if 'secret' in (c.arguments | tojson) else c.arguments | tojson }}",
)
JOINED = QWEN25.replace("c.arguments | tojson", "c.arguments | tojson | replace('~', '')")
NONE_WRITTEN = _START + "{{ m.content }}" + _EACH + (
    "{{ c.name }}{{ c.arguments | tojson }}{% endfor %}"
) + _END  # fmt: skip
