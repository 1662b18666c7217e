"""Calls as each family of models writes them, for tests: our own writing of the formats, from what their templates render."""

import json

from lacewing.assistant.tools.definitions import checked
from lacewing.assistant.tools.formats import (
    apertus,
    command,
    deepseek,
    dsml,
    gemma4,
    glm,
    granite,
    harmony,
    hermes,
    kimi,
    lfm2,
    lists,
    llama,
    minimax,
    mistral,
    olmo,
    qwen_coder,
)
from lacewing.assistant.tools.pythonic import literal

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "rate": {"type": "number"},
        "deep": {"type": "object"},
        "list": {"type": "array"},
        "flag": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["city"],
}
TOOLS = checked(
    [
        {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "look.up-2", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "now"}},
    ]
)


def dumped(value):
    return json.dumps(value, ensure_ascii=False)


def bare(value):
    return value if isinstance(value, str) else dumped(value)


def object_of(name, arguments, key="arguments"):
    return f'{{"name": "{name}", "{key}": {dumped(arguments)}}}'


def write_hermes(calls):
    return "\n".join(f"<tool_call>\n{object_of(*call)}\n</tool_call>" for call in calls)


def write_coder(calls):
    def one(name, arguments):
        inner = "".join(f"<parameter={key}>\n{bare(value)}\n</parameter>\n" for key, value in arguments.items())
        return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"

    return "\n".join(one(*call) for call in calls)


def write_seed(calls):
    return write_coder(calls).replace("tool_call>", "seed:tool_call>")


def write_glm(calls, gap="\n"):
    def one(name, arguments):
        pairs = (f"<arg_key>{key}</arg_key>{gap}<arg_value>{bare(value)}</arg_value>{gap}" for key, value in arguments.items())
        return f"<tool_call>{name}{gap}{''.join(pairs)}</tool_call>"

    return gap.join(one(*call) for call in calls)


def write_glm_47(calls):
    return write_glm(calls, "")


def write_dsml(calls, block="function_calls"):
    def one(name, arguments):
        pairs = ((f'name="{key}" string="{dumped(isinstance(value, str))}"', bare(value)) for key, value in arguments.items())
        inner = "".join(f"<｜DSML｜parameter {head}>{value}</｜DSML｜parameter>\n" for head, value in pairs)
        return f'<｜DSML｜invoke name="{name}">\n{inner}</｜DSML｜invoke>\n'

    return f"<｜DSML｜{block}>\n{''.join(one(*call) for call in calls)}</｜DSML｜{block}>"


def write_dsml_v4(calls):
    return write_dsml(calls, "tool_calls")


