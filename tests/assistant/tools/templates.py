"""Chat templates of our own, which show tools and write calls and results as those of each family do, and no more."""

_DEFINITIONS = "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
_ROLE = "<|im_start|>{{ m.role }}\n{{ m.content }}"
_END = "<|im_end|>\n"
_START = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def template(call, before="", between="", after="", lead=""):
    """`call`: Jinja with `c`, the function of a call, and `i`, its id; `lead` stands between text and calls."""
    calls = (
        f"{{% if m.content %}}{lead}{{% endif %}}{before}"
        f"{{% for t in m.tool_calls %}}{{% set c = t.function %}}{{% set i = t.id %}}{call}"
        f"{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}{after}"
    )
    message = f"{_ROLE}{{% if m.tool_calls %}}{calls}{{% endif %}}{_END}"
    source = f"{_DEFINITIONS}{{% for m in messages %}}{message}{{% endfor %}}{_START}"
    return source.replace("%}\n", "%}{{ '\\n' }}")  # a line break behind a tag is dropped


_PAIRS = "{% for k, v in c.arguments.items() %}"
_BARE = "{{ v if v is string else v | tojson }}"
_JSON = '{"name": "{{ c.name }}", "arguments": {{ c.arguments | tojson }}}'

_CODER = (
    f"<tool_call>\n<function={{{{ c.name }}}}>\n{_PAIRS}<parameter={{{{ k }}}}>\n{_BARE}\n</parameter>\n{{% endfor %}}"
    "</function>\n</tool_call>"
)
_PAIR = f"<arg_key>{{{{ k }}}}</arg_key>\n<arg_value>{_BARE}</arg_value>\n"
_GLM = f"<tool_call>{{{{ c.name }}}}\n{_PAIRS}{_PAIR}{{% endfor %}}</tool_call>"
_INVOKE = (
    f'<｜DSML｜invoke name="{{{{ c.name }}}}">\n{_PAIRS}<｜DSML｜parameter name="{{{{ k }}}}" '
    f"string=\"{{{{ 'true' if v is string else 'false' }}}}\">{_BARE}</｜DSML｜parameter>\n{{% endfor %}}</｜DSML｜invoke>\n"
)
_BEGIN, _SEPARATOR, _STOP = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_KIMI = "<|tool_call_begin|>{{ i }}<|tool_call_argument_begin|>{{ c.arguments | tojson }}<|tool_call_end|>"
_MINIMAX = f'<invoke name="{{{{ c.name }}}}">\n{_PAIRS}<parameter name="{{{{ k }}}}">{_BARE}</parameter>\n{{% endfor %}}</invoke>\n'

# Python's words for a JSON value, of as much as the tests write.
_PAIRED = (
    "{% for k, v in c.arguments.items() %}{{ k }}={% if v is boolean %}{{ 'True' if v else 'False' }}{% else %}{{ v | tojson }}"
    "{% endif %}{% if not loop.last %}, {% endif %}{% endfor %}"
)
_COUNTED = '    {"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}'
_GEMMA = (
    '{%- if x is string -%}<|"|>{{ x }}<|"|>{%- elif x is mapping -%}'
    "{{ '{' }}{%- for k, v in x.items() -%}<|\"|>{{ k }}<|\"|>:{{ bare(v) }}"
    "{%- if not loop.last -%},{%- endif -%}{%- endfor -%}{{ '}' }}{%- elif x is sequence -%}[{%- for v in x -%}{{ bare(v) }}"
    "{%- if not loop.last -%},{%- endif -%}{%- endfor -%}]{%- else -%}{{ x | tojson }}{%- endif -%}"
)
_SORTED = "{% for k, v in c.arguments | dictsort %}{{ k }}:{{ bare(v) }}{% if not loop.last %},{% endif %}{% endfor %}"

