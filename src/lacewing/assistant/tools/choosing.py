"""Which format of tool calls a model has: by what its template holds, else by what it writes."""

from __future__ import annotations

from lacewing.assistant.tools.format import Format
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

# The first that fits: those of which another is a part stand before it.
FORMATS: tuple[Format, ...] = (
    harmony.FORMAT,
    kimi.FORMAT,
    dsml.FORMAT,
    dsml.FORMAT_V4,
    deepseek.FENCED,
    deepseek.FORMAT,
    mistral.WITH_ID,
    mistral.NAMED,
    mistral.LISTED,
    glm.TIGHT,
    glm.FORMAT,
    qwen_coder.SEED_FORMAT,
    qwen_coder.FORMAT,
    minimax.FORMAT,
    lists.NEMOTRON,
    lists.HUNYUAN_FORMAT,
    olmo.FORMAT,
    apertus.FORMAT,
    gemma4.FORMAT,
    command.FORMAT,
    granite.FORMAT,
    hermes.FORMAT,
    llama.PYTHONIC,
    llama.LLAMA_4,
    llama.FORMAT,
    lfm2.FORMAT,
    lfm2.LATER,
)
DEFAULT = hermes.FORMAT  # which a model without one is told to write


def by_text(text: str) -> Format | None:
    """The format of a template's source, or of calls that it wrote; None if it is none that we know."""
    return next((each for each in FORMATS if all(part in text for part in each.spelt)), None)