def write_kimi(calls):
    inner = "".join(
        f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{dumped(arguments)}<|tool_call_end|>"
        for index, (name, arguments) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def write_deepseek(calls):
    inner = "".join(f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumped(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls)
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def write_deepseek_v3(calls):
    inner = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumped(arguments)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def write_mistral(calls):
    return f"[TOOL_CALLS][{', '.join(object_of(*call) for call in calls)}]"


def write_mistral_args(calls):
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{dumped(arguments)}" for name, arguments in calls)


def write_mistral_id(calls):
    return "".join(
        f"[TOOL_CALLS]{name}[CALL_ID]{index:09}[ARGS]{dumped(arguments)}" for index, (name, arguments) in enumerate(calls)
    )


def write_llama(calls):
    return "; ".join(object_of(name, arguments, "parameters") for name, arguments in calls)


def write_llama_python(calls):
    return "<|python_tag|>" + write_llama(calls)


def write_harmony(calls):
    return "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{dumped(arguments)}<|call|>"
        for name, arguments in calls
    )


def write_harmony_recipient_first(calls):
    return "<|start|>assistant".join(
        f" to=functions.{name}<|channel|>commentary json<|message|>{dumped(arguments)}<|call|>" for name, arguments in calls
    )


def write_pythonic(calls):
    def one(name, arguments):
        return f"{name}({', '.join(f'{key}={literal(value)}' for key, value in arguments.items())})"

    return f"[{', '.join(one(*call) for call in calls)}]"


def write_lfm(calls):
    return f"<|tool_call_start|>{write_pythonic(calls)}<|tool_call_end|>"


def write_llama_4(calls):
    return f"<|python_start|>{write_pythonic(calls)}<|python_end|>"


def write_granite(calls):
    return f"<|tool_call|>[{', '.join(object_of(*call) for call in calls)}]"


def write_command(calls):
    each = (
        f'    {{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": {dumped(arguments)}}}'
        for index, (name, arguments) in enumerate(calls)
    )
    lines = ",\n".join(each)
    return f"<|START_ACTION|>[\n{lines}\n]<|END_ACTION|>"


def write_minimax(calls):
    def one(name, arguments):
        inner = "".join(f'<parameter name="{key}">{bare(value)}</parameter>\n' for key, value in arguments.items())
        return f'<invoke name="{name}">\n{inner}</invoke>\n'

    return f"<minimax:tool_call>\n{''.join(one(*call) for call in calls)}</minimax:tool_call>"


def write_nemotron(calls):
    return f"<TOOLCALL>[{', '.join(object_of(*call) for call in calls)}]</TOOLCALL>"


def write_hunyuan(calls):
    return write_nemotron(calls).replace("TOOLCALL>", "tool_calls>")


def write_olmo(calls):
    lines = "\n".join(write_pythonic([call])[1:-1] for call in calls)
    return f"<function_calls>\n{lines}\n</function_calls>"


def write_apertus(calls):
    each = (f'{{"{name}": {dumped(arguments)}}}' for name, arguments in calls)
    return f"<|tools_prefix|>[{', '.join(each)}]<|tools_suffix|>"


def gemma_value(value):
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        pairs = (f'<|"|>{key}<|"|>:{gemma_value(each)}' for key, each in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(gemma_value, value)) + "]"
    return dumped(value)


def write_gemma(calls, value=gemma_value):
    def one(name, arguments):
        pairs = (f"{key}:{value(arguments[key])}" for key in sorted(arguments))
        return f"<|tool_call>call:{name}{{{','.join(pairs)}}}<tool_call|>"

    return "".join(one(*call) for call in calls)


def write_gemma_json(calls):
    """With JSON for what is nested."""
    return write_gemma(calls, lambda value: gemma_value(value) if isinstance(value, str) else dumped(value))


# name: (row, how its models write calls, whether text may stand around them)
CASES = {
    "hermes": (hermes.FORMAT, write_hermes, True),
    "qwen-coder": (qwen_coder.FORMAT, write_coder, True),
    "seed": (qwen_coder.SEED_FORMAT, write_seed, True),
    "glm": (glm.FORMAT, write_glm, True),
    "glm-4.7": (glm.TIGHT, write_glm_47, True),
    "dsml": (dsml.FORMAT, write_dsml, True),
    "dsml-v4": (dsml.FORMAT_V4, write_dsml_v4, True),
    "kimi": (kimi.FORMAT, write_kimi, True),
    "deepseek": (deepseek.FORMAT, write_deepseek, True),
    "deepseek-v3": (deepseek.FENCED, write_deepseek_v3, True),
    "mistral": (mistral.LISTED, write_mistral, True),
    "mistral-args": (mistral.NAMED, write_mistral_args, True),
    "mistral-id": (mistral.WITH_ID, write_mistral_id, True),
    "llama": (llama.FORMAT, write_llama, False),
    "llama-python": (llama.FORMAT, write_llama_python, True),
    "llama-pythonic": (llama.PYTHONIC, write_pythonic, False),
    "llama4": (llama.LLAMA_4, write_llama, False),
    "llama4-python": (llama.LLAMA_4, write_llama_4, True),
    "lfm2": (lfm2.FORMAT, write_lfm, True),
    "granite": (granite.FORMAT, write_granite, True),
    "command": (command.FORMAT, write_command, True),
    "minimax": (minimax.FORMAT, write_minimax, True),
    "nemotron": (lists.NEMOTRON, write_nemotron, True),
    "hunyuan": (lists.HUNYUAN_FORMAT, write_hunyuan, True),
    "olmo": (olmo.FORMAT, write_olmo, True),
    "apertus": (apertus.FORMAT, write_apertus, True),
    "gemma4": (gemma4.FORMAT, write_gemma, True),
    "gemma4-json": (gemma4.FORMAT, write_gemma_json, True),
    "harmony": (harmony.FORMAT, write_harmony, False),
    "harmony-recipient-first": (harmony.FORMAT, write_harmony_recipient_first, False),
}