TEMPLATES = {
    "hermes": template(f"<tool_call>\n{_JSON}\n</tool_call>", between="\n", lead="\n"),
    "qwen-coder": template(_CODER, between="\n", lead="\n"),
    "seed": template(_CODER.replace("tool_call>", "seed:tool_call>"), between="\n", lead="\n"),
    "glm": template(_GLM, between="\n", lead="\n"),
    "glm-4.7": template(_GLM.replace("\n", ""), lead="\n"),
    "dsml": template(_INVOKE, "<｜DSML｜function_calls>\n", after="</｜DSML｜function_calls>", lead="\n\n"),
    "dsml-v4": template(_INVOKE, "<｜DSML｜tool_calls>\n", after="</｜DSML｜tool_calls>", lead="\n\n"),
    "kimi": template(_KIMI, "<|tool_calls_section_begin|>", after="<|tool_calls_section_end|>"),
    "deepseek": template(
        f"{_BEGIN}{{{{ c.name }}}}{_SEPARATOR}{{{{ c.arguments | tojson }}}}{_STOP}",
        "<｜tool▁calls▁begin｜>",
        after="<｜tool▁calls▁end｜>",
    ),
    "deepseek-v3": template(
        f"{_BEGIN}function{_SEPARATOR}{{{{ c.name }}}}\n```json\n{{{{ c.arguments | tojson }}}}\n```{_STOP}",
        "<｜tool▁calls▁begin｜>",
        "\n",
        "<｜tool▁calls▁end｜>",
    ),
    "mistral": template(_JSON, "[TOOL_CALLS][", ", ", "]"),
    "mistral-args": template("[TOOL_CALLS]{{ c.name }}[ARGS]{{ c.arguments | tojson }}"),
    "mistral-id": template("[TOOL_CALLS]{{ c.name }}[CALL_ID]{{ i }}[ARGS]{{ c.arguments | tojson }}"),
    "llama": template(_JSON.replace('arguments"', 'parameters"'), between="; ") + "{# <|start_header_id|> #}",
    "llama4": template(_JSON.replace('arguments"', 'parameters"'), between="; ") + "{# <|header_start|> #}",
    "llama-pythonic": template(f"{{{{ c.name }}}}({_PAIRED})", "[", ", ", "]") + "{# [func_name1(params_name1=params_value1)] #}",
    "lfm2": template(f"{{{{ c.name }}}}({_PAIRED})", "<|tool_call_start|>[", ", ", "]<|tool_call_end|>")
    + "{# <|tool_list_start|> #}",
    "granite": template(_JSON, "<|tool_call|>[", ", ", "]") + "{# <|start_of_role|> #}",
    "command": template(_COUNTED, "<|START_ACTION|>[\n", ",\n", "\n]<|END_ACTION|>"),
    "minimax": template(_MINIMAX, "<minimax:tool_call>\n", after="</minimax:tool_call>", lead="\n"),
    "nemotron": template(_JSON, "<TOOLCALL>[", ", ", "]</TOOLCALL>", lead="\n") + "{# <AVAILABLE_TOOLS> #}",
    "hunyuan": template(_JSON, "<tool_calls>[", ", ", "]</tool_calls>") + '{# <tool_calls>[{"name" <|extra_0|> #}',
    "olmo": template(f"{{{{ c.name }}}}({_PAIRED})", "<function_calls>\n", "\n", "\n</function_calls>"),
    "apertus": template(
        "{{ '{' }}\"{{ c.name }}\": {{ c.arguments | tojson }}{{ '}' }}", "<|tools_prefix|>[", ", ", "]<|tools_suffix|>"
    ),
    "gemma4": "{%- macro bare(x) -%}"
    + _GEMMA
    + "{%- endmacro -%}"
    + template(f"<|tool_call>call:{{{{ c.name }}}}{{{{ '{{' }}}}{_SORTED}{{{{ '}}' }}}}<tool_call|>"),
}
STEP = template(_CODER)  # nothing between calls, nor before the first

HARMONY = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "{% for t in m.tool_calls %}<|start|>assistant<|channel|>commentary to=functions.{{ t.function.name }} <|constrain|>json"
    "<|message|>{{ t.function.arguments | tojson }}<|call|>{% endfor %}"
    "{% if m.content %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
