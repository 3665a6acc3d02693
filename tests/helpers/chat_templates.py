"""Short chat templates that behave as those of published models do, each with the control tokens that it writes."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """A chat template.

    Attributes:
        special: control tokens of the vocabulary.
        end: the vocabulary's end-of-text token.
        begin: the token that begins every text; None if the vocabulary has none.
        takes: which conversations of CONVERSATIONS it takes.
    """

    source: str
    special: tuple[str, ...]
    end: str
    begin: str | None = None
    takes: frozenset[str] = frozenset({"plain", "system", "dialogue"})


_EVERYTHING = frozenset({"plain", "system", "dialogue", "tools", "calls", "reasoning"})

# Reasoning in history is cut from answers before the last question; the last answer always shows a block.
QWEN3 = Family(
    """{%- if tools %}{{ '<|im_start|>system\n' + (messages[0].content + '\n\n' if messages[0].role == 'system' else '') }}
    {{- '# Tools\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\n' }}{% endfor %}{{ '<|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.found = true %}{%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content, thought = message.content, message.reasoning_content | default('') %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}{{ content }}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\n' if content or not loop.first else '' }}
            {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{ '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}""",
    ("<|im_start|>", "<|im_end|>"), "<|im_end|>", None, _EVERYTHING,
)  # fmt: skip

# The prompt has opened the reasoning; answers in the history lose theirs.
DEEPSEEK = Family(
    """{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + message['content'] }}
    {%- elif message['role'] == 'assistant' %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
        {{- '<\uff5cAssistant\uff5c>' + content }}
        {%- for call in message['tool_calls'] or [] %}
            {{- '<tool>' + call['function']['name'] + ' ' + call['function']['arguments'] | tojson + '</tool>' }}
        {%- endfor %}
        {{- '<\uff5cend\u2581of\u2581sentence\uff5c>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\n' }}{% endif %}""",
    ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
     "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    frozenset({"plain", "system", "dialogue", "reasoning"}),
)  # fmt: skip

# A switch in the system prompt, today's date, and a {% generation %} block.
SMOLLM3 = Family(
    """{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- set thinks = enable_thinking if enable_thinking is defined else true %}
{%- if '/no_think' in system %}{% set thinks = false %}{% elif '/think' in system %}{% set thinks = true %}{% endif %}
{%- set today = strftime_now('%d %B %Y') %}
{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + today + '\nReasoning Mode: ' + ('/think' if thinks else '/no_think') }}
{{- '\n\n' + system.replace('/no_think', '').replace('/think', '').rstrip() + '<|im_end|>\n' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {%- generation %}
        {{- '<|im_start|>assistant\n' + ('' if thinks else '<think>\n\n</think>\n') + message.content.lstrip('\n') + '<|im_end|>\n' }}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' + ('' if thinks else '<think>\n\n</think>\n') }}{% endif %}""",
    ("<|im_start|>", "<|im_end|>"), "<|im_end|>",
)  # fmt: skip

# Today's date with a default of its own; contents are trimmed; an answer with a call has no text.
LLAMA31 = Family(
    """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{% set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}
{%- if tools is not none and tools is defined %}{% for t in tools %}{{ t | tojson(indent=4) }}{{ '\n\n' }}{% endfor %}{% endif %}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- if not message.tool_calls|length == 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{ '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}
        {{- message.content | tojson if message.content is mapping else message.content }}{{ '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>", "<|begin_of_text|>",
    frozenset({"plain", "system", "dialogue", "tools"}),
)  # fmt: skip

# The system prompt goes to the last user turn, so the same turn reads differently later; calls in JSON.
MISTRAL = Family(
    """{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}
{%- else %}{% set turns = messages %}{% endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message['role'] == 'user' %}
        {%- if tools and loop.last %}{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
        {%- if loop.last and system is defined %}{{ '[INST]' + system + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}{{ '[INST]' + message['content'] + '[/INST]' }}{% endif %}
    {%- elif message['tool_calls'] %}
        {{- '[TOOL_CALLS][' }}
        {%- for call in message['tool_calls'] %}
            {{- call['function'] | tojson }}{{ ', ' if not loop.last else ']' + eos_token }}
        {%- endfor %}
    {%- elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}
    {%- else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}
{%- endfor %}""",
    ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"), "</s>", "<s>",
    frozenset({"plain", "system", "dialogue"}),
)  # fmt: skip

# The system prompt begins the first user turn; roles must alternate; the turn's end is not the text's end.
GEMMA = Family(
    """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}
{%- else %}{% set first = '' %}{% set turns = messages %}{% endif %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}
    {%- if message['content'] is string %}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable %}
        {%- for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}
    {%- endif %}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>",
)  # fmt: skip

PHI4_MINI = Family(
    """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), "<|endoftext|>",
)  # fmt: skip

# `thinking` is off unless it is set; the date is written; documents are absent.
GRANITE3 = Family(
    """{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}
{%- else %}
    {%- set system = "Today's Date: " + strftime_now('%B %d, %Y') + ". You are an assistant." %}
    {%- if thinking %}{% set system = system + " Respond to every user query in a comprehensive way." %}{% endif %}
    {%- if documents %}{% set system = system + " Use the documents." %}{% endif %}
    {%- set turns = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}
{%- for message in turns %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
    {%- if loop.last and add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}
{%- endfor %}""",
    ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), "<|end_of_text|>",
)  # fmt: skip

# Channels: the answer is in the final one, a call in commentary, and each ends with its own token.
HARMONY = Family(
    """{%- macro render_name(tool) %}{{ 'functions.' + tool.function.name }}{% endmacro -%}
{%- if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}
{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '\nReasoning: ' + reasoning_effort + '<|end|>' }}
{%- if messages[0].role in ['system', 'developer'] %}{% set developer = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set developer = '' %}{% set turns = messages %}{% endif %}
{%- if developer or tools %}{{ '<|start|>developer<|message|>' + developer }}
    {%- for tool in tools or [] %}{{ '\n' + render_name(tool) + ' ' + tool.function.description }}{% endfor %}{{ '<|end|>' }}
{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
        {{- call.arguments | tojson }}{{ '<|call|>' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}
        {{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start|>functions to=assistant<|channel|>commentary<|message|>' + message.content | tojson + '<|end|>' }}
    {%- else %}{{ '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}""",
    ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"), "<|return|>", None,
    frozenset({"plain", "system", "dialogue", "tools"}),
)  # fmt: skip

# As QwQ and Qwen3-Thinking: the prompt always opens the reasoning.
QWQ = QWEN3._replace(
    source=QWEN3.source.rpartition("{%- if add_generation_prompt %}")[0]
    + "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

FAMILIES = {
    "qwen3": QWEN3, "qwq": QWQ, "deepseek": DEEPSEEK, "smollm3": SMOLLM3, "llama-3.1": LLAMA31, "mistral": MISTRAL,
    "gemma": GEMMA, "phi-4-mini": PHI4_MINI, "granite-3": GRANITE3, "harmony": HARMONY,
}  # fmt: skip
